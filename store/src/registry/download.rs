//! Blobs from a registry, resumed where a connection was cut.

use super::client::Client;
use super::error::Error;
use super::http::{self, Call};
use super::retry;
use crate::digest::Digest;
use std::io::{self, Read};
use ureq::http::{Method, Response, header};
use ureq::{Body, BodyReader};

/// A connection that gave at least this much was worth it: the count of
/// attempts begins again. A server that gives single bytes is not endured.
const PROGRESS_BYTES_MIN: u64 = 32 * 1024;

/// The bytes of one blob. A cut connection is resumed by `Range`, without the
/// reader's notice; what a server sends beyond the size is handed on, so that
/// who checks the content sees it.
///
/// The content is *not* checked here: wrap it, or give it to the store.
pub struct BlobReader<'c> {
    client: &'c Client,
    digest: Digest,
    size: u64,
    /// Bytes handed on.
    offset: u64,
    body: Option<BodyReader<'static>>,
    /// Attempts since the last real progress, and where that was.
    attempt: u32,
    progress_at: u64,
}

impl Client {
    /// Opens blob `digest` of `size` bytes (as a descriptor says).
    ///
    /// # Errors
    /// As for every request; a blob of another length is refused at once.
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<BlobReader<'_>, Error> {
        self.blob_at(digest, size, 0)
    }

    /// [`Client::blob`] without its first `offset` bytes.
    ///
    /// # Errors
    /// As for every request; a blob of another length is refused at once.
    pub fn blob_at(
        &self,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<BlobReader<'_>, Error> {
        let mut reader = BlobReader {
            client: self,
            digest: *digest,
            size,
            offset,
            body: None,
            attempt: 1,
            progress_at: offset,
        };
        reader.body = Some(retry::run(|| reader.request())?);
        Ok(reader)
    }
}

impl BlobReader<'_> {
    fn action(&self) -> String {
        format!("read blob {}", self.digest)
    }

    /// Asks for the rest of the blob.
    fn request(&self) -> Result<BodyReader<'static>, Error> {
        let uri = self.client.address(&format!("blobs/{}", self.digest))?;
        let mut call = Call::new(Method::GET, self.action());
        if self.offset > 0 {
            call = call.header(header::RANGE, format!("bytes={}-", self.offset));
        }
        let what = format!("blob {}", self.digest);
        let response = self.client.expect(&uri, &call, &[200, 206], &what)?;
        let start = self.start(&response)?;
        let mut body = response.into_body().into_reader();
        // A server that ignores the range sends all of it again.
        io::copy(&mut (&mut body).take(self.offset - start), &mut io::sink())
            .map_err(|error| self.client.unreadable(&self.action(), &error))?;
        Ok(body)
    }

    /// Where in the blob a response begins; an error when it cannot be the blob.
    fn start(&self, response: &Response<Body>) -> Result<u64, Error> {
        let wrong = |why: String| Error::Answer {
            action: self.action(),
            host: self.client.host().to_owned(),
            why,
        };
        let start = if response.status().as_u16() == 206 {
            let range = http::header_text(response, &header::CONTENT_RANGE).unwrap_or_default();
            match range_start(range) {
                Some(start) if start == self.offset => start,
                _ => {
                    return Err(wrong(format!(
                        "answers with range {range:?} instead of the one asked for"
                    )));
                }
            }
        } else {
            0
        };
        let length = response.body().content_length();
        match length {
            Some(length) if length != self.size - start => {
                let expected = self.size;
                Err(wrong(format!(
                    "has a blob of {} bytes instead of {expected}",
                    length + start
                )))
            }
            _ => Ok(start),
        }
    }

    /// Continues after a cut, or gives the reason why not.
    fn resume(&mut self, cause: io::Error) -> io::Result<()> {
        if self.offset >= self.progress_at + PROGRESS_BYTES_MIN {
            self.attempt = 1;
        }
        self.progress_at = self.offset;
        let mut cause = cause;
        loop {
            self.attempt += 1;
            let Some(wait) = retry::delay(self.attempt, None, retry::random()) else {
                return Err(cause);
            };
            std::thread::sleep(wait);
            match self.request() {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) if error.passing().is_some() => cause = io::Error::other(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(body) = &mut self.body else {
                return Ok(0);
            };
            let result = body.read(buffer);
            let cause = match result {
                Ok(0) if self.offset >= self.size || buffer.is_empty() => return Ok(0),
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                // All is there: how the connection ends does not matter.
                Err(_) if self.offset >= self.size => return Ok(0),
                Err(error) => error,
            };
            self.resume(cause)?;
        }
    }
}

/// The first byte of `bytes 5-9/10` (RFC 9110, section 14.4).
fn range_start(header: &str) -> Option<u64> {
    let range = header.trim().strip_prefix("bytes")?.trim_start();
    range.split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("bytes 0-0/*"), Some(0));
        for bad in ["", "bytes */10", "items 1-2/3", "bytes x-2/3", "bytes 7"] {
            assert_eq!(range_start(bad), None, "{bad}");
        }
    }
}
