//! `update`: new limits for a container.

use std::fs::File;
use std::io::Read;

use super::args::Args;
use super::{Context, container_id, named};
use crate::cgroup::{Group, Plan, procs};
use crate::container::status::Status;
use crate::error::Error;
use crate::log::Log;
use crate::resctrl;
use crate::spec::resources::{BlockIo, Cpu, Memory, Pids, Resources};
use crate::state::{Locked, State};

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
        resources.settle();
        warn_of_kernel_memory(args, &resources, context.log);
        let mut locked = context.root.open(&id)?.lock()?;
        let mut state = locked.dir().load()?;
        if Status::of(&state)? == Status::Stopped {
            return Err(Error::State("container not running".into()));
        }
        let schemata = Schemata::new(args, &state)?;
        let group = Group::open(&state.cgroups)?;
        group.complete(&mut resources)?;
        if let Some(unit) = &state.unit {
            unit.update(&mut resources, &group)?;
        }
        group.apply(&Plan::update(&resources, &state.cgroups)?)?;
        schemata.apply(&mut locked, &mut state)
    })();
    let updated = named("update", &id, updated).map(|()| 0);
    match args.value("resources") {
        Some(file) => updated.map_err(|error| error.asked_by(file.as_ref(), "/linux/resources")),
        None => updated,
    }
}

/// Kernels since 5.16 have no limit of kernel memory, and runc sets none.
fn warn_of_kernel_memory(args: &Args, resources: &Resources, log: &Log) {
    let memory = resources.memory.as_ref();
    let in_file = memory.is_some_and(|memory| memory.kernel.or(memory.kernel_tcp).is_some());
    let by_flag = ["kernel-memory", "kernel-memory-tcp"]
        .iter()
        .any(|flag| args.value(flag).is_some());
    if in_file || by_flag {
        log.warn("Kernel memory settings are ignored and will be removed");
    }
}

/// What changes in resctrl, checked before anything is changed.
enum Schemata<'a> {
    /// Nothing.
    Same,
    /// Lines of the container's group.
    Change(Option<&'a str>, Option<&'a str>),
    /// The container had no group and gets one.
    New(resctrl::Plan),
}

impl<'a> Schemata<'a> {
    fn new(args: &'a Args, state: &State) -> Result<Self, Error> {
        let wish = |flag| args.value(flag).filter(|line| !line.is_empty());
        let (l3_cache, mem_bw) = (wish("l3-cache-schema"), wish("mem-bw-schema"));
        if l3_cache.or(mem_bw).is_none() {
            return Ok(Self::Same);
        }
        let root = resctrl::root();
        if state.resctrl.is_some() {
            resctrl::check_update(l3_cache, mem_bw, root.as_deref())?;
            return Ok(Self::Change(l3_cache, mem_bw));
        }
        let plan = resctrl::Plan::update(&state.id, l3_cache, mem_bw, root.as_deref())?;
        Ok(Self::New(plan))
    }

    fn apply(self, locked: &mut Locked, state: &mut State) -> Result<(), Error> {
        match (self, &state.resctrl) {
            (Self::Change(l3_cache, mem_bw), Some(group)) => Ok(group.update(l3_cache, mem_bw)?),
            (Self::New(plan), _) => {
                state.resctrl = Some(plan.group.clone());
                locked.save(state)?;
                plan.make()?;
                plan.configure()?;
                for pid in procs::all(&state.cgroups)? {
                    plan.group.join(pid.as_raw_nonzero().get())?;
                }
                Ok(())
            }
            (Self::Same | Self::Change(..), _) => Ok(()),
        }
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
                "invalid value for {name}: invalid size: {text:?} (such as 64M, 1.5g or -1)"
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
        .find(|c: char| !c.is_ascii_digit() && c != '.')
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
    if !number.contains('.') {
        return number.parse::<i64>().ok()?.checked_mul(1 << shift);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "a fraction of a unit: the nearest byte below is what is meant"
    )]
    number
        .parse::<f64>()
        .ok()
        .map(|number| number * (1i64 << shift) as f64)
        .filter(|bytes| *bytes < i64::MAX as f64)
        .map(|bytes| bytes as i64)
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
            ("1.5g", 3 << 29),
            ("32 MB", 32 << 20),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "x", "-2", "1x", "9223372036854775807k", "1.2.3g", "."] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
