//! `process.execCPUAffinity`: CPUs of the processes that `exec` adds.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::id_list;
use crate::error::Error;
use crate::init::{Failure, Step};
use crate::spec::{ExecCpuAffinity, invalid};

/// CPUs before and after the way into the container's cgroup.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    /// Where the process is made.
    pub initial: Option<Cpus>,
    /// Where it becomes the program.
    pub last: Option<Cpus>,
}

/// A set of CPUs, not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpus {
    field: &'static str,
    set: CpuSet,
}

impl Affinity {
    /// Reads both lists.
    pub(super) fn parse(spec: Option<&ExecCpuAffinity>) -> Result<Affinity, Error> {
        let Some(spec) = spec else {
            return Ok(Affinity::default());
        };
        Ok(Affinity {
            initial: Cpus::parse("process.execCPUAffinity.initial", &spec.initial)?,
            last: Cpus::parse("process.execCPUAffinity.final", &spec.last)?,
        })
    }

    /// Gives the calling process the CPUs that it is to keep, once it is in
    /// its cgroup.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        match (&self.initial, &self.last) {
            (_, Some(cpus)) => cpus.bind(),
            (Some(_), None) => Ok(()),
            (None, None) => {
                reset();
                Ok(())
            }
        }
    }
}

/// Gives the calling process all CPUs that its cgroup has. It would keep its
/// caller's otherwise: since Linux 6.2 joining a cpuset only narrows what was
/// set by `sched_setaffinity(2)`. A process that may not is no worse off.
pub(crate) fn reset() {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    let _ = sched_setaffinity(None, &all);
}

/// The CPUs of the calling process as a hexadecimal number.
pub(crate) fn shown() -> Option<String> {
    let own = sched_getaffinity(None).ok()?;
    let digits = (0..CpuSet::MAX_CPU / 4).rev().map(|digit| {
        let bit = |at: usize| u32::from(own.is_set(digit * 4 + at)) << at;
        char::from_digit((0..4).map(bit).sum(), 16).unwrap_or('0')
    });
    let digits: String = digits.collect();
    Some(format!("0x{}", digits.trim_start_matches('0')))
}

impl Cpus {
    fn parse(field: &'static str, text: &str) -> Result<Option<Cpus>, Error> {
        if text.is_empty() {
            return Ok(None);
        }
        let ids = id_list::parse(text).map_err(|reason| invalid(field, &reason))?;
        if ids.is_empty() {
            return Err(invalid(field, &format!("{text:?} names no CPU")));
        }
        let mut set = CpuSet::new();
        ids.into_iter().for_each(|cpu| set.set(cpu));
        Ok(Some(Cpus { field, set }))
    }

    /// Binds the calling process. `sched_setaffinity(2)`
    pub(crate) fn bind(&self) -> Result<(), Failure> {
        sched_setaffinity(None, &self.set).map_err(Step::Attribute.on(self.field))
    }

    /// Runs `make` bound to these CPUs: a process that it makes inherits them.
    /// The caller gets its own back.
    pub(crate) fn during<T>(&self, make: impl FnOnce() -> T) -> Result<T, Error> {
        let own = sched_getaffinity(None).map_err(Error::at("read", "CPU affinity"))?;
        sched_setaffinity(None, &self.set).map_err(Error::at("set", self.field))?;
        let made = make();
        // Refused only where the CPUs are gone meanwhile; then nothing is lost.
        let _ = sched_setaffinity(None, &own);
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(initial: &str, last: &str) -> Result<Affinity, Error> {
        Affinity::parse(Some(&ExecCpuAffinity {
            initial: initial.into(),
            last: last.into(),
        }))
    }

    #[test]
    fn an_empty_list_changes_nothing() {
        let affinity = parse("", "0-1,5").unwrap();
        assert_eq!(affinity.initial, None);
        let set = affinity.last.unwrap().set;
        assert_eq!(set.count(), 3);
        assert!(set.is_set(5) && !set.is_set(2));
    }

    #[test]
    fn mistakes_name_their_field() {
        for (initial, last, field) in [
            ("x", "", "initial"),
            ("0", "1-0", "final"),
            (",", "", "initial"),
        ] {
            let error = parse(initial, last).unwrap_err().to_string();
            assert!(
                error.contains(&format!("process.execCPUAffinity.{field} ")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_caller_gets_its_cpus_back() {
        let own = sched_getaffinity(None).unwrap();
        let Some(first) = (0..CpuSet::MAX_CPU).find(|&cpu| own.is_set(cpu)) else {
            return;
        };
        let cpus = parse(&first.to_string(), "").unwrap().initial.unwrap();
        let inside = cpus.during(|| sched_getaffinity(None).unwrap()).unwrap();
        assert_eq!(inside, cpus.set);
        assert_eq!(sched_getaffinity(None).unwrap(), own);
    }
}
