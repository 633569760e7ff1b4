//! `--cache-to type=registry,ref=...,mode=max` and `--cache-from`, as docker buildx has them.

use std::path::PathBuf;
use std::str::FromStr;
use teu_store::transfer::Packing;
use teu_store::{Format, Reference};

/// A cache that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cache {text:?}: {why}")]
pub struct BadCache {
    text: String,
    why: String,
}

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Under a name at a registry.
    Registry {
        /// The name.
        name: Reference,
        /// The registry's certificate need not be good.
        insecure: bool,
    },
    /// Under a tag in an OCI layout.
    Local {
        /// The layout's directory.
        directory: PathBuf,
        /// The tag.
        tag: String,
    },
    /// In the image itself.
    Inline,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry { name, .. } => name.fmt(f),
            Self::Local { directory, tag } => write!(f, "{}:{tag}", directory.display()),
            Self::Inline => f.write_str("inline"),
        }
    }
}

/// Which steps go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those whose layers the result has.
    Min,
    /// All.
    Max,
}

/// `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct To {
    /// Where.
    pub place: Place,
    /// Which steps.
    pub mode: Mode,
    /// How layers are packed.
    pub packing: Packing,
}

/// `--cache-from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Where.
    pub place: Place,
}

struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    /// `KEY=VALUE,...`; a name alone is one at a registry.
    fn read(text: &'a str) -> Result<Self, String> {
        if !text.contains('=') {
            return Ok(Self(vec![("type", "registry"), ("ref", text)]));
        }
        text.split(',')
            .map(|field| {
                field
                    .split_once('=')
                    .ok_or_else(|| format!("{field:?} is not KEY=VALUE"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn take(&mut self, key: &str) -> Option<&'a str> {
        let place = self.0.iter().rposition(|(name, _)| *name == key)?;
        let (_, value) = self.0.remove(place);
        self.0.retain(|(name, _)| *name != key);
        Some(value)
    }

    fn boolean(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1") => Ok(true),
            Some(other) => Err(format!("{key}={other} is neither true nor false")),
        }
    }

    fn place(&mut self, directory: &str) -> Result<Place, String> {
        match self.take("type") {
            Some("registry") => {
                let name = self.take("ref").ok_or("it has no ref=")?;
                Ok(Place::Registry {
                    name: name.parse().map_err(|error| format!("{error}"))?,
                    insecure: self.boolean("registry.insecure")?,
                })
            }
            Some("local") => Ok(Place::Local {
                directory: self
                    .take(directory)
                    .map(PathBuf::from)
                    .ok_or_else(|| format!("it has no {directory}="))?,
                tag: self.take("tag").unwrap_or("latest").to_owned(),
            }),
            Some("inline") if directory == "dest" => Ok(Place::Inline),
            Some("inline") => Err("what an image has inline is read by type=registry".to_owned()),
            Some(other) => Err(format!("type={other} is none of registry, local, inline")),
            None => Err("it has no type=".to_owned()),
        }
    }

    fn finish(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("there is no option {key:?}")),
        }
    }
}

impl FromStr for To {
    type Err = BadCache;

    fn from_str(text: &str) -> Result<Self, BadCache> {
        let read = || {
            let mut fields = Fields::read(text)?;
            let place = fields.place("dest")?;
            let mode = match fields.take("mode") {
                None | Some("min") => Mode::Min,
                Some("max") if place == Place::Inline => {
                    return Err("an image holds its own layers only: mode=min".to_owned());
                }
                Some("max") => Mode::Max,
                Some(other) => return Err(format!("mode={other} is neither min nor max")),
            };
            let format = match fields.take("compression") {
                None | Some("gzip") => Format::Gzip,
                Some("zstd") => Format::Zstd,
                Some("uncompressed") => Format::Tar,
                Some(other) => {
                    return Err(format!(
                        "compression={other} is none of uncompressed, gzip, zstd"
                    ));
                }
            };
            let packing = Packing {
                format,
                level: None,
                force: fields.boolean("force-compression")?,
            };
            // Both are always so here.
            let _ = (fields.take("ignore-error"), fields.take("image-manifest"));
            fields.finish()?;
            Ok(Self {
                place,
                mode,
                packing,
            })
        };
        read().map_err(|why| BadCache {
            text: text.to_owned(),
            why,
        })
    }
}

impl FromStr for From {
    type Err = BadCache;

    fn from_str(text: &str) -> Result<Self, BadCache> {
        let read = || {
            let mut fields = Fields::read(text)?;
            let place = fields.place("src")?;
            fields.finish()?;
            Ok(Self { place })
        };
        read().map_err(|why| BadCache {
            text: text.to_owned(),
            why,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_as_buildx_writes_them() {
        let to: To = "type=registry,ref=r:5000/c:1,mode=max,compression=zstd"
            .parse()
            .unwrap();
        assert_eq!((to.mode, to.packing.format), (Mode::Max, Format::Zstd));
        assert_eq!("type=inline".parse::<To>().unwrap().place, Place::Inline);
        assert_eq!(
            "type=local,src=d".parse::<From>().unwrap().place,
            Place::Local {
                directory: "d".into(),
                tag: "latest".to_owned()
            }
        );
        assert_eq!(
            "r:5000/c:1".parse::<From>(),
            "type=registry,ref=r:5000/c:1".parse()
        );
        for bad in [
            "type=s3,bucket=x",
            "ref=x",
            "type=registry",
            "type=local,src=x",
            "type=inline,mode=max",
            "type=registry,ref=x,mode=all",
            "type=registry,ref=x,what=1",
        ] {
            assert!(bad.parse::<To>().is_err(), "{bad}");
        }
        assert!("type=inline".parse::<From>().is_err());
    }
}
