//! `df`, `prune`, `mounts`: what builds leave behind to be faster.

use crate::cache::{CacheMount, Kind, MountError, PruneError, prune, usage};
use clap::{Subcommand, ValueEnum};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use teu_store::Store;

/// What is done with the cache.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Says how much room the cache of builds takes.
    Df {
        /// As text for people, or as JSON for programs.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Removes what builds have not used lately, and what the store holds for nobody.
    Prune {
        /// Only what was not used for so long: 90s, 15m, 12h, 7d.
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s")]
        keep_duration: Duration,
        /// Only these parts; repeatable [default: all].
        #[arg(long = "type", value_enum, value_name = "PART")]
        parts: Vec<Part>,
    },
    /// Lists, exports, imports and removes cache mounts.
    Mounts {
        /// What is done.
        #[command(subcommand)]
        command: Mounts,
    },
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns.
    Text,
    /// One array.
    Json,
}

/// A part of the cache, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Records of steps.
    Steps,
    /// Cache mounts.
    Mounts,
    /// Hashes of contexts, and what builds did.
    Sources,
}

/// What is done with cache mounts.
#[derive(Debug, Subcommand)]
pub enum Mounts {
    /// Lists all.
    Ls {
        /// As text for people, or as JSON for programs.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Writes the files of one as a tar.
    Export {
        /// Its id: by default the target of --mount.
        id: String,
        /// The tar, - for standard output.
        file: PathBuf,
        /// The owner that was asked for, where several have the id.
        #[arg(long, value_name = "UID")]
        owner: Option<u32>,
    },
    /// Adds the files of a tar to one, which is made if it is not there.
    Import {
        /// Its id: by default the target of --mount.
        id: String,
        /// The tar, - for standard input.
        file: PathBuf,
        /// Permissions of a new one, octal.
        #[arg(long, value_parser = octal, default_value = "755")]
        mode: u32,
        /// The owner of a new one.
        #[arg(long, value_name = "UID", default_value_t = 0)]
        owner: u32,
        /// The group of a new one.
        #[arg(long, value_name = "GID", default_value_t = 0)]
        group: u32,
    },
    /// Removes one.
    Rm {
        /// Its id: by default the target of --mount.
        id: String,
        /// The owner that was asked for, where several have the id.
        #[arg(long, value_name = "UID")]
        owner: Option<u32>,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A cache mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Removing.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// Standard output.
    #[error("write to standard output")]
    Write(#[from] io::Error),
    /// A list as JSON.
    #[error("write a list")]
    Json(#[from] serde_json::Error),
    /// The user's file.
    #[error("open {path:?}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl CacheCommand {
    /// Carries it out, printing to `out`.
    ///
    /// # Errors
    /// Whatever [`CacheError`] lists.
    pub fn run(self, store: &Store, out: &mut impl Write) -> Result<(), CacheError> {
        match self {
            Self::Df { format } => {
                let parts = usage(store);
                if format == Format::Json {
                    writeln!(out, "{}", serde_json::to_string(&parts)?)?;
                    return Ok(());
                }
                writeln!(out, "{:<10} {:>8} {:>10}", "PART", "COUNT", "SIZE")?;
                for part in parts {
                    let name = format!("{:?}", part.kind).to_lowercase();
                    let size = size(part.bytes);
                    writeln!(out, "{name:<10} {:>8} {size:>10}", part.count)?;
                }
                Ok(())
            }
            Self::Prune {
                keep_duration,
                parts,
            } => {
                let all = [Part::Steps, Part::Mounts, Part::Sources];
                let chosen = if parts.is_empty() { &all[..] } else { &parts };
                let kinds: Vec<Kind> = chosen.iter().map(|part| part.kind()).collect();
                let pruned = prune(store, &kinds, keep_duration)?;
                let (entries, removed) = (pruned.entries, size(pruned.removed.bytes));
                writeln!(
                    out,
                    "removed {entries} entries, freed {removed} in the store"
                )?;
                Ok(())
            }
            Self::Mounts { command } => command.run(store, out),
        }
    }
}

impl Part {
    fn kind(self) -> Kind {
        match self {
            Self::Steps => Kind::Steps,
            Self::Mounts => Kind::Mounts,
            Self::Sources => Kind::Sources,
        }
    }
}

impl Mounts {
    fn run(self, store: &Store, out: &mut impl Write) -> Result<(), CacheError> {
        let cache = store.root_path().join("cache");
        match self {
            Self::Ls { format } => list(&cache, format, out),
            Self::Export { id, file, owner } => {
                let mount = CacheMount::find(&cache, &id, owner)?;
                if file == Path::new("-") {
                    return Ok(mount.export(&cache, out)?);
                }
                let opened = File::create(&file).map_err(|source| CacheError::File {
                    path: file.clone(),
                    source,
                })?;
                Ok(mount.export(&cache, opened)?)
            }
            Self::Import {
                id,
                file,
                mode,
                owner: uid,
                group: gid,
            } => {
                let archive: Box<dyn Read> = if file == Path::new("-") {
                    Box::new(io::stdin().lock())
                } else {
                    let opened = File::open(&file);
                    Box::new(opened.map_err(|source| CacheError::File { path: file, source })?)
                };
                let mount = CacheMount { id, mode, uid, gid };
                Ok(mount.import(store, archive)?)
            }
            Self::Rm { id, owner } => Ok(CacheMount::find(&cache, &id, owner)?.remove(&cache)?),
        }
    }
}

fn list(cache: &Path, format: Format, out: &mut impl Write) -> Result<(), CacheError> {
    let mounts = CacheMount::list(cache);
    if format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(&mounts)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<40} {:>5} {:>11} {:>10}",
        "ID", "MODE", "OWNER", "SIZE"
    )?;
    for mount in mounts {
        let owner = format!("{}:{}", mount.uid, mount.gid);
        let size = size(mount.bytes(cache));
        writeln!(
            out,
            "{:<40} {:>5o} {owner:>11} {size:>10}",
            mount.id, mount.mode
        )?;
    }
    Ok(())
}

/// Bytes as people read them.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// `90s`, `15m`, `12h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "want a time such as 90s, 15m, 12h or 7d".to_owned();
    let at = text.len().checked_sub(1).ok_or_else(bad)?;
    let (number, unit) = text.split_at_checked(at).ok_or_else(bad)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let seconds = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor));
    seconds.map(Duration::from_secs).ok_or_else(bad)
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "want octal digits like 755".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(
            [0, 999, 1000, 12_345_678].map(size),
            ["0 B", "999 B", "1.0 kB", "12.3 MB"]
        );
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "h", "5", "5x", "-1s", "99999999999999999999d", "é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
