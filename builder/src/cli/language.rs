//! Arguments about what the Dockerfile can reach: contexts, agents, networks, limits; and questions about it.

use super::CliError;
use crate::agents::Agent;
use crate::build::chain;
use crate::call::{self, Call, Form};
use crate::context::Place;
use crate::execute::Limits;
use crate::plan::{Entitlement, Network};
use crate::prepare::NamedPlace;
use clap::ValueEnum;
use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value, json};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// Largest `--ca-bundle`, in bytes; all public authorities together have 250 KB.
const CA_BUNDLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct LanguageArguments {
    /// What a name means in FROM, COPY --from and RUN --mount: a directory, docker-image://NAME, `oci-layout://PATH[:TAG][@DIGEST]`, a git repository or the URL of an archive; repeatable.
    #[arg(long = "build-context", value_name = "NAME=PLACE")]
    build_contexts: Vec<String>,
    /// Keys for RUN --mount=type=ssh, and for git: those of an agent, whose socket is SSH_AUTH_SOCK's or given, or of files; repeatable.
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET|KEY,...]")]
    agents: Vec<String>,
    /// Lets the Dockerfile ask for more than a sandbox: network.host, security.insecure; repeatable.
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// The network of RUN steps that ask for none.
    #[arg(long, value_enum, default_value_t = NetworkName::Default)]
    network: NetworkName,
    /// A further line of /etc/hosts in RUN steps; `host-gateway` as address is this machine; repeatable.
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    hosts: Vec<String>,
    /// Certificates, PEM in one file, that RUN steps trust instead of those of their image; neither image nor cache key has them.
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// Size of /dev/shm in RUN steps, such as 64m.
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// A limit of the processes of RUN steps; repeatable.
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,
    /// Memory of a RUN step.
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Memory and swap of a RUN step together; -1 for no limit.
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Share of the processors of a RUN step, against others.
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Period of the processor quota, in microseconds.
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time of a RUN step in a period, in microseconds.
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Processors of a RUN step, such as 0-2,4.
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes of a RUN step.
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Answers instead of building: check, outline or targets, each with ,format=json for programs.
    #[arg(long, value_name = "METHOD", default_value = "build")]
    call: String,
    /// Says what is probably a mistake in the Dockerfile; the same as --call check.
    #[arg(long, conflicts_with = "call")]
    check: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NetworkName {
    /// The host's.
    Default,
    /// The host's.
    Host,
    /// A loopback device only.
    None,
}

impl LanguageArguments {
    /// What is asked instead of a build.
    pub(super) fn call(&self) -> Result<Option<(Call, Form)>, CliError> {
        if self.check {
            return Ok(Some((Call::Check, Form::Text)));
        }
        call::parse(&self.call).map_err(|why| bad("--call", &self.call, why))
    }

    pub(super) fn network(&self) -> Network {
        match self.network {
            NetworkName::Default | NetworkName::Host => Network::Host,
            NetworkName::None => Network::None,
        }
    }

    pub(super) fn allowed(&self) -> Result<Vec<Entitlement>, CliError> {
        let names = self.allow.iter().flat_map(|text| text.split(','));
        names
            .map(|name| match name {
                "network.host" => Ok(Entitlement::NetworkHost),
                "security.insecure" => Ok(Entitlement::SecurityInsecure),
                _ => Err(bad(
                    "--allow",
                    name,
                    "want network.host or security.insecure",
                )),
            })
            .collect()
    }

    pub(super) fn contexts(&self) -> Result<Vec<(String, NamedPlace)>, CliError> {
        self.build_contexts.iter().map(|text| named(text)).collect()
    }

    /// Who signs with the user's ssh keys.
    pub(super) fn agents(&self) -> Result<Vec<Agent>, CliError> {
        let agent = |text: &String| {
            let own = std::env::var("SSH_AUTH_SOCK").ok();
            let own = own.filter(|value| !value.is_empty());
            let (id, place) = match (text.split_once('='), own) {
                (Some((id, place)), _) => (id, place.to_owned()),
                (None, Some(socket)) => (text.as_str(), socket),
                (None, None) => {
                    let why = "no agent runs here: SSH_AUTH_SOCK is not set";
                    return Err(bad("--ssh", text, why));
                }
            };
            Agent::of(id, &place).map_err(|error| bad("--ssh", text, chain(&error)))
        };
        self.agents.iter().map(agent).collect()
    }

