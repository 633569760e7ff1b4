//! `config`, `index`: new images out of those that are here.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;
use teu_store::archive::Change;
use teu_store::image::Platform;
use teu_store::{ConfigEdit, IndexMember, Member, Reference, Store, Unset};

use super::format::{self, Format, Listed};
use super::transfer::print_result;
use super::{Outcome, people_bytes};

/// Change how an image runs and what it says of itself; its layers stay
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Name or id of an image of the store
    image: String,
    /// Name for the result [default: the image's own]
    name: Option<Reference>,
    /// Program: a JSON list, or a text for the shell
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Arguments: a JSON list, or a text for the shell
    #[arg(long, value_name = "COMMAND")]
    cmd: Option<String>,
    /// Variable; may be repeated, as all that follow but the platform
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Label
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Port
    #[arg(short = 'p', long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Directory for data
    #[arg(long, value_name = "PATH")]
    volume: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "PATH")]
    workdir: Option<String>,
    /// User, as name or number, with a group after a colon
    #[arg(short, long)]
    user: Option<String>,
    /// Signal that ends the container kindly
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Change as a Dockerfile says it: 'CMD ["sh"]', 'ENV A=b'
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<Change>,
    /// Take away cmd, entrypoint, env[=NAME], label[=NAME], port[=PORT], volume[=PATH], workdir, user, stop-signal, healthcheck, author or history; comes before all else
    #[arg(long, value_name = "PART")]
    unset: Vec<Unset>,
    /// What the image is for, as OS/ARCH[/VARIANT]
    #[arg(long)]
    platform: Option<Platform>,
    /// Who made the image
    #[arg(long)]
    author: Option<String>,
    /// When the image was made, RFC 3339 [default: as $SOURCE_DATE_EPOCH says, or else unchanged]
    #[arg(long, value_name = "TIME")]
    created: Option<jiff::Timestamp>,
    /// Annotation of the manifest; an empty value takes one away
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// Leave the change out of the image's history
    #[arg(long)]
    no_history: bool,
}

impl Config {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => self.image.parse().map_err(|error| {
                format!("{error}; give a name for the result as second argument")
            })?,
        };
        let instructions = self.instructions();
        let mut changes = Vec::new();
        for instruction in &instructions {
            changes.push(instruction.parse()?);
        }
        changes.extend(self.change);
        let annotations = self.annotation.into_iter();
        let edit = ConfigEdit {
            unset: self.unset,
            changes,
            platform: self.platform,
            created: self.created.or_else(epoch).map(|time| time.to_string()),
            author: self.author,
            annotations: annotations
                .map(|(key, value)| (key, Some(value).filter(|value| !value.is_empty())))
                .collect(),
            created_by: match self.no_history {
                true => String::new(),
                false => format!("teu-store config {}", instructions.join("; "))
                    .trim_end()
                    .to_owned(),
            },
        };
        let digest = store.edit_image(&self.image, &edit, &name)?;
        print_result(&name, &digest)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The flags as a Dockerfile would say them.
    fn instructions(&self) -> Vec<String> {
        let one = |word: &str, value: &Option<String>| {
            value
                .iter()
                .map(|value| format!("{word} {value}"))
                .collect()
        };
        let all = |word: &str, values: &[String]| {
            values
                .iter()
                .map(|value| format!("{word} {value}"))
                .collect()
        };
        let lists: [Vec<String>; 9] = [
            one("ENTRYPOINT", &self.entrypoint),
            one("CMD", &self.cmd),
            all("ENV", &self.env),
            all("LABEL", &self.label),
            all("EXPOSE", &self.expose),
            all("VOLUME", &self.volume),
            one("WORKDIR", &self.workdir),
            one("USER", &self.user),
            one("STOPSIGNAL", &self.stop_signal),
        ];
        lists.concat()
    }
}

/// The time that reproducible builds are given (reproducible-builds.org/specs/source-date-epoch).
pub(super) fn epoch() -> Option<jiff::Timestamp> {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").ok()?;
    jiff::Timestamp::from_second(seconds.parse().ok()?).ok()
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("want NAME=VALUE".to_owned()),
    }
}

/// Join images of several platforms under one name
#[derive(Debug, Args)]
pub(crate) struct Index {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    /// Make a name mean several images, each for the platform that it says it is for
    Create {
        /// Name for the index
        name: Reference,
        /// Names or ids of images of the store
        #[arg(required = true)]
        images: Vec<String>,
        /// Annotation of the index; may be repeated
        #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
        annotation: Vec<(String, String)>,
    },
    /// Add images, in place of those for the same platforms
    Add {
        /// Name of the index
        name: Reference,
        /// Names or ids of images of the store
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Take images out
    Remove {
        /// Name of the index
        name: Reference,
        /// Digests of manifests, or platforms
        #[arg(required = true)]
        members: Vec<Member>,
    },
    /// Set annotations; an empty value takes one away
    Annotate {
        /// Name of the index
        name: Reference,
        /// Annotations
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = pair)]
        annotations: Vec<(String, String)>,
        /// Of which image in it, by digest or platform [default: of the index]
        #[arg(long, value_name = "MEMBER")]
        of: Option<Member>,
    },
    /// List the images of an index
    List {
        /// Name of the index
        name: Reference,
        /// How to print: table, json for a line each, or a text with fields in it such as '{platform} {digest}'
        #[arg(long, value_name = "FORMAT", default_value = "table")]
        format: Format,
    },
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct MemberRow(IndexMember);

impl Listed for MemberRow {
    const HEAD: &'static [&'static str] = &["PLATFORM", "MANIFEST", "SIZE", "HERE", "ANNOTATIONS"];

    fn cells(&self) -> Vec<String> {
        let notes = self.0.annotations.iter();
        let notes: Vec<String> = notes.map(|(key, value)| format!("{key}={value}")).collect();
        vec![
            self.0.platform.clone().unwrap_or_else(|| "-".into()),
            self.0.digest.to_string(),
            people_bytes(self.0.size),
            if self.0.here { "yes" } else { "no" }.to_owned(),
            notes.join(" "),
        ]
    }
}

impl Index {
    pub(crate) fn run(self, store: &Store) -> Outcome {
        let (name, digest) = match self.command {
            IndexCommand::Create {
                name,
                images,
                annotation,
            } => {
                let annotations = annotation.into_iter().collect();
                let digest = store.create_index(&name, &images, annotations)?;
                (name, digest)
            }
            IndexCommand::Add { name, images } => {
                let digest = store.add_to_index(&name, &images)?;
                (name, digest)
            }
            IndexCommand::Remove { name, members } => {
                let digest = store.remove_from_index(&name, &members)?;
                (name, digest)
            }
            IndexCommand::Annotate {
                name,
                annotations,
                of,
            } => {
                let annotations: BTreeMap<String, String> = annotations.into_iter().collect();
                let digest = store.annotate_index(&name, of.as_ref(), &annotations)?;
                (name, digest)
            }
            IndexCommand::List { name, format } => {
                let members = store.index_members(&name)?;
                format::print(&format, members.into_iter().map(MemberRow))?;
                return Ok(ExitCode::SUCCESS);
            }
        };
        print_result(&name, &digest)?;
        Ok(ExitCode::SUCCESS)
    }
}
