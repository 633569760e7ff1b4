//! What a registry has: tags of a repository, repositories, and what refers to an image
//! (distribution-spec, "Content Discovery"; the catalog is the distribution project's).

use super::client::{Client, Fetched, Options};
use super::error::Error;
use super::http::{self, Call};
use super::retry;
use crate::digest::Digest;
use crate::image::{DOCUMENT_BYTES_MAX, Descriptor, Document, Index, media_type};
use serde::Deserialize;
use ureq::http::{Method, Uri, header};

/// Entries asked for at once; registries give fewer where they want.
const PAGE_ENTRIES: usize = 1000;

/// Most pages of one list (security.md, S27): some registries give a hundred entries a page.
const PAGES_MAX: usize = 1000;

/// Most entries of one list, for memory's sake: 64 MB at a hundred bytes each would be more.
const ENTRIES_MAX: usize = 500_000;

/// Longest name that is taken over, in bytes; tags have 128 at most, repositories 255.
const NAME_BYTES_MAX: usize = 255;

/// How a registry let us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// Whether it asked who we are.
    pub was_asked: bool,
    /// What may be kept in place of the password.
    pub identity: Option<String>,
}

impl Client {
    /// All tags of the repository, in the registry's order; `enough` says when no more are wanted.
    ///
    /// # Errors
    /// As for every request; a list without end.
    pub fn tags(&self, limit: usize) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default, deserialize_with = "crate::image::null_is_default")]
            tags: Vec<String>,
        }
        let first = self.address(&format!("tags/list?n={PAGE_ENTRIES}"))?;
        let action = format!("list the tags of {}", self.repository());
        let mut tags = Vec::new();
        self.pages(first, &action, self.repository(), |body| {
            let page: Page = serde_json::from_slice(body).ok()?;
            Some(add_names(&mut tags, page.tags, limit, |_| true))
        })?;
        Ok(tags)
    }

    /// The repositories of registry `host` whose name holds `term`.
    ///
    /// # Errors
    /// As for every request; a registry without a catalog; a list without end.
    pub fn search(
        host: &str,
        term: &str,
        limit: usize,
        options: &Options,
    ) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            #[serde(default, deserialize_with = "crate::image::null_is_default")]
            repositories: Vec<String>,
        }
        let client = Self::to_registry(host, vec!["registry:catalog:*".into()], options)?;
        let first = client.address_of(&format!("_catalog?n={PAGE_ENTRIES}"))?;
        let mut found = Vec::new();
        client.pages(first, "read the catalog", "catalog", |body| {
            let page: Page = serde_json::from_slice(body).ok()?;
            Some(add_names(&mut found, page.repositories, limit, |name| {
                name.contains(term)
            }))
        })?;
        Ok(found)
    }

    /// Checks that the registry lets us in. A token server is asked for an identity token, too, which may be kept in
    /// place of the password.
    ///
    /// # Errors
    /// As for every request; credentials that it refuses.
    pub fn log_in(host: &str, options: &Options) -> Result<LoggedIn, Error> {
        let client = Self::to_registry(host, Vec::new(), options)?;
        client.authorization().want_identity();
        let uri = client.address_of("")?;
        let call = Call::new(Method::GET, "log in");
        retry::run(&client.http.limits, || {
            client.expect(&uri, &call, &[200], "registry API at its address")
        })?;
        Ok(LoggedIn {
            was_asked: client.authorization().was_asked(),
            identity: client.authorization().identity(),
        })
    }

    /// What refers to the manifest of `digest`: of any kind, or of `artifact_type` alone.
    ///
    /// # Errors
    /// As for every request; a list without end.
    pub fn referrers(
        &self,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let query = artifact_type
            .map(|kind| format!("?artifactType={}", http::query_value(kind)))
            .unwrap_or_default();
        let first = self.address(&format!("referrers/{digest}{query}"))?;
        let action = format!("list what refers to {}@{digest}", self.repository());
        let mut found: Vec<Descriptor> = Vec::new();
        let listed = self.pages(first, &action, "referrers", |body| {
            let index: Index = serde_json::from_slice(body).ok()?;
            found.extend(index.manifests);
            Some(found.len() < ENTRIES_MAX)
        });
        match listed {
            Ok(()) => {}
            Err(Error::NotFound { .. }) => {
                found = self
                    .referrers_by_tag(digest)?
                    .map(|(index, _)| index.manifests)
                    .unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
        // A registry may leave the choice to us.
        if let Some(kind) = artifact_type {
            found.retain(|entry| artifact_type_of(entry) == Some(kind));
        }
        Ok(found)
    }

    /// The list that older registries keep under a tag (distribution-spec, "Referrers Tag Schema").
    pub(super) fn referrers_by_tag(
        &self,
        digest: &Digest,
    ) -> Result<Option<(Index, Fetched)>, Error> {
        let tag = referrers_tag(digest);
        let fetched = match self.manifest(&tag) {
            Err(Error::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        match Document::parse(&fetched.bytes, fetched.media_type.as_deref()) {
            Ok(Document::Index(index)) => Ok(Some((index, fetched))),
            _ => Err(Error::Answer {
                action: format!("read {}:{tag}", self.repository()),
                host: self.host().to_owned(),
                why: "has something else than a list of referrers under this tag".into(),
            }),
        }
    }

    /// Reads a list page by page until `take` wants no more (`Some(false)`) or
    /// cannot read one (`None`).
    fn pages(
        &self,
        first: Uri,
        action: &str,
        what: &str,
        mut take: impl FnMut(&[u8]) -> Option<bool>,
    ) -> Result<(), Error> {
        let wrong = |why: &str| Error::Answer {
            action: action.to_owned(),
            host: self.host().to_owned(),
            why: why.to_owned(),
        };
        let mut here = first;
        for _ in 0..PAGES_MAX {
            let call = Call::new(Method::GET, action).header(
                header::ACCEPT,
                format!("application/json, {}", media_type::OCI_INDEX),
            );
            let (body, link) = retry::run(&self.http.limits, || {
                let mut response = self.expect(&here, &call, &[200], what)?;
                let link = http::header_text(&response, &header::LINK).map(str::to_owned);
                let body = http::read_body(&mut response, DOCUMENT_BYTES_MAX, &self.http.limits)
                    .map_err(|error| self.unreadable(action, &error))?;
                Ok((body, link))
            })?;
            let wants_more = take(&body).ok_or_else(|| wrong("sends no list"))?;
            let Some(next) = link.as_deref().and_then(next_page).filter(|_| wants_more) else {
                return Ok(());
            };
            let next = http::join(&here, next)
                .filter(|next| http::same_origin(next, &here) && *next != here)
                .ok_or_else(|| {
                    wrong("sends us elsewhere, or in a circle, for the rest of the list")
                })?;
            here = next;
        }
        Err(wrong("has a list without end"))
    }
}

/// Takes names over as far as they are wanted; whether more are.
fn add_names(
    all: &mut Vec<String>,
    page: Vec<String>,
    limit: usize,
    wanted: impl Fn(&str) -> bool,
) -> bool {
    let limit = limit.min(ENTRIES_MAX);
    let good = page
        .into_iter()
        .filter(|name| name.len() <= NAME_BYTES_MAX && wanted(name));
    all.extend(good.take(limit.saturating_sub(all.len())));
    all.len() < limit
}

/// The tag under which older registries list what refers to `digest`.
pub(super) fn referrers_tag(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

/// A descriptor's `artifactType`, which the specification puts beside its other fields.
pub(super) fn artifact_type_of(entry: &Descriptor) -> Option<&str> {
    entry
        .other
        .get("artifactType")
        .and_then(|kind| kind.as_str())
}

/// The address in `<address>; rel="next"` (RFC 8288).
fn next_page(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters
            .split(';')
            .map(|parameter| parameter.trim().replace('"', ""))
            .any(|parameter| parameter.eq_ignore_ascii_case("rel=next"));
        is_next.then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_next_page() {
        let link = r#"</v2/a/tags/list?n=2&last=b>; rel="next""#;
        assert_eq!(next_page(link), Some("/v2/a/tags/list?n=2&last=b"));
        assert_eq!(next_page("<x>; rel=next; title=y"), Some("x"));
        assert_eq!(next_page(r#"<x>; rel="prev", <y>; rel="next""#), Some("y"));
        for none in ["", "<x>", "<x>; rel=\"prev\"", "x; rel=\"next\""] {
            assert_eq!(next_page(none), None, "{none}");
        }
    }

    #[test]
    fn names_stop_at_the_limit() {
        let mut all = Vec::new();
        let page = || vec!["a".to_owned(), "b".to_owned(), "x".repeat(300)];
        assert!(add_names(&mut all, page(), 3, |_| true));
        assert!(!add_names(&mut all, page(), 3, |_| true));
        assert_eq!(all, ["a", "b", "a"]);
    }
}