    /// What `--ca-bundle` holds.
    pub(super) fn ca_bundle(&self) -> Result<Option<Vec<u8>>, CliError> {
        let Some(path) = &self.ca_bundle else {
            return Ok(None);
        };
        let fail = |why: String| bad("--ca-bundle", &path.display().to_string(), why);
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|error| fail(error.to_string()))?;
        let read = file.take(CA_BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| fail(error.to_string()))?;
        if bytes.len() as u64 > CA_BUNDLE_BYTES_MAX {
            return Err(fail(format!(
                "it has more than {CA_BUNDLE_BYTES_MAX} bytes"
            )));
        }
        let mark = b"-----BEGIN CERTIFICATE-----";
        if !bytes.windows(mark.len()).any(|window| window == mark) {
            return Err(fail("it holds no certificate in PEM".to_owned()));
        }
        Ok(Some(bytes))
    }

    pub(super) fn limits(&self) -> Result<Limits, CliError> {
        Ok(Limits {
            hosts: self
                .hosts
                .iter()
                .map(|text| host(text))
                .collect::<Result<_, _>>()?,
            shm_bytes: self
                .shm_size
                .as_deref()
                .map(|text| size("--shm-size", text))
                .transpose()?,
            ulimits: self
                .ulimits
                .iter()
                .map(|text| ulimit(text))
                .collect::<Result<_, _>>()?,
            resources: self.resources()?,
        })
    }

    /// runtime-spec, config-linux.md, "Memory" and "CPU".
    fn resources(&self) -> Result<Map<String, Value>, CliError> {
        let (mut memory, mut cpu) = (Map::new(), Map::new());
        if let Some(text) = &self.memory {
            memory.insert("limit".into(), json!(size("--memory", text)?));
        }
        match self.memory_swap.as_deref() {
            None => {}
            Some("-1") => drop(memory.insert("swap".into(), json!(-1))),
            Some(text) => drop(memory.insert("swap".into(), json!(size("--memory-swap", text)?))),
        }
        let numbers = [
            ("shares", self.cpu_shares.map(|value| json!(value))),
            ("period", self.cpu_period.map(|value| json!(value))),
            ("quota", self.cpu_quota.map(|value| json!(value))),
            ("cpus", self.cpuset_cpus.as_ref().map(|value| json!(value))),
            ("mems", self.cpuset_mems.as_ref().map(|value| json!(value))),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                cpu.insert(name.into(), value);
            }
        }
        let mut resources = Map::new();
        for (name, values) in [("memory", memory), ("cpu", cpu)] {
            if !values.is_empty() {
                resources.insert(name.into(), values.into());
            }
        }
        Ok(resources)
    }
}

pub(super) fn bad(flag: &'static str, text: &str, why: impl Into<String>) -> CliError {
    CliError::Value {
        flag,
        text: text.to_owned(),
        why: why.into(),
    }
}

/// `NAME=PLACE`; a platform behind the name, `NAME::linux/amd64`, must be ours.
fn named(text: &str) -> Result<(String, NamedPlace), CliError> {
    let fail = |why: &str| bad("--build-context", text, why);
    let (name, place) = text
        .split_once('=')
        .ok_or_else(|| fail("want NAME=PLACE"))?;
    if name.is_empty() || place.is_empty() {
        return Err(fail("want NAME=PLACE"));
    }
    let name = name.split("::").next().unwrap_or(name).to_lowercase();
    let place = if let Some(image) = place.strip_prefix("docker-image://") {
        NamedPlace::Image(image.to_owned())
    } else if let Some(layout) = place.strip_prefix("oci-layout://") {
        if let Some((_, digest)) = layout.split_once('@')
            && digest.parse::<teu_store::Digest>().is_err()
        {
            return Err(fail("want oci-layout://PATH[:TAG][@DIGEST]"));
        }
        NamedPlace::Layout(layout.to_owned())
    } else {
        match Place::parse(place).map_err(|error| fail(&error.to_string()))? {
            Place::Stdin => return Err(fail("standard input can only be the context itself")),
            place => NamedPlace::Files(place),
        }
    };
    Ok((name, place))
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`; the address may stand in brackets.
fn host(text: &str) -> Result<(String, IpAddr), CliError> {
    let fail = || bad("--add-host", text, "want NAME:ADDRESS");
    let at = text.find(['=', ':']).ok_or_else(fail)?;
    let (name, address) = (&text[..at], &text[at + 1..]);
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let word = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if name.is_empty() || !name.chars().all(word) {
        return Err(fail());
    }
    // Steps are on this machine's own network.
    if address == "host-gateway" {
        return Ok((name.to_owned(), Ipv4Addr::LOCALHOST.into()));
    }
    Ok((name.to_owned(), address.parse().map_err(|_| fail())?))
}

/// docker's sizes: a number with b, k, m, g or t behind it, powers of 1024.
fn size(flag: &'static str, text: &str) -> Result<u64, CliError> {
    crate::plan::bytes(text).ok_or_else(|| bad(flag, text, "want a size such as 512m or 2g"))
}

/// `NAME=SOFT[:HARD]`, cut to what we may have ourselves: a builder that may not raise its own
/// limits shall not fail for it.
fn ulimit(text: &str) -> Result<(String, u64, u64), CliError> {
    let fail = |why: &str| bad("--ulimit", text, why);
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| fail("want NAME=SOFT[:HARD]"))?;
    let resource = RESOURCES.iter().find(|(own, _)| *own == name);
    let (_, resource) = resource.ok_or_else(|| fail("there is no limit of that name"))?;
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        text => text
            .parse()
            .map_err(|_| fail("a limit is a number, or -1 for none")),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        return Err(fail("the soft limit is above the hard one"));
    }
    let most = getrlimit(*resource).maximum.unwrap_or(u64::MAX);
    Ok((name.to_owned(), soft.min(most), hard.min(most)))
}

/// setrlimit(2), as docker names them.
const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_flags() {
        assert_eq!(host("a.b:1.2.3.4").unwrap().1, IpAddr::from([1, 2, 3, 4]));
        assert_eq!(
            host("h:host-gateway").unwrap().1,
            IpAddr::from([127, 0, 0, 1])
        );
        assert!(host("a=[::1]").is_ok() && host("a").is_err() && host("a b:1.2.3.4").is_err());
        assert_eq!(ulimit("nofile=64:128").unwrap(), ("nofile".into(), 64, 128));
        assert!(ulimit("nofile=2:1").is_err() && ulimit("what=1").is_err());
        assert!(
            matches!(named("A=docker-image://x").unwrap(), (name, NamedPlace::Image(_)) if name == "a")
        );
        assert!(matches!(
            named("a=./d").unwrap().1,
            NamedPlace::Files(Place::Directory(_))
        ));
        assert!(
            named("a").is_err()
                && named("a=-").is_err()
                && named("a=oci-layout://x@sha256:1").is_err()
        );
    }
}
