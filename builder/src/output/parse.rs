//! `-o type=oci,dest=x.tar` and `--annotation index:key=value`, as docker buildx has them.

use super::{Annotation, Kind, Level, Output, Place};
use std::path::PathBuf;
use std::str::FromStr;
use teu_store::image::Platform;
use teu_store::transfer::Packing;
use teu_store::{Format, Reference};

/// An output or annotation that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?}: {why}")]
pub struct BadOutput {
    what: &'static str,
    text: String,
    why: String,
}

impl FromStr for Output {
    type Err = BadOutput;

    /// A list of `key=value`; a path alone is a directory for files, `-` a tar on standard output.
    fn from_str(text: &str) -> Result<Self, BadOutput> {
        parse(text).map_err(|why| BadOutput {
            what: "--output",
            text: text.to_owned(),
            why,
        })
    }
}

/// The fields of one output, taken out one by one.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn take(&mut self, key: &str) -> Option<String> {
        let place = self.0.iter().rposition(|(name, _)| name == key)?;
        let (_, value) = self.0.remove(place);
        self.0.retain(|(name, _)| name != key);
        Some(value)
    }

    fn boolean(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(format!("{key}={other} is neither true nor false")),
        }
    }
}

fn parse(text: &str) -> Result<Output, String> {
    if !text.contains('=') {
        let kind = match text {
            "" => return Err("it is empty".to_owned()),
            "-" => Kind::Tar(Place::Stdout),
            path => Kind::Local {
                directory: PathBuf::from(path),
                split: None,
            },
        };
        return Ok(Output::of(kind));
    }
    let mut fields = Fields(Vec::new());
    for record in records(text)? {
        let (key, value) = record
            .split_once('=')
            .ok_or_else(|| format!("{record:?} is not KEY=VALUE"))?;
        fields.0.push((key.trim().to_owned(), value.to_owned()));
    }
    let kind = fields.take("type").ok_or("it has no type=")?;
    let mut output = Output::of(self::kind(&kind, &mut fields)?);
    output.packing = packing(&mut fields)?;
    if let Some(names) = fields.take("name") {
        output.names = names
            .split(',')
            .map(|name| name.parse::<Reference>().map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?;
    }
    output.docker_types = fields.boolean("oci-mediatypes")? == Some(false);
    output.insecure = fields.boolean("registry.insecure")?.unwrap_or(false);
    for (key, value) in fields.0 {
        output.annotations.push(annotation_field(&key, value)?);
    }
    Ok(output)
}

impl Output {
    /// An output without options.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            names: Vec::new(),
            packing: None,
            index: false,
            docker_types: false,
            annotations: Vec::new(),
            insecure: false,
        }
    }
}

/// Comma-separated fields, of which those in double quotes may hold commas (RFC 4180).
fn records(text: &str) -> Result<Vec<String>, String> {
    let mut records = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = records.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                records[last].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => records.push(String::new()),
            c => records[last].push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    Ok(records)
}

fn kind(name: &str, fields: &mut Fields) -> Result<Kind, String> {
    let place = fields.take("dest").map(|path| match path.as_str() {
        "-" => Place::Stdout,
        _ => Place::Path(PathBuf::from(path)),
    });
    let needed = |place: Option<Place>| place.ok_or_else(|| format!("type={name} needs dest="));
    Ok(match name {
        "image" | "registry" => {
            if place.is_some() {
                return Err(format!("type={name} has no dest="));
            }
            Kind::Image {
                push: fields.boolean("push")?.unwrap_or(name == "registry"),
                by_digest: fields.boolean("push-by-digest")?.unwrap_or(false),
                store: fields.boolean("store")?.unwrap_or(name == "image"),
            }
        }
        "oci" => {
            let tar = fields.boolean("tar")?.unwrap_or(true);
            let place = needed(place)?;
            if !tar && place == Place::Stdout {
                return Err("a directory cannot go to standard output".to_owned());
            }
            Kind::Oci { place, tar }
        }
        "docker" => place.map_or(Kind::DockerDaemon, Kind::Docker),
        "tar" => Kind::Tar(needed(place)?),
        "local" => match needed(place)? {
            Place::Path(directory) => Kind::Local {
                directory,
                split: fields.boolean("platform-split")?,
            },
            Place::Stdout => return Err("type=local needs a directory".to_owned()),
        },
        "cacheonly" => Kind::CacheOnly,
        other => {
            return Err(format!(
                "type={other} is none of image, registry, oci, docker, tar, local, cacheonly"
            ));
        }
    })
}

fn packing(fields: &mut Fields) -> Result<Option<Packing>, String> {
    let format = fields.take("compression");
    let level = fields.take("compression-level");
    let force = fields.boolean("force-compression")?;
    let (format, levels) = match format.as_deref() {
        None if level.is_none() && force.is_none() => return Ok(None),
        None | Some("gzip") => (Format::Gzip, 0..=9),
        Some("uncompressed") => (Format::Tar, 0..=0),
        Some("zstd") => (Format::Zstd, 1..=22),
        Some(other) => {
            return Err(format!(
                "compression={other} is none of uncompressed, gzip, zstd"
            ));
        }
    };
    let number = level
        .as_deref()
        .map(|text| {
            text.parse::<i32>()
                .ok()
                .filter(|level| levels.contains(level))
        })
        .map(|level| {
            level.ok_or_else(|| {
                format!(
                    "compression-level is not from {} to {}",
                    levels.start(),
                    levels.end()
                )
            })
        })
        .transpose()?;
    Ok(Some(Packing {
        format,
        level: number.filter(|_| format != Format::Tar),
        force: force.unwrap_or(false),
    }))
}

