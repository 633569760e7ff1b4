//! Blobs and manifests to a registry (distribution-spec, "Pushing blobs").
//!
//! 1. HEAD: what is there is not sent.
//! 2. POST with `mount` and `from`: what another repository there has is not
//!    sent either. 202 instead of 201 is an ordinary session: it is continued.
//! 3. PATCH: all the rest of the blob at once, which every registry takes; in
//!    pieces where 413 says that this was too much, or where all at once failed.
//! 4. After a cut: GET says how far it came, PATCH sends the rest. A session
//!    that is lost begins anew.
//! 5. PUT with the digest ends it; the registry checks the content against it.

use super::client::Client;
use super::error::{Error, Transport};
use super::http::{self, Call, Payload};
use super::retry;
use crate::digest::Digest;
use std::io::{self, Read};
use ureq::Body;
use ureq::http::{Method, Response, Uri, header};

/// Length of a piece for registries (or proxies before them) that refuse more
/// at once; nginx's own limit is 1 MiB, but who runs a registry behind it raises that.
const PIECE_BYTES: u64 = 8 << 20;

/// From this length on the registry is asked first whether it takes the bytes:
/// a refusal then costs a round trip, and is not lost behind a cut connection.
const EXPECT_BYTES_MIN: u64 = 1 << 20;

/// Content that can be read again from any place: a file of the store.
pub trait Source: Sync {
    /// Opens the content at `offset` bytes.
    ///
    /// # Errors
    /// Those of the file.
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

/// How a blob came to be at the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there.
    Present,
    /// Another repository of the registry had it.
    Mounted,
    /// It was sent.
    Sent,
}

/// An upload session: where it goes on, and how far it came.
struct Session {
    location: Uri,
    offset: u64,
    /// Most bytes to send at once.
    piece: u64,
}

impl Client {
    /// Puts blob `digest` of `size` bytes there, unless it is; `mount_from` is
    /// a repository of the same registry that probably has it.
    ///
    /// # Errors
    /// As for every request; the registry's own check of the digest among them.
    pub fn upload(
        &self,
        digest: &Digest,
        size: u64,
        source: &dyn Source,
        mount_from: Option<&str>,
    ) -> Result<Uploaded, Error> {
        if self.has_blob(digest)? {
            return Ok(Uploaded::Present);
        }
        let mut mount = mount_from.filter(|from| *from != self.repository());
        let mut piece = u64::MAX;
        retry::run(&self.http.limits, || {
            let Some(mut session) = self.begin(digest, mount.take())? else {
                return Ok(Uploaded::Mounted);
            };
            // Some proxies cut what is too long for them instead of saying 413.
            session.piece = std::mem::replace(&mut piece, PIECE_BYTES);
            while session.offset < size {
                self.patch(&mut session, digest, size, source)?;
            }
            self.finish(&session, digest)?;
            Ok(Uploaded::Sent)
        })
    }

