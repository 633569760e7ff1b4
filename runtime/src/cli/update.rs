//! `update`: new limits for a container.

use std::fs::File;
use std::io::Read;

use super::args::Args;
use super::{Context, container_id, named};
use crate::cgroup::{Group, Plan};
use crate::container::status::Status;
use crate::error::Error;
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids, Resources};

/// Largest resources file, in bytes. Real ones are below 4 KiB.
const RESOURCES_BYTES_MAX: u64 = 1024 * 1024;

/// `update`.
pub(super) fn update(context: &Context<'_>, args: &Args) -> Result<u8, Error> {
    let id = container_id(args)?;
    let updated = (|| {
        let mut resources = match args.value("resources") {
            Some(path) => from_file(path)?,
            None => from_flags(args)?,
        };
        let locked = context.root.open(&id)?.lock()?;
        let state = locked.dir().load()?;
        if Status::of(&state)? == Status::Stopped {
            return Err(Error::State("container not running".into()));
        }
        let group = Group::open(&state.cgroups)?;
        group.complete(&mut resources)?;
        Ok(group.apply(&Plan::update(&resources, &state.cgroups)?)?)
    })();
    let updated = named("update", &id, updated).map(|()| 0);
    match args.value("resources") {
        Some(file) => updated.map_err(|error| error.asked_by(file.as_ref(), "/linux/resources")),
        None => updated,
    }
}

fn from_file(path: &str) -> Result<Resources, Error> {
    let source: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).map_err(Error::on("open", path))?),
    };
    let text =
        crate::file::read_open(source, RESOURCES_BYTES_MAX).map_err(Error::on("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: path.into(),
        source,
    })
}

fn from_flags(args: &Args) -> Result<Resources, Error> {
    let text = |name: &str| {
        args.value(name)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let cpu = Cpu {
        shares: args.number("cpu-share")?,
        quota: args.number("cpu-quota")?,
        burst: args.number("cpu-burst")?,
        period: args.number("cpu-period")?,
        realtime_runtime: args.number("cpu-rt-runtime")?,
        realtime_period: args.number("cpu-rt-period")?,
        cpus: text("cpuset-cpus"),
        mems: text("cpuset-mems"),
        idle: args.number("cpu-idle")?,
    };
    let memory = Memory {
        limit: bytes(args, "memory")?,
        reservation: bytes(args, "memory-reservation")?,
        swap: bytes(args, "memory-swap")?,
        ..Memory::default()
    };
    let block_io = BlockIo {
        weight: args.number("blkio-weight")?,
        ..BlockIo::default()
    };
    let pids = args
        .number("pids-limit")?
        .map(|limit| Pids { limit: Some(limit) });
    Ok(Resources {
        cpu: (cpu != Cpu::default()).then_some(cpu),
        memory: (memory != Memory::default()).then_some(memory),
        block_io: (block_io != BlockIo::default()).then_some(block_io),
        pids,
        ..Resources::default()
    })
}

/// A number of bytes, with a unit or without: `512`, `64M`, `1g`, `2KiB`; -1 is no limit.
fn bytes(args: &Args, name: &str) -> Result<Option<i64>, Error> {
    let parse = |text: &str| {
        parse_bytes(text).ok_or_else(|| {
            Error::Usage(format!(
                "invalid value {text:?} for flag --{name}: not a size"
            ))
        })
    };
    args.value(name)
        .filter(|text| !text.is_empty())
        .map(parse)
        .transpose()
}

fn parse_bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("512", 512),
            ("64M", 64 << 20),
            ("1g", 1 << 30),
            ("2KiB", 2048),
            ("-1", -1),
            ("0", 0),
            ("7b", 7),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "x", "-2", "1x", "9223372036854775807k", "1.5g"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
