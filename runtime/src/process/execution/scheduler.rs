//! `process.scheduler` (`sched_setattr(2)`, `sched(7)`).

use crate::error::Error;
use crate::spec::{Scheduler, invalid};
use crate::sys::sched::SchedAttr;

const FIFO: u32 = 1;
const ROUND_ROBIN: u32 = 2;
pub(super) const DEADLINE: u32 = 6;

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", FIFO),
    ("SCHED_RR", ROUND_ROBIN),
    ("SCHED_BATCH", 3),
    // Reserved by the kernel, which refuses it.
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", DEADLINE),
];

const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// Reads the section. What the kernel would ignore under a policy is an error:
/// its author meant another policy.
pub(super) fn parse(spec: &Scheduler) -> Result<SchedAttr, Error> {
    let policy = POLICIES.iter().find(|(name, _)| *name == spec.policy);
    let &(_, policy) = policy.ok_or_else(|| {
        let reason = format!("{:?} is not a scheduling policy", spec.policy);
        invalid("process.scheduler.policy", &reason)
    })?;
    if !(-20..=19).contains(&spec.nice) {
        let reason = format!("{} is not between -20 and 19", spec.nice);
        return Err(invalid("process.scheduler.nice", &reason));
    }
    let real_time = policy == FIFO || policy == ROUND_ROBIN;
    if spec.priority != 0 && !real_time {
        let reason = "is only for SCHED_FIFO and SCHED_RR";
        return Err(invalid("process.scheduler.priority", reason));
    }
    let priority = u32::try_from(spec.priority)
        .map_err(|_| invalid("process.scheduler.priority", "is negative"))?;
    let times = [
        ("runtime", spec.runtime),
        ("deadline", spec.deadline),
        ("period", spec.period),
    ];
    if let Some((name, _)) = times.iter().find(|(_, time)| *time != 0)
        && policy != DEADLINE
    {
        let field = format!("process.scheduler.{name}");
        return Err(invalid(&field, "is only for SCHED_DEADLINE"));
    }
    Ok(SchedAttr {
        policy,
        flags: flags(&spec.flags)?,
        nice: spec.nice,
        priority,
        runtime: spec.runtime,
        deadline: spec.deadline,
        period: spec.period,
        ..SchedAttr::default()
    })
}

fn flags(names: &[String]) -> Result<u64, Error> {
    let bit = |(index, name): (usize, &String)| {
        let known = FLAGS.iter().find(|(known, _)| known == name);
        known.map(|(_, bit)| *bit).ok_or_else(|| {
            let field = format!("process.scheduler.flags[{index}]");
            invalid(&field, &format!("{name:?} is not a scheduling flag"))
        })
    };
    names
        .iter()
        .enumerate()
        .try_fold(0, |all, entry| Ok(all | bit(entry)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(policy: &str) -> Scheduler {
        Scheduler {
            policy: policy.into(),
            ..Scheduler::default()
        }
    }

    #[test]
    fn policies_and_flags_become_numbers() {
        let attr = parse(&Scheduler {
            flags: vec![
                "SCHED_FLAG_RESET_ON_FORK".into(),
                "SCHED_FLAG_UTIL_CLAMP_MAX".into(),
            ],
            priority: 9,
            ..policy("SCHED_RR")
        })
        .unwrap();
        assert_eq!((attr.policy, attr.flags, attr.priority), (2, 0x41, 9));
        let attr = parse(&Scheduler {
            runtime: 1,
            deadline: 2,
            period: 3,
            ..policy("SCHED_DEADLINE")
        })
        .unwrap();
        assert_eq!((attr.runtime, attr.deadline, attr.period), (1, 2, 3));
        for (name, number) in POLICIES {
            assert_eq!(parse(&policy(name)).unwrap().policy, number);
        }
    }

    #[test]
    fn mistakes_name_their_field() {
        let cases = [
            (policy(""), "policy "),
            (policy("SCHED_FAST"), "policy "),
            (
                Scheduler {
                    nice: 20,
                    ..policy("SCHED_OTHER")
                },
                "nice ",
            ),
            (
                Scheduler {
                    priority: 1,
                    ..policy("SCHED_BATCH")
                },
                "priority ",
            ),
            (
                Scheduler {
                    priority: -1,
                    ..policy("SCHED_FIFO")
                },
                "priority ",
            ),
            (
                Scheduler {
                    period: 1,
                    ..policy("SCHED_OTHER")
                },
                "period ",
            ),
            (
                Scheduler {
                    flags: vec!["SCHED_RESET_ON_FORK".into()],
                    ..policy("SCHED_OTHER")
                },
                "flags[0] ",
            ),
        ];
        for (spec, field) in cases {
            let error = parse(&spec).unwrap_err().to_string();
            assert!(
                error.contains(&format!("process.scheduler.{field}")),
                "{error}"
            );
        }
    }
}
