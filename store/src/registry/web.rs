//! Files behind URLs, for who is no registry: the same connections, certificates, proxies and
//! rules about redirects, and a password only for the server it was given for.

use super::error::Error;
use super::http::{self, Call, Http};
use super::limits::Limits;
use super::trust::{OwnFiles, TrustOptions};
use std::io::Read;
use ureq::Body;
use ureq::http::{Method, Response, Uri, header};

/// Fetches files.
pub struct Web {
    http: Http,
}

impl std::fmt::Debug for Web {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Web").finish_non_exhaustive()
    }
}

/// What is already known of a file: its server need not send it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// What the server calls this state of the file.
    pub etag: Option<String>,
    /// When it was last changed, as the server wrote it.
    pub last_modified: Option<String>,
}

/// An answer.
pub enum WebFile {
    /// It is as it is known.
    Unchanged,
    /// Its content, still to be read, and what to know of it next time.
    Content {
        /// The content.
        body: Box<dyn Read + Send>,
        /// What to ask with next time.
        known: Known,
    },
}

impl std::fmt::Debug for WebFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "Unchanged",
            Self::Content { .. } => "Content",
        })
    }
}

impl Web {
    /// A client with these certificates.
    #[must_use]
    pub fn new(trust: TrustOptions) -> Self {
        Self {
            http: Http::new(trust, OwnFiles::default(), Limits::default(), ""),
        }
    }

    /// Asks for the file at `url`. `login` is `user:password`.
    ///
    /// # Errors
    /// No connection, or an answer that is no file.
    pub fn get(&self, url: &str, login: Option<&str>, known: &Known) -> Result<WebFile, Error> {
        let uri: Uri = url.parse().map_err(|_| Error::BadHost(url.to_owned()))?;
        let mut call = Call::new(Method::GET, format!("read {url}"));
        let conditions = [
            (header::IF_NONE_MATCH, &known.etag),
            (header::IF_MODIFIED_SINCE, &known.last_modified),
        ];
        for (name, value) in conditions {
            if let Some(value) = value {
                call = call.header(name, value.clone());
            }
        }
        let authorization = login.map(|login| {
            use base64::Engine as _;
            let encoded = base64::engine::general_purpose::STANDARD.encode(login);
            format!("Basic {encoded}")
        });
        let response = self.http.send(&uri, &call, authorization.as_deref())?;
        match response.status().as_u16() {
            200 => Ok(content(response)),
            304 => Ok(WebFile::Unchanged),
            status => Err(Error::Status {
                action: format!("read {url}"),
                host: http::authority(&uri),
                status,
                said: String::new(),
                retry_after: None,
            }),
        }
    }
}

fn content(response: Response<Body>) -> WebFile {
    let text = |name| http::header_text(&response, &name).map(str::to_owned);
    let known = Known {
        etag: text(header::ETAG),
        last_modified: text(header::LAST_MODIFIED),
    };
    WebFile::Content {
        body: Box::new(response.into_body().into_reader()),
        known,
    }
}
