//! `process.ioPriority` (`ioprio_set(2)`).

use crate::error::Error;
use crate::spec::{IoPriority, invalid};

/// Where the class stands in the kernel's number.
const CLASS_SHIFT: u32 = 13;

const CLASSES: [(&str, i32); 3] = [
    ("IOPRIO_CLASS_RT", 1),
    ("IOPRIO_CLASS_BE", 2),
    ("IOPRIO_CLASS_IDLE", 3),
];

/// The kernel's number for class and level.
pub(super) fn parse(spec: &IoPriority) -> Result<i32, Error> {
    let class = CLASSES.iter().find(|(name, _)| *name == spec.class);
    let &(_, class) = class.ok_or_else(|| {
        let reason = format!("{:?} is not a class of I/O priorities", spec.class);
        invalid("process.ioPriority.class", &reason)
    })?;
    if !(0..=7).contains(&spec.priority) {
        let reason = format!("{} is not between 0 and 7", spec.priority);
        return Err(invalid("process.ioPriority.priority", &reason));
    }
    Ok(class << CLASS_SHIFT | spec.priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(class: &str, priority: i32) -> Result<i32, Error> {
        super::parse(&IoPriority {
            class: class.into(),
            priority,
        })
    }

    #[test]
    fn class_and_level_become_one_number() {
        assert_eq!(parse("IOPRIO_CLASS_RT", 0).unwrap(), 0x2000);
        assert_eq!(parse("IOPRIO_CLASS_BE", 7).unwrap(), 0x4007);
        assert_eq!(parse("IOPRIO_CLASS_IDLE", 0).unwrap(), 0x6000);
    }

    #[test]
    fn mistakes_name_their_field() {
        for (class, priority, field) in [
            ("IOPRIO_CLASS_NONE", 0, "class"),
            ("", 0, "class"),
            ("IOPRIO_CLASS_BE", 8, "priority"),
            ("IOPRIO_CLASS_BE", -1, "priority"),
        ] {
            let error = parse(class, priority).unwrap_err().to_string();
            assert!(
                error.contains(&format!("process.ioPriority.{field} ")),
                "{error}"
            );
        }
    }
}
