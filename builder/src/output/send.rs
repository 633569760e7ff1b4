//! Outputs carried out, one after the other.

use super::document::{DocumentError, Documents, documents};
use super::files::{self, FilesError};
use super::{Annotation, Built, Kind, Output, Place};
use crate::attest::{PREDICATE_TYPE, STATEMENT_TYPE};
use crate::storage::{Storage, StorageError};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use teu_store::copy::{CopyOptions, Location, copy_document};
use teu_store::image::{Descriptor, Platform};
use teu_store::progress::Progress;
use teu_store::registry::{Access, Artifact, Client, Options, TrustOptions};
use teu_store::transfer::{self, Packing};
use teu_store::{Digest, Format, Reference};

/// How containerd and BuildKit say an image's whole name in a layout.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Where docker listens, unless DOCKER_HOST says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Why an output failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Its manifests.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The registry, archive or layout.
    #[error("write the image to {place}")]
    Send {
        /// Where to.
        place: String,
        /// Why not.
        source: Box<transfer::Error>,
    },
    /// What is said about the image.
    #[error("attach {what} to the image at {place}")]
    Attach {
        /// Its type.
        what: &'static str,
        /// Where.
        place: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A registry keeps them, and nothing else does.
    #[error("as=referrer in --attest needs an output to a registry: --push")]
    NoRegistry,
    /// Files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Standard output.
    #[error("write the image to standard output")]
    Stdout(#[source] io::Error),
    /// A registry needs to be told where.
    #[error("{0} needs a name: give it with --tag, or with name= in --output")]
    NoName(&'static str),
    /// One tar, several images.
    #[error("{0} holds one platform, and {1} were built")]
    Several(&'static str, usize),
}

/// What the outputs made.
#[derive(Debug, Default)]
pub struct Sent {
    /// What the last image output's name means.
    pub target: Option<Descriptor>,
    /// The images' ids, in the order of the platforms.
    pub ids: Vec<Digest>,
}

impl Sent {
    /// What people call the result: the image's id, or the digest of the index over several.
    pub fn id(&self) -> Option<Digest> {
        match &self.ids[..] {
            [only] => Some(*only),
            _ => self.target.as_ref().map(|target| target.digest),
        }
    }
}

/// What all outputs of a build share.
#[derive(Debug)]
pub struct Sending<'a> {
    /// The store.
    pub storage: &'a Storage,
    /// What was built, a platform each.
    pub built: &'a [Built],
    /// `--tag`.
    pub names: &'a [Reference],
    /// `--annotation`.
    pub annotations: &'a [Annotation],
    /// Where packing and sending is shown.
    pub progress: &'a Progress,
}

impl Sending<'_> {
    /// Carries out all outputs. Without any the image is left in the store.
    ///
    /// # Errors
    /// The first that failed; those before it are done.
    pub fn all(&self, outputs: &[Output]) -> Result<Sent, OutputError> {
        let mut predicates = self.built.iter().flat_map(|one| &one.predicates);
        let pushes = |output: &Output| matches!(output.kind, Kind::Image { push: true, .. });
        if predicates.any(|one| one.referrer) && !outputs.iter().any(pushes) {
            return Err(OutputError::NoRegistry);
        }
        if outputs.is_empty() {
            return self.leave_in_store();
        }
        let mut sent = Sent::default();
        for output in outputs {
            if let Some(documents) = self.one(output)? {
                sent = Sent {
                    target: Some(documents.target),
                    ids: documents.ids,
                };
            }
        }
        Ok(sent)
    }

    /// What names mean already is not written again.
    fn leave_in_store(&self) -> Result<Sent, OutputError> {
        if let ([only], true) = (self.built, self.annotations.is_empty())
            && only.predicates.is_empty()
        {
            let image = self
                .storage
                .put_image(only.config.clone(), &only.layers, self.names)?;
            return Ok(Sent {
                ids: vec![image.id()],
                target: Some(image.manifest_descriptor),
            });
        }
        let store = Kind::Image {
            push: false,
            by_digest: false,
            store: true,
        };
        let documents = self.image(&Output::of(store), self.names, (false, false, true))?;
        Ok(Sent {
            target: Some(documents.target),
            ids: documents.ids,
        })
    }

    /// Carries out one output; its documents if it is an image.
    fn one(&self, output: &Output) -> Result<Option<Documents>, OutputError> {
        let names = if output.names.is_empty() {
            self.names
        } else {
            &output.names
        };
        match &output.kind {
            Kind::CacheOnly => Ok(None),
            Kind::Local { directory, split } => {
                files::directory(self.storage, self.built, directory, *split)?;
                Ok(None)
            }
            Kind::Tar(place) => {
                let [only] = self.built else {
                    return Err(OutputError::Several("a tar", self.built.len()));
                };
                files::tar(self.storage, only, place)?;
                Ok(None)
            }
            Kind::Image {
                push,
                by_digest,
                store,
            } => self
                .image(output, names, (*push, *by_digest, *store))
                .map(Some),
            Kind::Oci { place, tar } => {
                let mut documents = self.documents(output, Format::Gzip)?;
                if let Some(name) = names.first() {
                    let full = name.to_string();
                    documents.annotations.insert(IMAGE_NAME.to_owned(), full);
                }
                let name = names
                    .first()
                    .map(|name| name.tag().unwrap_or("latest").to_owned());
                let to = |path: PathBuf| match tar {
                    true => Location::OciArchive(path, name.clone()),
                    false => Location::OciDir(path, name.clone()),
                };
                self.to_place(&documents, place, to)?;
                Ok(Some(documents))
            }
            Kind::Docker(place) => {
                self.needs_one("a docker archive")?;
                let documents = self.documents(output, Format::Tar)?;
                let name = names.first().map(Reference::to_string);
                let to = |path| Location::DockerArchive(path, name.clone());
                self.to_place(&documents, place, to)?;
                Ok(Some(documents))
            }
            Kind::DockerDaemon => {
                self.needs_one("the docker daemon")?;
                let documents = self.documents(output, Format::Tar)?;
                for name in needed(names, "the docker daemon")? {
                    let to = Location::DockerDaemon(name.to_string());
                    self.copy(&documents, &to, output)?;
                }
                Ok(Some(documents))
            }
        }
    }

    fn needs_one(&self, what: &'static str) -> Result<(), OutputError> {
        match self.built.len() {
            1 => Ok(()),
            several => Err(OutputError::Several(what, several)),
        }
    }

    fn documents(&self, output: &Output, format: Format) -> Result<Documents, OutputError> {
        let default = Packing {
            format,
            level: None,
            force: false,
        };
        Ok(documents(
            self.storage,
            self.built,
            output,
            self.names,
            self.annotations,
            default,
            self.progress,
        )?)
    }

    fn image(
        &self,
        output: &Output,
        names: &[Reference],
        (push, by_digest, store): (bool, bool, bool),
    ) -> Result<Documents, OutputError> {
        // What only stays here is not packed for the way.
        let format = if push { Format::Gzip } else { Format::Tar };
        let documents = self.documents(output, format)?;
        if push {
            for name in needed(names, "a registry")? {
                let place = if by_digest {
                    name.with_digest(documents.target.digest)
                } else {
                    name.clone()
                };
                self.copy(&documents, &Location::Registry(place), output)?;
                self.attach(&documents, name, output)?;
            }
        }
        if store {
            for name in names {
                self.storage.name(name, &documents.target)?;
            }
        }
        Ok(documents)
    }

    fn to_place(
        &self,
        documents: &Documents,
        place: &Place,
        to: impl Fn(PathBuf) -> Location,
    ) -> Result<(), OutputError> {
        let output = Output::of(Kind::CacheOnly);
        match place {
            Place::Path(path) => self.copy(documents, &to(path.clone()), &output),
            Place::Stdout => {
                let path = self.storage.scratch().join("output");
                self.copy(documents, &to(path.clone()), &output)?;
                to_stdout(&path).map_err(OutputError::Stdout)
            }
        }
    }

    /// Puts what is said about the images beside them, under the digest of what it is about.
    fn attach(
        &self,
        documents: &Documents,
        name: &Reference,
        output: &Output,
    ) -> Result<(), OutputError> {
        for (about, referring) in &documents.referring {
            let put = || -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
                let path = self.storage.scratch().join("statement.intoto.json");
                std::fs::write(&path, &referring.text)?;
                let kind = STATEMENT_TYPE.to_owned();
                let annotation = (PREDICATE_TYPE.to_owned(), referring.kind.to_owned());
                let artifact = Artifact {
                    kind: kind.clone(),
                    files: vec![(path, kind)],
                    annotations: [annotation].into(),
                };
                let client = Client::connect(name, Access::Push, &[], &registry(output))?;
                client.attach(about, &artifact)?;
                Ok(())
            };
            put().map_err(|source| OutputError::Attach {
                what: referring.kind,
                place: name.to_string(),
                source,
            })?;
        }
        Ok(())
    }

    fn copy(
        &self,
        documents: &Documents,
        to: &Location,
        output: &Output,
    ) -> Result<(), OutputError> {
        let options = CopyOptions {
            from: Options::default(),
            to: registry(output),
            // docker's formats know one image.
            all: !matches!(to, Location::DockerArchive(..) | Location::DockerDaemon(_)),
            platform: Platform::host(),
            preserve_digests: true,
            docker_socket: docker_socket(),
        };
        let mut target = documents.target.clone();
        target.annotations.clone_from(&documents.annotations);
        let store = self.storage.store();
        copy_document(store, &target, to, &options, self.progress)
            .map(drop)
            .map_err(|source| OutputError::Send {
                place: to.to_string(),
                source: Box::new(source),
            })
    }
}

/// How an output's registry is spoken to.
fn registry(output: &Output) -> Options {
    Options {
        plain_http: false,
        trust: TrustOptions {
            unverified: output.insecure,
            ..TrustOptions::default()
        },
        ..Options::default()
    }
}

fn needed<'a>(names: &'a [Reference], what: &'static str) -> Result<&'a [Reference], OutputError> {
    if names.is_empty() {
        Err(OutputError::NoName(what))
    } else {
        Ok(names)
    }
}

fn to_stdout(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    io::copy(&mut file, &mut io::stdout().lock())?;
    std::fs::remove_file(path)
}

/// `unix://PATH` of DOCKER_HOST, as docker's own client.
fn docker_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    PathBuf::from(host.strip_prefix("unix://").unwrap_or(DOCKER_SOCKET))
}
