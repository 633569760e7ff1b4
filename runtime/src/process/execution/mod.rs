//! How the kernel runs the program, beyond ids and limits: CPUs, scheduler,
//! I/O priority, memory policy, execution domain. Parsed before `clone3(2)`,
//! applied by the process itself while it still has every capability.

use crate::error::Error;
use crate::init::{Failure, Step};
use crate::spec::{MemoryPolicy, Personality, Process};
use crate::sys::sched::{self, SchedAttr};

pub(crate) mod affinity;
mod id_list;
mod io_priority;
pub(crate) mod memory;
mod personality;
mod scheduler;

use affinity::Affinity;
use memory::Policy;

/// What to ask of the kernel; what is absent stays as the caller has it.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// CPUs of a process of `exec`.
    pub(crate) affinity: Affinity,
    scheduler: Option<SchedAttr>,
    io_priority: Option<i32>,
    memory: Option<Policy>,
    personality: Option<libc::c_ulong>,
}

/// What of `linux` every process of the container has, not its first alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Common<'a> {
    /// `linux.personality`.
    pub personality: Option<&'a Personality>,
    /// `linux.memoryPolicy`.
    pub memory_policy: Option<&'a MemoryPolicy>,
}

impl Plan {
    /// Plans from `process` and the container's common settings.
    pub(crate) fn new(process: &Process, common: Common<'_>) -> Result<Plan, Error> {
        Ok(Plan {
            affinity: Affinity::parse(process.exec_cpu_affinity.as_ref())?,
            scheduler: process
                .scheduler
                .as_ref()
                .map(scheduler::parse)
                .transpose()?,
            io_priority: process
                .io_priority
                .as_ref()
                .map(io_priority::parse)
                .transpose()?,
            memory: common
                .memory_policy
                .map(Policy::parse)
                .transpose()?
                .flatten(),
            personality: common.personality.map(personality::parse).transpose()?,
        })
    }

    /// Applies all but the CPUs to the calling process, a leader of its
    /// process group. Needs the capabilities that the container may lack.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if let Some(attr) = &self.scheduler {
            sched::sched_setattr(attr).map_err(|error| {
                let refused = error.raw_os_error() == Some(libc::EPERM);
                let failure = Step::Attribute.on("process.scheduler")(error);
                // sched_setattr(2), EPERM: a deadline needs all CPUs.
                match refused && attr.policy == scheduler::DEADLINE {
                    true => failure.hint("process scheduler can't be used together with AllowedCPUs: SCHED_DEADLINE needs every CPU, linux.resources.cpu.cpus must not take any away"),
                    false => failure,
                }
            })?;
        }
        if let Some(priority) = self.io_priority {
            sched::ioprio_set_group(priority).map_err(Step::Attribute.on("process.ioPriority"))?;
        }
        if let Some(policy) = &self.memory {
            policy.apply()?;
        }
        if let Some(domain) = self.personality {
            sched::personality(domain).map_err(Step::Attribute.on("linux.personality"))?;
        }
        Ok(())
    }
}
