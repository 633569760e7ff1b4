//! `list-tags`, `search`, `referrers`, `attach`, `verify-signature`: what is at a registry, without fetching it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use teu_store::image::{Descriptor, Document};
use teu_store::reference::DEFAULT_TAG;
use teu_store::registry::{Access, Artifact, Client, Error, Options, PublicKey};
use teu_store::{Digest, Reference};

use super::Outcome;
use super::format::{Format, Listed, print};
use super::registry::RegistryArgs;

/// List the tags of a repository at its registry
#[derive(Debug, Args)]
pub(crate) struct ListTags {
    /// Name of the repository: [REGISTRY/]REPOSITORY
    name: Reference,
    /// Most tags to list
    #[arg(long, default_value_t = 10_000)]
    limit: usize,
    /// table, json, or a text with {repository}, {tag}, {name} in it
    #[arg(long, default_value = "table")]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, Serialize)]
struct Tag {
    name: String,
    repository: String,
    tag: String,
}

impl Listed for Tag {
    const HEAD: &'static [&'static str] = &["TAG"];

    fn cells(&self) -> Vec<String> {
        vec![self.tag.clone()]
    }
}

impl ListTags {
    pub(crate) fn run(self) -> Outcome {
        let client = Client::connect(&self.name, Access::Pull, &[], &self.registry.options())?;
        let repository = self.name.familiar_name();
        let tags = client.tags(self.limit)?.into_iter().map(|tag| Tag {
            name: format!("{repository}:{tag}"),
            repository: repository.clone(),
            tag,
        });
        print(&self.format, tags)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// List the repositories of a registry that shows its catalog
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// The registry, and optionally a part of the repositories' names: REGISTRY[/PART]
    place: String,
    /// Most repositories to list
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// table, json, or a text with {registry}, {repository}, {name} in it
    #[arg(long, default_value = "table")]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, Serialize)]
struct Repository {
    name: String,
    registry: String,
    repository: String,
}

impl Listed for Repository {
    const HEAD: &'static [&'static str] = &["REPOSITORY"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

impl Search {
    pub(crate) fn run(self) -> Outcome {
        let (host, term) = self.place.split_once('/').unwrap_or((&self.place, ""));
        if host == "docker.io" {
            return Err("docker.io shows no catalog: search on hub.docker.com".into());
        }
        let found = Client::search(host, term, self.limit, &self.registry.options())?;
        let rows = found.into_iter().map(|repository| Repository {
            name: format!("{host}/{repository}"),
            registry: host.to_owned(),
            repository,
        });
        print(&self.format, rows)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// List what refers to an image at its registry: signatures, bills of materials
#[derive(Debug, Args)]
pub(crate) struct Referrers {
    /// Name of the image: [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    name: Reference,
    /// Of this kind only
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// table, json, or a text with {digest}, {artifact_type}, {size}, {annotations.NAME} in it
    #[arg(long, default_value = "table")]
    format: Format,
    #[command(flatten)]
    registry: RegistryArgs,
}

#[derive(Debug, Serialize)]
struct Referrer {
    digest: Digest,
    artifact_type: String,
    media_type: String,
    size: u64,
    annotations: BTreeMap<String, String>,
}

impl Listed for Referrer {
    const HEAD: &'static [&'static str] = &["DIGEST", "TYPE"];

    fn cells(&self) -> Vec<String> {
        vec![self.digest.to_string(), self.artifact_type.clone()]
    }
}

impl Referrers {
    pub(crate) fn run(self) -> Outcome {
        let client = Client::connect(&self.name, Access::Pull, &[], &self.registry.options())?;
        let subject = subject(&client, &self.name)?;
        let found = client.referrers(&subject.digest, self.artifact_type.as_deref())?;
        let rows = found.into_iter().map(|entry| Referrer {
            digest: entry.digest,
            artifact_type: entry
                .other
                .get("artifactType")
                .and_then(|kind| kind.as_str())
                .unwrap_or_default()
                .to_owned(),
            media_type: entry.media_type,
            size: entry.size,
            annotations: entry.annotations,
        });
        print(&self.format, rows)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Attach files to an image at its registry, as an artifact that refers to it
///
/// The artifact's digest is printed; `referrers` lists it.
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Name of the image: [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    name: Reference,
    /// Files, each with its media type [default type: application/octet-stream]
    #[arg(required = true, value_name = "FILE[:TYPE]")]
    files: Vec<String>,
    /// What the artifact is, such as application/spdx+json
    #[arg(long, value_name = "TYPE")]
    artifact_type: String,
    /// Text to go with it; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Attach {
    pub(crate) fn run(self) -> Outcome {
        let client = Client::connect(&self.name, Access::Push, &[], &self.registry.options())?;
        let subject = subject(&client, &self.name)?;
        let artifact = Artifact {
            kind: self.artifact_type,
            files: self.files.iter().map(|text| file(text)).collect(),
            annotations: self.annotation.into_iter().collect(),
        };
        let digest = client.attach(&subject, &artifact)?;
        writeln!(std::io::stdout(), "{}@{digest}", self.name.name())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Check the signatures that cosign made for an image with a key
///
/// Prints the image's name with the digest that is signed; fails when no signature is of this key.
#[derive(Debug, Args)]
pub(crate) struct VerifySignature {
    /// Name of the image: [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
    name: Reference,
    /// The public key, as `cosign generate-key-pair` writes it to cosign.pub
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl VerifySignature {
    pub(crate) fn run(self) -> Outcome {
        let text = std::fs::read_to_string(&self.key)
            .map_err(|error| format!("read the key {:?}: {error}", self.key))?;
        let key = PublicKey::parse(&text).ok_or_else(|| {
            format!(
                "{:?} is no public key that is known: want PEM of ECDSA, RSA or Ed25519",
                self.key
            )
        })?;
        let options: Options = self.registry.options();
        let client = Client::connect(&self.name, Access::Pull, &[], &options)?;
        let digest = subject(&client, &self.name)?.digest;
        let verdict = client.signatures(&digest, &key)?;
        if verdict.good.is_empty() {
            let why = match verdict.bad.as_slice() {
                [] => "it is not signed".to_owned(),
                bad => format!("no signature is good: {}", bad.join("; ")),
            };
            return Err(format!(
                "verify the signature of {}@{digest}: {why}",
                self.name.name()
            )
            .into());
        }
        writeln!(std::io::stdout(), "{}@{digest}", self.name.name())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What a name means at its registry.
fn subject(client: &Client, name: &Reference) -> Result<Descriptor, Box<dyn std::error::Error>> {
    let wanted = name.digest().map_or_else(
        || name.tag().unwrap_or(DEFAULT_TAG).to_owned(),
        |digest| digest.to_string(),
    );
    let fetched: Result<_, Error> = client.manifest(&wanted);
    let fetched = fetched?;
    let document = Document::parse(&fetched.bytes, fetched.media_type.as_deref())?;
    let size = fetched.bytes.len() as u64;
    Ok(Descriptor::new(document.media_type(), fetched.digest, size))
}

/// `FILE` or `FILE:TYPE`; a type has a slash, and so no file is mistaken.
fn file(text: &str) -> (PathBuf, String) {
    match text.rsplit_once(':') {
        Some((path, kind)) if kind.contains('/') && !path.is_empty() => {
            (path.into(), kind.to_owned())
        }
        _ => (text.into(), "application/octet-stream".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("want NAME=VALUE".to_owned()),
    }
}
