//! A root filesystem as an image of one layer, and `--change`: Dockerfile
//! instructions that say how it runs, as `docker import --change` takes them.

use crate::Transaction;
use crate::digest::Digest;
use crate::image::{ContainerConfig, History, ImageConfig, Platform, RootFs};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::transfer::Error;
use serde_json::json;
use std::io::{self, Read};
use std::str::FromStr;

/// Size of the pieces in which a tar is copied, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// One `--change`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `CMD ["sh"]` or `CMD sh`.
    Cmd(Vec<String>),
    /// `ENTRYPOINT`, in either form.
    Entrypoint(Vec<String>),
    /// `ENV NAME=value`.
    Env(String, String),
    /// `LABEL name=value`.
    Label(String, String),
    /// `WORKDIR /path`.
    Workdir(String),
    /// `USER name`.
    User(String),
    /// `EXPOSE 80/tcp`.
    Expose(String),
    /// `VOLUME /data`.
    Volume(String),
    /// `STOPSIGNAL SIGQUIT`.
    StopSignal(String),
}

/// A text that is no change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("change {text:?}: {why}")]
pub struct BadChange {
    text: String,
    why: &'static str,
}

impl FromStr for Change {
    type Err = BadChange;

    fn from_str(text: &str) -> Result<Self, BadChange> {
        let bad = |why| BadChange {
            text: text.to_owned(),
            why,
        };
        let (name, rest) = text
            .trim()
            .split_once(char::is_whitespace)
            .unwrap_or((text.trim(), ""));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(bad("it has no value"));
        }
        let pair = || {
            let (name, value) = rest.split_once('=').ok_or_else(|| bad("want NAME=VALUE"))?;
            let value = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'))
                .unwrap_or(value);
            if name.is_empty() {
                Err(bad("want NAME=VALUE"))
            } else {
                Ok((name.to_owned(), value.to_owned()))
            }
        };
        Ok(match name.to_ascii_uppercase().as_str() {
            "CMD" => Self::Cmd(command(rest)),
            "ENTRYPOINT" => Self::Entrypoint(command(rest)),
            "ENV" => pair().map(|(name, value)| Self::Env(name, value))?,
            "LABEL" => pair().map(|(name, value)| Self::Label(name, value))?,
            "WORKDIR" if rest.starts_with('/') => Self::Workdir(rest.to_owned()),
            "WORKDIR" => return Err(bad("the directory must be absolute")),
            "USER" => Self::User(rest.to_owned()),
            "EXPOSE" => Self::Expose(
                port(rest).ok_or_else(|| bad("want PORT, PORT/tcp, PORT/udp or PORT/sctp"))?,
            ),
            "VOLUME" => Self::Volume(rest.to_owned()),
            "STOPSIGNAL" => Self::StopSignal(rest.to_owned()),
            _ => {
                return Err(bad(
                    "want CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR",
                ));
            }
        })
    }
}

/// A JSON list as it is, anything else for the shell.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text)
        .unwrap_or_else(|_| vec!["/bin/sh".into(), "-c".into(), text.to_owned()])
}

fn port(text: &str) -> Option<String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let good = number.parse::<u16>().is_ok() && matches!(protocol, "tcp" | "udp" | "sctp");
    good.then(|| format!("{number}/{protocol}"))
}

/// Applies the changes in their order.
pub(crate) fn apply(config: &mut ContainerConfig, changes: &[Change]) {
    for change in changes {
        match change.clone() {
            Change::Cmd(args) => config.cmd = Some(args),
            Change::Entrypoint(args) => config.entrypoint = Some(args),
            Change::Env(name, value) => {
                config
                    .env
                    .retain(|pair| pair.split('=').next() != Some(&name));
                config.env.push(format!("{name}={value}"));
            }
            Change::Label(name, value) => {
                config.labels.insert(name, value);
            }
            Change::Workdir(path) => config.working_dir = path,
            Change::User(user) => config.user = user,
            Change::Expose(port) => {
                config.exposed_ports.insert(port, json!({}));
            }
            Change::Volume(path) => {
                config.volumes.insert(path, json!({}));
            }
            Change::StopSignal(signal) => config.stop_signal = Some(signal),
        }
    }
}

/// The configuration of an imported root filesystem. The same tar with the same
/// changes gives the same image: it says when only if `SOURCE_DATE_EPOCH` does.
fn config(platform: &Platform, changes: &[Change]) -> ImageConfig {
    let created = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds.parse().ok()?).ok())
        .map(|time| time.to_string());
    let mut container = ContainerConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        ..ContainerConfig::default()
    };
    apply(&mut container, changes);
    ImageConfig {
        created: created.clone(),
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config: container,
        rootfs: RootFs::default(),
        history: vec![History {
            created,
            created_by: Some("teu-store import".into()),
            ..History::default()
        }],
        ..ImageConfig::default()
    }
}

/// Makes an image of the tar that `tar` yields; its manifest's digest. `total`
/// is the length to show, 0 when it is not known.
pub(super) fn import(
    work: &Transaction,
    mut tar: impl Read,
    total: u64,
    name: &Reference,
    platform: &Platform,
    changes: &[Change],
    progress: &Progress,
) -> Result<Digest, Error> {
    let failed = |source| crate::Error::Read {
        what: "the root filesystem".into(),
        source,
    };
    let task = progress.task("root filesystem", total);
    let mut layer = work.layer_writer()?;
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let count = match tar.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error).into()),
        };
        // When the tar is refused, writing stops, and `finish` says why.
        if io::Write::write_all(&mut layer, &buffer[..count]).is_err() {
            break;
        }
        task.advance(count as u64);
    }
    let layer = layer.finish()?;
    task.finish("imported");
    Ok(work.put_image(config(platform, changes), &[layer], Some(name))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> Change {
        text.parse().unwrap()
    }

    #[test]
    fn changes_as_docker_takes_them() {
        assert_eq!(
            change(r#"CMD ["sh", "-l"]"#),
            Change::Cmd(vec!["sh".into(), "-l".into()])
        );
        assert_eq!(
            change("cmd echo $X"),
            Change::Cmd(vec!["/bin/sh".into(), "-c".into(), "echo $X".into()])
        );
        assert_eq!(
            change(r#"ENV A="b c""#),
            Change::Env("A".into(), "b c".into())
        );
        assert_eq!(change("EXPOSE 80"), Change::Expose("80/tcp".into()));
        for bad in [
            "",
            "CMD",
            "ENV A",
            "ENV =x",
            "EXPOSE x",
            "EXPOSE 80/icmp",
            "WORKDIR x",
            "FROM x",
        ] {
            assert!(bad.parse::<Change>().is_err(), "{bad}");
        }
    }

    #[test]
    fn later_changes_win() {
        let changes = [
            change("ENV A=1"),
            change("ENV PATH=/bin"),
            change("ENV A=2"),
            change("WORKDIR /a"),
        ];
        let config = config(&Platform::host(), &changes);
        assert_eq!(config.config.env, ["PATH=/bin", "A=2"]);
        assert_eq!(config.config.working_dir, "/a");
    }
}
