//! The registry client (distribution-spec 1.1): blocking requests over HTTP/1.1,
//! as many at a time as there are threads that make them.
//!
//! Start reading at [`Client`]. What talks to the network is [`http`](self) and
//! the name resolver; what decides is pure and tested as values: `challenge`
//! (what a 401 asks for), `realm` (where we go for a token), `retry` (when to
//! try again), `proxy`, `credentials`.

mod attach;
mod auth;
mod challenge;
mod client;
mod credentials;
mod dns;
mod download;
mod error;
mod http;
mod limits;
mod listing;
mod logins;
mod places;
mod proxy;
mod ranges;
mod realm;
mod resolve;
mod retry;
#[cfg(test)]
mod scenes;
mod signature;
mod trust;
mod upload;
mod web;

pub(crate) use http::query_value;

pub use attach::Artifact;
pub use client::{Access, Client, Fetched, Options};
pub use credentials::{Credentials, CredentialsError};
pub use download::BlobReader;
pub use error::{Error, Transport};
pub use limits::Limits;
pub use listing::LoggedIn;
pub use logins::{Kept, erase as erase_login, store as store_login};
pub use places::{Files, PlaceError};
pub use realm::BadRealm;
pub use signature::{PublicKey, Verdict};
pub use trust::{TrustError, TrustOptions};
pub use upload::{Source, Uploaded};
pub use web::{Known, Web, WebFile};