    /// Whether the registry has blob `digest` in this repository.
    ///
    /// # Errors
    /// As for every request.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let uri = self.address(&format!("blobs/{digest}"))?;
        let call = Call::new(Method::HEAD, format!("look for blob {digest}"));
        let response = retry::run(&self.http.limits, || {
            self.expect(&uri, &call, &[200, 404], "blob")
        })?;
        Ok(response.status().as_u16() == 200)
    }

    /// Stores a manifest under `wanted`, a tag or its digest.
    ///
    /// # Errors
    /// As for every request; a registry that stored something else.
    pub fn put_manifest(&self, wanted: &str, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        self.put_manifest_with_subject(wanted, media_type, bytes)
            .map(|_| ())
    }

    /// [`Client::put_manifest`]; whether the registry lists it among what refers to its subject.
    pub(super) fn put_manifest_with_subject(
        &self,
        wanted: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<bool, Error> {
        let uri = self.address(&format!("manifests/{wanted}"))?;
        let call = Call::new(
            Method::PUT,
            format!("write manifest {}/{wanted}", self.repository()),
        )
        .header(header::CONTENT_TYPE, media_type)
        .payload(Payload::Bytes(bytes));
        let response = retry::run(&self.http.limits, || {
            self.expect(&uri, &call, &[200, 201, 202], "repository")
        })?;
        let digest = Digest::of(bytes);
        let stored = response
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok());
        match stored.and_then(|stored| stored.parse::<Digest>().ok()) {
            Some(other) if other.algorithm() == digest.algorithm() && other != digest => {
                Err(Error::Answer {
                    action: call.action,
                    host: self.host().to_owned(),
                    why: format!("stored it as {other} instead of {digest}"),
                })
            }
            _ => Ok(response.headers().contains_key("oci-subject")),
        }
    }

    /// Opens a session; none when the blob could be mounted instead.
    fn begin(&self, digest: &Digest, mount_from: Option<&str>) -> Result<Option<Session>, Error> {
        let path = match mount_from {
            Some(from) => format!(
                "blobs/uploads/?mount={}&from={}",
                http::query_value(&digest.to_string()),
                http::query_value(from)
            ),
            None => "blobs/uploads/".to_owned(),
        };
        let uri = self.address(&path)?;
        let call = Call::new(Method::POST, format!("begin to write blob {digest}"))
            .payload(Payload::Bytes(b""));
        let response = self.expect(&uri, &call, &[201, 202], "repository")?;
        if response.status().as_u16() == 201 && mount_from.is_some() {
            return Ok(None);
        }
        let location = self.location(&uri, &response, &call.action)?;
        Ok(Some(Session {
            location,
            offset: 0,
            piece: u64::MAX,
        }))
    }

    /// Sends the rest, or as much of it as the registry takes at once.
    fn patch(
        &self,
        session: &mut Session,
        digest: &Digest,
        size: u64,
        source: &dyn Source,
    ) -> Result<(), Error> {
        let offset = session.offset;
        let length = (size - offset).min(session.piece);
        let open = || source.open(offset);
        let mut call = Call::new(Method::PATCH, format!("write blob {digest}"))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .payload(Payload::Stream {
                open: &open,
                length,
            });
        if length >= EXPECT_BYTES_MIN {
            call = call.header(header::EXPECT, "100-continue");
        }
        // Whole blobs go without: some registries take the header for a promise of pieces.
        if offset > 0 || length < size {
            call = call.header(
                header::CONTENT_RANGE,
                format!("{offset}-{}", offset + length - 1),
            );
        }
        let response =
            match self.expect(&session.location, &call, &[201, 202, 204], "upload session") {
                Ok(response) => response,
                Err(Error::Status { status: 413, .. }) if session.piece > PIECE_BYTES => {
                    session.piece = PIECE_BYTES;
                    return self.find_place(session, digest);
                }
                Err(error) if error.passing().is_some() => {
                    // How far it came decides; a registry that does not know makes us begin anew.
                    let before = session.offset;
                    return match self.find_place(session, digest) {
                        Ok(()) if session.offset > before => Ok(()),
                        _ => Err(error),
                    };
                }
                Err(error) => return Err(error),
            };
        session.location = self.location(&session.location, &response, &call.action)?;
        session.offset = received(&response).unwrap_or(offset + length);
        if session.offset > offset + length || session.offset <= offset {
            let why = format!(
                "has {} bytes after {} were sent",
                session.offset,
                offset + length
            );
            return Err(Error::Answer {
                action: call.action,
                host: self.host().to_owned(),
                why,
            });
        }
        Ok(())
    }

    /// Asks how far the session came (distribution-spec, end-13).
    fn find_place(&self, session: &mut Session, digest: &Digest) -> Result<(), Error> {
        let call = Call::new(Method::GET, format!("continue to write blob {digest}"));
        let response = self.expect(&session.location, &call, &[200, 202, 204], "upload session")?;
        session.offset = received(&response).unwrap_or(0);
        if response.headers().contains_key(header::LOCATION) {
            session.location = self.location(&session.location, &response, &call.action)?;
        }
        Ok(())
    }

    fn finish(&self, session: &Session, digest: &Digest) -> Result<(), Error> {
        let separator = if session.location.query().is_some() {
            '&'
        } else {
            '?'
        };
        let text = format!(
            "{}{separator}digest={}",
            session.location,
            http::query_value(&digest.to_string())
        );
        let uri: Uri = text.parse().map_err(|_| Error::BadHost(text.clone()))?;
        let call = Call::new(Method::PUT, format!("finish to write blob {digest}"))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .payload(Payload::Bytes(b""));
        match self.expect(&uri, &call, &[201, 204], "upload session") {
            Ok(_) => Ok(()),
            // The answer was lost, not the blob.
            Err(Error::Transport {
                source: Transport::Cut(_) | Transport::Stalled(_),
                ..
            }) if self.has_blob(digest)? => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn location(&self, base: &Uri, response: &Response<Body>, action: &str) -> Result<Uri, Error> {
        let location = http::header_text(response, &header::LOCATION).unwrap_or_default();
        let wrong = |why: &str| Error::Answer {
            action: action.to_owned(),
            host: self.host().to_owned(),
            why: why.to_owned(),
        };
        if location.is_empty() {
            return Err(wrong("does not say where to write to"));
        }
        let uri =
            http::join(base, location).ok_or_else(|| wrong("names no address to write to"))?;
        if base.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
            return Err(wrong(
                "sends us from https to plain http, which is not followed",
            ));
        }
        Ok(uri)
    }
}

/// How many bytes a session has, from `Range: 0-4` (the last byte, inclusive).
/// An empty session is told in two ways: `0-0` and no range at all; after one
/// byte both are the same, so what is unclear is sent again.
fn received(response: &Response<Body>) -> Option<u64> {
    let range = http::header_text(response, &header::RANGE)?;
    let range = range.trim().strip_prefix("bytes=").unwrap_or(range.trim());
    match range.split_once('-')?.1.parse::<u64>().ok()? {
        0 => None,
        last => last.checked_add(1),
    }
}
