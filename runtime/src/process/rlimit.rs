//! Resource limits (`getrlimit(2)`).

use rustix::process::{Resource, Rlimit as Values, setrlimit};

use crate::error::Error;
use crate::init::{Failure, Step};
use crate::spec::{Rlimit, invalid};

const NAMES: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RSS", Resource::Rss),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// One limit in the kernel's form.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    name: &'static str,
    resource: Resource,
    values: Values,
}

impl Limit {
    /// Reads entry `index` of `process.rlimits`.
    pub(crate) fn parse(limit: &Rlimit, index: usize) -> Result<Limit, Error> {
        let field = format!("process.rlimits[{index}]");
        let &(name, resource) = NAMES
            .iter()
            .find(|(name, _)| *name == limit.kind)
            .ok_or_else(|| {
                invalid(
                    &format!("{field}.type"),
                    &format!("{:?} is not a resource limit", limit.kind),
                )
            })?;
        if limit.soft > limit.hard {
            return Err(invalid(
                &format!("{field}.soft"),
                &format!("{} is above the hard limit {}", limit.soft, limit.hard),
            ));
        }
        // The kernel's word for "no limit" is the largest number.
        let value = |number: u64| (number != u64::MAX).then_some(number);
        Ok(Limit {
            name,
            resource,
            values: Values {
                current: value(limit.soft),
                maximum: value(limit.hard),
            },
        })
    }
}

/// Sets them for this process.
pub(crate) fn apply(limits: &[Limit]) -> Result<(), Failure> {
    for (index, limit) in limits.iter().enumerate() {
        let place = |failure: Failure| failure.at(&format!("/process/rlimits/{index}"));
        setrlimit(limit.resource, limit.values)
            .map_err(|errno| place(Step::Rlimit.on(limit.name)(errno)))?;
    }
    Ok(())
}
