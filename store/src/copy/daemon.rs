//! The docker daemon over its socket: `GET /images/NAME/get` and
//! `POST /images/load` of its API, what `docker save` and `docker load` use.

use super::scratch;
use crate::transfer::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest head of an answer, in bytes; docker's have some hundred.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// Longest error or report that is read, in bytes: a line or two for each layer.
const REPORT_BYTES_MAX: u64 = 16 << 20;

/// How long the daemon may be silent: it unpacks what it loads before it answers.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// Longest line with the length of a chunk, in bytes.
const CHUNK_LINE_BYTES_MAX: u64 = 4096;

/// Fetches image `name` as `docker save` would; a file without a name, at its beginning.
pub(super) fn save(socket: &Path, name: &str) -> Result<File, Error> {
    let path = format!("/images/{}/get", path_segment(name));
    let head = format!("GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
    let talk = || -> io::Result<File> {
        let mut answer = ask(socket, &head, None)?;
        if answer.status != 200 {
            return Err(io::Error::other(answer.error(name)));
        }
        let mut file = scratch::file().map_err(io::Error::other)?;
        io::copy(&mut answer.body, &mut file)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    };
    talk().map_err(failed("get the image from the docker daemon at", socket))
}

/// Gives the archive `file` to the daemon, as `docker load` would.
pub(super) fn load(socket: &Path, file: &File) -> Result<(), Error> {
    let talk = || -> io::Result<()> {
        let length = file.metadata()?.len();
        let head = format!(
            "POST /images/load?quiet=1 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
             Content-Type: application/x-tar\r\nContent-Length: {length}\r\n\r\n"
        );
        let answer = ask(socket, &head, Some(file))?;
        if answer.status != 200 {
            return Err(io::Error::other(answer.error("the image")));
        }
        let report = answer.text()?;
        // The status was sent before the work was done: what failed stands in the report.
        let failure = report.lines().find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line["error"].as_str()?.to_owned())
        });
        failure.map_or(Ok(()), |why| Err(io::Error::other(why)))
    };
    talk().map_err(failed("give the image to the docker daemon at", socket))
}

fn failed(action: &'static str, socket: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = socket.to_owned();
    move |source| Error::File {
        action,
        path,
        source,
    }
}

/// A name within a path: docker takes slashes as they are.
fn path_segment(name: &str) -> String {
    name.split('/')
        .map(crate::registry::query_value)
        .collect::<Vec<_>>()
        .join("/")
}

struct Answer {
    status: u16,
    body: Box<dyn Read>,
}

impl Answer {
    fn text(self) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.body.take(REPORT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What the daemon says is wrong.
    fn error(self, name: &str) -> String {
        let status = self.status;
        let text = self.text().unwrap_or_default();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        match json["message"].as_str() {
            Some(message) => message.to_owned(),
            None if status == 404 => format!("it has no {name}"),
            None => format!("it answers {status}"),
        }
    }
}

/// One request on a connection of its own.
fn ask(socket: &Path, head: &str, body: Option<&File>) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    stream.write_all(head.as_bytes())?;
    if let Some(mut file) = body {
        match io::copy(&mut file, &mut stream) {
            // It stopped listening: its answer says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => {
                other?;
            }
        }
    }
    answer(BufReader::new(stream))
}

fn answer(mut reader: impl BufRead + 'static) -> io::Result<Answer> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "its answer is not HTTP");
    let mut head = Vec::new();
    let mut limited = reader.by_ref().take(HEAD_BYTES_MAX);
    loop {
        let before = head.len();
        if limited.read_until(b'\n', &mut head)? == 0 {
            return Err(bad());
        }
        if matches!(&head[before..], b"\r\n" | b"\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| {
            line.strip_prefix("HTTP/1.")?
                .split(' ')
                .nth(1)?
                .parse()
                .ok()
        })
        .ok_or_else(bad)?;
    let header = |name: &str| {
        lines.clone().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let body: Box<dyn Read> = if header("transfer-encoding").is_some() {
        Box::new(Chunks {
            inner: reader,
            left: 0,
            ended: false,
        })
    } else {
        match header("content-length").and_then(|text| text.parse().ok()) {
            Some(length) => Box::new(reader.take(length)),
            None => Box::new(reader),
        }
    };
    Ok(Answer { status, body })
}

/// A body in chunks (RFC 9112, section 7.1), without its trailers.
struct Chunks<R> {
    inner: R,
    /// Bytes of the chunk that are still to come.
    left: u64,
    ended: bool,
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            self.left = self.length()?;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let length = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self.inner.read(&mut buffer[..length])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        if self.left == 0 {
            // The end of the line behind the chunk.
            self.line()?;
        }
        Ok(count)
    }
}

impl<R: BufRead> Chunks<R> {
    fn length(&mut self) -> io::Result<u64> {
        let line = self.line()?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        u64::from_str_radix(digits, 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "its answer is cut wrongly"))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let count = self
            .inner
            .by_ref()
            .take(CHUNK_LINE_BYTES_MAX)
            .read_line(&mut line)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static [u8]) -> io::Result<(u16, String)> {
        let answer = answer(text)?;
        let status = answer.status;
        let mut body = String::new();
        { answer.body }.read_to_string(&mut body)?;
        Ok((status, body))
    }

    #[test]
    fn bodies_in_all_forms() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap(), (200, "hello world".into()));
        let counted = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nnoise";
        assert_eq!(read(counted).unwrap(), (404, "no".into()));
        let open = b"HTTP/1.0 200 OK\r\n\r\nall of it";
        assert_eq!(read(open).unwrap(), (200, "all of it".into()));
    }

    #[test]
    fn answers_that_are_cut_are_errors() {
        for text in [
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\r\n",
            b"SSH-2.0\r\n\r\n",
        ] {
            assert!(read(text).is_err());
        }
    }

    #[test]
    fn names_become_paths() {
        assert_eq!(path_segment("a/b:1"), "a/b%3A1");
        assert_eq!(path_segment("a?b"), "a%3Fb");
    }
}