/// `annotation.KEY`, `annotation-index.KEY`, `annotation-manifest[linux/amd64].KEY`.
fn annotation_field(field: &str, value: String) -> Result<Annotation, String> {
    let unknown = || format!("there is no option {field:?}");
    let rest = field.strip_prefix("annotation").ok_or_else(unknown)?;
    let (head, key) = match rest.find("].") {
        Some(at) => (&rest[..=at], &rest[at + 2..]),
        None => rest.split_once('.').ok_or_else(unknown)?,
    };
    let (level, platform) = match head.strip_prefix('-') {
        Some(level) => level_of(level).ok_or_else(unknown)?,
        None if head.is_empty() => (Level::Manifest, None),
        // `annotation[linux/amd64].KEY`
        None => level_of(&format!("manifest{head}")).ok_or_else(unknown)?,
    };
    if key.is_empty() {
        return Err("an annotation has no name".to_owned());
    }
    Ok(Annotation {
        level,
        platform,
        key: key.to_owned(),
        value,
    })
}

/// `manifest`, `index[linux/amd64]`, ...
fn level_of(text: &str) -> Option<(Level, Option<Platform>)> {
    let (name, platform) = match text.split_once('[') {
        Some((name, rest)) => (name, Some(rest.strip_suffix(']')?.parse().ok()?)),
        None => (text, None),
    };
    let level = match name {
        "manifest" => Level::Manifest,
        "index" => Level::Index,
        "manifest-descriptor" => Level::ManifestDescriptor,
        "index-descriptor" => Level::IndexDescriptor,
        _ => return None,
    };
    Some((level, platform))
}

/// `--annotation [LEVEL[PLATFORM],...:]KEY=VALUE`: one for each level that is named, of the manifest without.
///
/// # Errors
/// It has no value, or an unknown level.
pub fn annotations(text: &str) -> Result<Vec<Annotation>, BadOutput> {
    let bad = |why: &str| BadOutput {
        what: "--annotation",
        text: text.to_owned(),
        why: why.to_owned(),
    };
    let (name, value) = text.split_once('=').ok_or_else(|| bad("it has no value"))?;
    let levels: Option<Vec<_>> = name
        .split_once(':')
        .and_then(|(levels, _)| levels.split(',').map(level_of).collect());
    let (levels, key) = match (levels, name.split_once(':')) {
        (Some(levels), Some((_, key))) => (levels, key),
        (None, Some((head, _))) if head.contains(',') || head.contains('[') => {
            return Err(bad(
                "it is for none of manifest, index, manifest-descriptor, index-descriptor",
            ));
        }
        // A colon may stand in a name.
        _ => (vec![(Level::Manifest, None)], name),
    };
    if key.is_empty() {
        return Err(bad("it has no name"));
    }
    let one = |(level, platform)| Annotation {
        level,
        platform,
        key: key.to_owned(),
        value: value.to_owned(),
    };
    Ok(levels.into_iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs() {
        let read = |text: &str| text.parse::<Output>();
        assert_eq!(
            read("out").unwrap().kind,
            Kind::Local {
                directory: "out".into(),
                split: None
            }
        );
        assert_eq!(read("-").unwrap().kind, Kind::Tar(Place::Stdout));
        let image = read("type=image,\"name=a:1,b\",compression=zstd,compression-level=9,force-compression=true,annotation-index.k=v=w,oci-mediatypes=false").unwrap();
        assert_eq!(image.names.len(), 2);
        let packing = Packing {
            format: Format::Zstd,
            level: Some(9),
            force: true,
        };
        assert_eq!(image.packing, Some(packing));
        assert!(image.docker_types);
        assert_eq!(
            image.annotations,
            annotations("index:k=v=w").unwrap(),
            "both say the same"
        );
        assert!(matches!(
            read("type=registry").unwrap().kind,
            Kind::Image {
                push: true,
                store: false,
                ..
            }
        ));
        assert_eq!(read("type=docker").unwrap().kind, Kind::DockerDaemon);
        for bad in [
            "",
            "type=what",
            "dest=x",
            "type=oci",
            "type=oci,dest=-,tar=false",
            "type=local,dest=-",
            "type=image,compression=lz4",
            "type=image,compression=gzip,compression-level=10",
            "type=image,push=perhaps",
            "type=image,nope=1",
            "type=image,\"name=a",
            "type=image,name=UPPER",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn annotations_of_every_level() {
        let levels = |text: &str| -> Vec<(Level, Option<String>, String)> {
            annotations(text)
                .unwrap()
                .into_iter()
                .map(|one| (one.level, one.platform.map(|p| p.to_string()), one.key))
                .collect()
        };
        assert_eq!(levels("a.b=c"), [(Level::Manifest, None, "a.b".to_owned())]);
        assert_eq!(
            levels("index,manifest[linux/arm64]:k=v"),
            [
                (Level::Index, None, "k".to_owned()),
                (
                    Level::Manifest,
                    Some("linux/arm64".to_owned()),
                    "k".to_owned()
                )
            ]
        );
        assert_eq!(
            levels("urn:x=v"),
            [(Level::Manifest, None, "urn:x".to_owned())]
        );
        for bad in ["k", "=v", "index:=v", "manifest[:k=v", "index,what:k=v"] {
            assert!(annotations(bad).is_err(), "{bad}");
        }
    }
}
