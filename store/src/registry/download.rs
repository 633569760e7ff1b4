//! Blobs from a registry, resumed where a connection was cut.

use super::client::Client;
use super::error::{Error, Transport};
use super::http::{self, Call};
use super::limits::Paced;
use super::ranges::{RANGED_BYTES_MIN, Ranged};
use super::retry;
use crate::digest::Digest;
use crate::image::Descriptor;
use std::io::{self, Read};
use ureq::http::{Method, Response, Uri, header};
use ureq::{Body, BodyReader};

/// A connection that gave at least this much was worth it: the count of
/// attempts begins again. A server that gives single bytes is not endured.
const PROGRESS_BYTES_MIN: u64 = 32 * 1024;

/// What part of the usual wait comes before the first attempt after a connection that was worth it.
const WAIT_AFTER_PROGRESS_PART: u32 = 8;

/// Most addresses of a foreign layer that are tried.
const FOREIGN_ADDRESSES_MAX: usize = 8;

/// The bytes of one blob. A cut connection is resumed by `Range`, without the
/// reader's notice, and where a mirror fails for good, the next one goes on;
/// what a server sends beyond the size is handed on, so that who checks the
/// content sees it.
///
/// The content is *not* checked here: wrap it, or give it to the store.
pub struct BlobReader<'c> {
    /// Whom to ask, in this order; the first is asked now.
    sources: Vec<&'c Client>,
    digest: Digest,
    /// The blob's length in bytes.
    size: u64,
    /// Where to stop.
    end: u64,
    /// Bytes handed on, and those before them that nobody wanted.
    offset: u64,
    body: Option<Paced<BodyReader<'static>>>,
    /// Attempts since the last real progress, and where that was.
    attempt: u32,
    progress_at: u64,
    /// Only an answer that begins where it should will do.
    in_pieces: bool,
}

