//! The arguments of a build.

use super::language::{LanguageArguments, bad};
use super::{CliError, sibling};
use crate::attest::{BadAttestation, Detail, Wanted};
use crate::build::Request;
use crate::context::Place;
use crate::environment::Environment;
use crate::epoch::{self, Epoch};
use crate::exchange;
use crate::execute::{SecretSource, Settings};
use crate::isolation::Entered;
use crate::output::{self, Kind, Output, Outputs};
use crate::plan::{Options, is_asked};
use crate::prepare::DockerfilePlace;
use crate::progress::Style;
use clap::ValueEnum;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use teu_store::image::Platform;
use teu_store::{Reference, Store};

#[derive(Debug, clap::Args)]
pub(super) struct BuildArguments {
    /// What COPY and ADD read: a directory, a git repository, the URL of an archive, or - for an archive or a Dockerfile on standard input.
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub(super) context: String,
    /// A name for the image; repeatable.
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(super) tags: Vec<String>,
    /// The Dockerfile, - for standard input [default: CONTEXT/Dockerfile].
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Executes a plan that `teu-build plan` printed, instead of a Dockerfile; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "target", "platforms", "call", "check"])]
    plan: Option<PathBuf>,
    /// A value for an ARG; without =VALUE the variable of this name in our environment.
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Builds this stage instead of the last.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// What the image is for, as OS/ARCHITECTURE[/VARIANT]; several make an index; repeatable [default: this machine].
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',', value_parser = platform)]
    platforms: Vec<Platform>,
    /// Runs every step, whatever earlier builds made.
    #[arg(long)]
    no_cache: bool,
    /// Runs every step of this stage, whatever earlier builds made; repeatable.
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// A label of the image, beside those of the Dockerfile; repeatable.
    #[arg(long = "label", value_name = "NAME[=VALUE]")]
    labels: Vec<String>,
    /// Says for each step that ran what had changed.
    #[arg(long)]
    pub(super) explain: bool,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t = ProgressStyle::Auto)]
    progress: ProgressStyle,
    /// Shows nothing but the image's id.
    #[arg(short, long)]
    quiet: bool,
    /// Writes the image's id into a file.
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Where the result goes: type=image|registry|oci|docker|tar|local|cacheonly and its options, a directory, or - for a tar; repeatable [default: the store].
    #[arg(short, long = "output", value_name = "OUTPUT")]
    outputs: Vec<Output>,
    /// Steps' results from elsewhere: type=registry,ref=NAME or type=local,src=DIR; repeatable.
    #[arg(long, value_name = "CACHE")]
    cache_from: Vec<exchange::From>,
    /// Steps' results to elsewhere: type=registry,ref=NAME, type=local,dest=DIR or type=inline, with mode=min or max; repeatable.
    #[arg(long, value_name = "CACHE")]
    cache_to: Vec<exchange::To>,
    /// Keeps the image in the store besides other outputs: --output type=image.
    #[arg(long)]
    load: bool,
    /// Sends the image to the registry that its name says: --output type=registry.
    #[arg(long)]
    push: bool,
    /// An annotation: `KEY=VALUE` of the manifest, or `LEVEL[PLATFORM],...:KEY=VALUE` with manifest, index, manifest-descriptor or index-descriptor as LEVEL; repeatable.
    #[arg(long = "annotation", value_name = "ANNOTATION")]
    annotations: Vec<String>,
    /// Says beside the image what is in it (type=sbom) or how it was built (type=provenance[,mode=max]), in its index, or in artifacts of their own that refer to it in the registry (as=referrer); repeatable.
    #[arg(long, value_name = "ATTESTATION", value_parser = attestation)]
    attest: Vec<(String, Wanted)>,
    /// Short for --attest type=sbom.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<bool>,
    /// Short for --attest type=provenance.
    #[arg(long, value_name = "BOOL|mode=max", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = ["true", "false", "mode=min", "mode=max"])]
    provenance: Option<String>,
    /// What follows a RUN that failed: a shell in what it left.
    #[arg(long, value_enum, value_name = "ACTION")]
    on_failure: Option<OnFailure>,
    /// Runs every step twice, and fails with the files that came out otherwise.
    #[arg(long)]
    verify_repro: bool,
    /// Whether times in the image are those of the files and the build, or none is later than SOURCE_DATE_EPOCH.
    #[arg(long, value_enum, default_value_t = Timestamps::Clamp)]
    timestamps: Timestamps,
    /// Writes digests and names of the result into a file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// A secret for RUN --mount=type=secret: id=NAME[,src=FILE|,env=VARIABLE]; repeatable.
    #[arg(long = "secret", value_name = "SECRET")]
    secrets: Vec<String>,
    /// The cgroup below which steps run [default: the top].
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    #[command(flatten)]
    pub(super) language: LanguageArguments,
    /// The OCI runtime that executes RUN steps [default: teu-runtime beside this program].
    #[arg(long, value_name = "PROGRAM")]
    pub(super) runtime: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    /// With the step's mounts and environment; its end ends the build.
    Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Timestamps {
    /// The same context makes the same image on any day.
    Clamp,
    /// As BuildKit has them.
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProgressStyle {
    /// tty on a terminal, else plain.
    Auto,
    /// Numbered lines.
    Plain,
    /// Moving lines.
    Tty,
    /// JSON lines, as BuildKit has them.
    #[value(name = "rawjson")]
    RawJson,
    /// Nothing.
    Quiet,
}

impl BuildArguments {
    pub(super) fn style(&self) -> Style {
        let terminal = std::io::stderr().is_terminal();
        match self.progress {
            _ if self.quiet => Style::Quiet,
            ProgressStyle::Quiet => Style::Quiet,
            ProgressStyle::RawJson => Style::RawJson,
            ProgressStyle::Tty => Style::Terminal,
            ProgressStyle::Auto if terminal => Style::Terminal,
            ProgressStyle::Auto | ProgressStyle::Plain => Style::Plain,
        }
    }

    /// The last flag about each kind counts.
    fn attest(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for (text, one) in self.attest.iter().map(|flag| (&flag.0, flag.1)) {
            if text.contains("type=sbom") {
                (wanted.sbom, wanted.referrers.sbom) = (one.sbom, one.referrers.sbom);
            } else {
                wanted.provenance = one.provenance;
                wanted.referrers.provenance = one.referrers.provenance;
            }
        }
        wanted.sbom = self.sbom.unwrap_or(wanted.sbom);
        wanted.provenance = match self.provenance.as_deref() {
            None => wanted.provenance,
            Some("false") => None,
            Some("mode=max") => Some(Detail::Max),
            Some(_) => Some(Detail::Min),
        };
        wanted
    }

    /// `several` asks for an index, and for a directory each, though there be one platform only.
    fn outputs(&self, several: bool) -> Result<Outputs, CliError> {
        let mut list = self.outputs.clone();
        let image = |push: bool| {
            Output::of(Kind::Image {
                push,
                by_digest: false,
                store: !push,
            })
        };
        if self.load {
            list.push(image(false));
        }
        if self.push {
            list.push(image(true));
        }
        if several && list.is_empty() {
            list.push(image(false));
        }
        for output in list.iter_mut().filter(|_| several) {
            match &mut output.kind {
                Kind::Image { .. } | Kind::Oci { .. } => output.index = true,
                Kind::Local { split, .. } => _ = split.get_or_insert(true),
                Kind::Docker(_) | Kind::DockerDaemon | Kind::Tar(_) | Kind::CacheOnly => {}
            }
        }
        let annotations = self
            .annotations
            .iter()
            .map(|text| output::annotations(text))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        Ok(Outputs { list, annotations })
    }

    /// `--build-arg`. What the environment says about the time is as good as one, as docker buildx has it.
    fn build_arguments(&self) -> Vec<(String, String)> {
        let mut given = build_args(&self.build_args, |name| std::env::var(name).ok());
        if let Ok(value) = std::env::var(epoch::VARIABLE)
            && !given.iter().any(|(name, _)| name == epoch::VARIABLE)
        {
            given.push((epoch::VARIABLE.to_owned(), value));
        }
        given
    }

    pub(super) fn request(self, store: Store, isolation: Entered) -> Result<Request, CliError> {
        let options = Options {
            build_args: self.build_arguments(),
            ..Options::default()
        };
        let names = self
            .tags
            .iter()
            .map(|name| tag(name))
            .collect::<Result<_, _>>()?;
        let dockerfile = match (&self.plan, &self.file) {
            (Some(path), _) if path == Path::new("-") => DockerfilePlace::Plan(None),
            (Some(path), _) => DockerfilePlace::Plan(Some(path.clone())),
            (None, Some(path)) if path == Path::new("-") => DockerfilePlace::Stdin,
            (None, Some(path)) => DockerfilePlace::Path(path.clone()),
            (None, None) => DockerfilePlace::Default,
        };
        let outputs = self.outputs(is_asked(&options, "BUILDKIT_MULTI_PLATFORM"))?;
        let inline = is_asked(&options, "BUILDKIT_INLINE_CACHE").then(|| "type=inline".parse());
        let cache_to = self.cache_to.iter().cloned();
        let cache_to = cache_to.chain(inline.and_then(Result::ok)).collect();
        let platforms = distinct(&self.platforms);
        let attest = self.attest();
        let context = Place::parse(&self.context)
            .map_err(|error| bad("CONTEXT", &self.context, error.to_string()))?;
        let secrets = self
            .secrets
            .iter()
            .map(|text| secret(text))
            .collect::<Result<_, _>>()?;
        Ok(Request {
            store,
            contexts: self.language.contexts()?,
            names,
            outputs,
            attest,
            verify_repro: self.verify_repro,
            cache_from: self.cache_from,
            cache_to,
            options: Options {
                labels: self.labels.iter().map(|text| label(text)).collect(),
                target: self.target,
                platform: platforms[0].clone(),
                allow: self.language.allowed()?,
                network: self.language.network(),
                ..options
            },
            platforms,
            settings: Settings {
                runtime: self.runtime.unwrap_or_else(|| sibling("teu-runtime")),
                cgroup_parent: self.cgroup_parent.unwrap_or_default(),
                isolation,
                secrets,
                agents: self.language.agents()?,
                limits: self.language.limits()?,
                ca_bundle: self.language.ca_bundle()?,
                no_cache: self.no_cache,
                no_cache_stages: self.no_cache_filter,
                on_failure_shell: self.on_failure == Some(OnFailure::Shell),
                dockerfile: dockerfile.shown(&context),
            },
            context,
            dockerfile,
            epoch: match self.timestamps {
                Timestamps::Keep => Some(Epoch::keep()),
                Timestamps::Clamp => None,
            },
            puller: sibling("teu-store"),
        })
    }
}

/// `local` is this machine.
fn platform(text: &str) -> Result<Platform, String> {
    if text == "local" {
        return Ok(Platform::host());
    }
    let parsed = text.parse::<Platform>();
    let platform = parsed.map_err(|error| error.to_string())?;
    if platform.os != Platform::host().os {
        return Err(format!("images for {} cannot be built here", platform.os));
    }
    Ok(platform)
}

/// The platforms, each once; this machine's where none is given.
fn distinct(given: &[Platform]) -> Vec<Platform> {
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in given {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    platforms
}

fn attestation(text: &str) -> Result<(String, Wanted), BadAttestation> {
    Ok((text.to_owned(), text.parse()?))
}

fn tag(name: &str) -> Result<Reference, CliError> {
    name.parse().map_err(|source| CliError::Tag {
        name: name.to_owned(),
        source,
    })
}

/// `NAME=VALUE`, or `NAME` for an empty value.
fn label(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// `NAME=VALUE`, or `NAME` for the value that our own environment has, if any. The last of a name counts.
fn build_args(texts: &[String], own: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut given = Environment::default();
    for text in texts {
        match text.split_once('=') {
            Some((name, value)) => given.set(name, value),
            None => {
                if let Some(value) = own(text) {
                    given.set(text, &value);
                }
            }
        }
    }
    given
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// `id=NAME`, `src=FILE`, `env=VARIABLE`, `type=`; without source the variable of that name, else the file.
fn secret(text: &str) -> Result<(String, SecretSource), CliError> {
    let bad = || CliError::Secret(text.to_owned());
    let (mut id, mut file, mut variable) = (None, None, None);
    for field in text.split(',') {
        match field.split_once('=').ok_or_else(bad)? {
            ("id", value) => id = Some(value.to_owned()),
            ("src" | "source", value) => file = Some(PathBuf::from(value)),
            ("env", value) => variable = Some(value.to_owned()),
            ("type", "file" | "env") => {}
            _ => return Err(bad()),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(bad)?;
    let source = match (file, variable) {
        (Some(_), Some(_)) => return Err(bad()),
        (Some(file), None) => SecretSource::File(file),
        (None, Some(variable)) => SecretSource::Env(variable),
        (None, None) if std::env::var_os(&id).is_some() => SecretSource::Env(id.clone()),
        (None, None) => SecretSource::File(PathBuf::from(&id)),
    };
    Ok((id, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_from_the_command_line_and_the_environment() {
        let own = |name: &str| (name == "HERE").then(|| "h".to_owned());
        let texts: Vec<String> = ["A=1", "HERE", "GONE", "A=2=3"].map(str::to_owned).to_vec();
        assert_eq!(
            build_args(&texts, own),
            [
                ("A".to_owned(), "2=3".to_owned()),
                ("HERE".to_owned(), "h".to_owned())
            ]
        );
        assert!(matches!(secret("id=a,src=/f"), Ok((id, SecretSource::File(_))) if id == "a"));
        assert!(matches!(secret("id=a,env=E"), Ok((_, SecretSource::Env(name))) if name == "E"));
        for bad in ["", "src=x", "id=", "id=a,src=x,env=y", "id=a,what=x"] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }
}