impl Client {
    /// Opens blob `digest` of `size` bytes (as a descriptor says). A large one comes
    /// over several connections.
    ///
    /// # Errors
    /// As for every request; a blob of another length is refused at once.
    pub fn blob(&self, digest: &Digest, size: u64) -> Result<impl Read + Send + '_, Error> {
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
    ) -> Result<Box<dyn Read + Send + '_>, Error> {
        if size.saturating_sub(offset) >= RANGED_BYTES_MIN
            && let Some(ranged) = Ranged::open(self, digest, size, offset)
        {
            return Ok(Box::new(ranged));
        }
        Ok(Box::new(self.plain_blob_at(digest, size, offset)?))
    }

    /// The blob from `offset` on over one connection.
    pub(super) fn plain_blob_at(
        &self,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<BlobReader<'_>, Error> {
        let mut reader = BlobReader {
            sources: self.sources(true),
            digest: *digest,
            size,
            end: size,
            offset,
            body: None,
            attempt: 1,
            progress_at: offset,
            in_pieces: false,
        };
        reader.open()?;
        Ok(reader)
    }

    /// A part of the blob; a server that does not know ranges is an error.
    pub(super) fn piece_of_blob(
        &self,
        digest: &Digest,
        size: u64,
        offset: u64,
        end: u64,
    ) -> Result<BlobReader<'_>, Error> {
        let mut reader = BlobReader {
            sources: self.sources(true),
            digest: *digest,
            size,
            end,
            offset,
            body: None,
            attempt: 1,
            progress_at: offset,
            in_pieces: true,
        };
        reader.open()?;
        Ok(reader)
    }

    /// Opens a layer that is not stored with its image, at one of the addresses
    /// that its descriptor names. No credentials go there.
    ///
    /// # Errors
    /// That of the last address.
    pub(crate) fn foreign_layer(
        &self,
        blob: &Descriptor,
    ) -> Result<impl Read + Send + use<>, Error> {
        let action = format!("read foreign layer {}", blob.digest);
        let mut last = Error::BadHost(blob.urls.first().cloned().unwrap_or_default());
        for address in blob.urls.iter().take(FOREIGN_ADDRESSES_MAX) {
            let uri: Option<Uri> = address.parse().ok();
            let Some(uri) = uri.filter(|uri| {
                uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"))
            }) else {
                last = Error::BadHost(address.clone());
                continue;
            };
            let call = Call::new(Method::GET, action.clone());
            let sent = retry::run(&self.http.limits, || self.http.send(&uri, &call, None));
            match sent {
                Ok(response) if response.status().as_u16() == 200 => {
                    let body = response.into_body().into_reader();
                    return Ok(Paced::new(body, &self.http.limits));
                }
                Ok(response) => {
                    last = Error::Status {
                        action: action.clone(),
                        host: http::authority(&uri),
                        status: response.status().as_u16(),
                        said: String::new(),
                        retry_after: None,
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl<'c> BlobReader<'c> {
    fn client(&self) -> &'c Client {
        self.sources[0]
    }

    fn action(&self) -> String {
        format!("read blob {}", self.digest)
    }

    /// The first connection: of the first source that has the blob.
    fn open(&mut self) -> Result<(), Error> {
        let sources = std::mem::take(&mut self.sources);
        let found = Client::first_of(&sources, |source| {
            let place = sources
                .iter()
                .position(|other| std::ptr::eq(*other, source));
            let body = retry::run(&source.http.limits, || self.request(source))?;
            Ok((place.unwrap_or(0), body))
        });
        let (place, body) = found?;
        self.sources = sources[place..].to_vec();
        self.body = Some(body);
        Ok(())
    }

    /// Asks for the rest of the blob.
    fn request(&self, client: &Client) -> Result<Paced<BodyReader<'static>>, Error> {
        let uri = client.address(&format!("blobs/{}", self.digest))?;
        let mut call = Call::new(Method::GET, self.action());
        if self.end < self.size || self.in_pieces {
            let last = self.end - 1;
            call = call.header(header::RANGE, format!("bytes={}-{last}", self.offset));
        } else if self.offset > 0 {
            call = call.header(header::RANGE, format!("bytes={}-", self.offset));
        }
        let what = format!("blob {}", self.digest);
        let mut response = client.expect(&uri, &call, &[200, 206, 416], &what)?;
        if response.status().as_u16() == 416 {
            // It takes no ranges at all, or its copy is shorter: the whole blob tells.
            call.headers.clear();
            response = client.expect(&uri, &call, &[200], &what)?;
        }
        let start = self.start(client, &response)?;
        let mut body = Paced::new(response.into_body().into_reader(), &client.http.limits);
        // A server that ignores the range sends all of it again.
        io::copy(&mut (&mut body).take(self.offset - start), &mut io::sink())
            .map_err(|error| client.unreadable(&self.action(), &error))?;
        Ok(body)
    }

    /// Where in the blob a response begins; an error when it cannot be the blob.
    fn start(&self, client: &Client, response: &Response<Body>) -> Result<u64, Error> {
        let wrong = |why: String| Error::Answer {
            action: self.action(),
            host: client.host().to_owned(),
            why,
        };
        let is_part = response.status().as_u16() == 206;
        let start = if is_part {
            let range = http::header_text(response, &header::CONTENT_RANGE).unwrap_or_default();
            match range_start(range) {
                Some(start) if start == self.offset => start,
                _ => {
                    return Err(wrong(format!(
                        "answers with range {range:?} instead of the one asked for"
                    )));
                }
            }
        } else if self.in_pieces {
            return Err(wrong("does not know ranges".into()));
        } else {
            0
        };
        let (end, expected) = if is_part {
            (self.end, self.end)
        } else {
            (self.size, self.size)
        };
        match response.body().content_length() {
            Some(length) if length != end - start => Err(wrong(format!(
                "has a blob of {} bytes instead of {expected}",
                length + start
            ))),
            _ => Ok(start),
        }
    }

    /// Continues after a cut, or gives the reason why not.
    fn resume(&mut self, cause: io::Error) -> io::Result<()> {
        let was_worth_it = self.offset >= self.progress_at + PROGRESS_BYTES_MIN;
        if was_worth_it {
            self.attempt = 1;
        }
        self.progress_at = self.offset;
        let (mut cause, mut asked, mut hopeless) = (cause, None, false);
        loop {
            self.attempt += 1;
            let limits = self.client().http.limits;
            let wait = retry::delay(&limits, self.attempt, asked, retry::random());
            match wait.filter(|_| !hopeless) {
                // A server that cuts now and then is asked again at once, nearly.
                Some(wait) if was_worth_it && self.attempt == 2 => {
                    std::thread::sleep(wait / WAIT_AFTER_PROGRESS_PART);
                }
                Some(wait) => std::thread::sleep(wait),
                None if self.sources.len() > 1 => {
                    self.sources.remove(0);
                    self.attempt = 1;
                }
                None => return Err(worded(cause)),
            }
            match self.request(self.client()) {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) => {
                    hopeless = error.passing().is_none();
                    asked = error.passing().flatten();
                    cause = io::Error::other(error);
                }
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
                Ok(0) if self.offset >= self.end || buffer.is_empty() => return Ok(0),
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                // All is there: how the connection ends does not matter.
                Err(_) if self.offset >= self.end => return Ok(0),
                Err(error) => error,
            };
            self.resume(cause)?;
        }
    }
}

/// What ended the connection, in our words; an error of ours has them already.
fn worded(cause: io::Error) -> io::Error {
    let is_ours = cause
        .get_ref()
        .is_some_and(|inner| inner.downcast_ref::<Error>().is_some());
    if is_ours {
        return cause;
    }
    io::Error::new(cause.kind(), Transport::from(&cause))
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
