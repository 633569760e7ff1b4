//! Which device nodes a container may use: the rules, what they come to, and
//! the lines that bring a v1 cgroup from one such state to another.
//!
//! v1 keeps a default and a list of exceptions to it. The same model serves
//! both versions, so that one configuration means the same on either.

use std::fmt;

use super::Error;
use super::exceptions::Exceptions;
use crate::spec::resources::DeviceRule;

/// Letters of `rwm` as bits, as `BPF_DEVCG_ACC_*` numbers them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Access(u8);

impl Access {
    /// All three.
    pub(crate) const ALL: Self = Self(7);
    const LETTERS: [(char, u8); 3] = [('r', 2), ('w', 4), ('m', 1)];

    /// The bits: 1 mknod, 2 read, 4 write (`linux/bpf.h`).
    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// Letters without a meaning are passed over, as runc does: `rwa` is in use.
    fn parse(text: &str) -> Self {
        let known = Self::LETTERS
            .iter()
            .filter(|(known, _)| text.contains(*known));
        Self(known.fold(0, |all, (_, bit)| all | bit))
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::LETTERS
            .iter()
            .filter(|(_, bit)| self.0 & bit != 0)
            .try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `b`
    Block,
    /// `c`
    Char,
}

/// Which nodes an exception is about; `None` is every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// What a list of rules comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Whether a node without exception may be used.
    pub(crate) allow: bool,
    /// Where it is the other way round.
    pub(crate) exceptions: Exceptions,
}

/// One line for `devices.allow` or `devices.deny`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Which of the two.
    pub(crate) allow: bool,
    /// The line.
    pub(crate) text: String,
}

/// Granted to every container after its own rules (runc's `AllowedDevices`,
/// runtime-spec config-linux.md, "Default Devices"): making any node, the
/// harmless ones, pseudo-terminals and tun.
const USUAL: [(Kind, Option<u32>, Option<u32>, Access); 11] = [
    (Kind::Char, None, None, Access(1)),
    (Kind::Block, None, None, Access(1)),
    (Kind::Char, Some(1), Some(3), Access::ALL), // null
    (Kind::Char, Some(1), Some(8), Access::ALL), // random
    (Kind::Char, Some(1), Some(7), Access::ALL), // full
    (Kind::Char, Some(5), Some(0), Access::ALL), // tty
    (Kind::Char, Some(1), Some(5), Access::ALL), // zero
    (Kind::Char, Some(1), Some(9), Access::ALL), // urandom
    (Kind::Char, Some(136), None, Access::ALL),  // pts/*
    (Kind::Char, Some(5), Some(2), Access::ALL), // ptmx
    (Kind::Char, Some(10), Some(200), Access::ALL), // net/tun
];

impl Policy {
    /// The rules in their order, then the usual devices. Without any rule all
    /// others are denied.
    pub(crate) fn new(rules: &[DeviceRule]) -> Result<Self, Error> {
        let mut policy = Self::default();
        for rule in rules {
            policy.apply(rule)?;
        }
        for (kind, major, minor, access) in USUAL {
            policy.change(true, Node { kind, major, minor }, access)?;
        }
        Ok(policy)
    }

    fn apply(&mut self, rule: &DeviceRule) -> Result<(), Error> {
        let invalid = |what: String| Error::Invalid(format!("invalid device rule: {what}"));
        let access = rule.access.as_deref().unwrap_or_default();
        let access = match Access::parse(access) {
            nothing if nothing.is_none() => {
                return Err(invalid(format!(
                    "access {access:?} has none of the letters r, w and m"
                )));
            }
            access => access,
        };
        let number = |name: &str, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value)
                .map(Some)
                .map_err(|_| invalid(format!("{name} number {value} is out of range"))),
        };
        let kind = match rule.kind.as_deref() {
            None | Some("" | "a") => {
                // v1 reads `a` as every node and every access, whatever else the line says.
                *self = Self {
                    allow: rule.allow,
                    exceptions: Exceptions::default(),
                };
                return Ok(());
            }
            Some("c" | "u") => Kind::Char,
            Some("b") => Kind::Block,
            Some(other) => return Err(invalid(format!("type {other:?} is none of a, b and c"))),
        };
        let node = Node {
            kind,
            major: number("major", rule.major)?,
            minor: number("minor", rule.minor)?,
        };
        self.change(rule.allow, node, access)
    }

    fn change(&mut self, allow: bool, node: Node, access: Access) -> Result<(), Error> {
        if allow != self.allow {
            self.exceptions.add(node, access);
            return Ok(());
        }
        // v1 ignores the wish to take a part out of a wider exception: whoever
        // wrote the rule would believe in a protection that is not there.
        let wider =
            [(None, node.minor), (node.major, None), (None, None)].map(|(major, minor)| Node {
                kind: node.kind,
                major,
                minor,
            });
        for other in wider.iter().filter(|other| **other != node) {
            let held = self.exceptions.get(other);
            if held.0 & access.0 != 0 {
                return Err(Error::Invalid(format!(
                    "device rule \"{} {node} {access}\" cannot be met: the wider rule \"{other} {held}\" stands before it",
                    if allow { "allow" } else { "deny" }
                )));
            }
        }
        self.exceptions.take(node, access);
        Ok(())
    }

    /// Reads `devices.list` of a v1 cgroup.
    pub(crate) fn from_list(text: &str) -> Result<Self, Error> {
        let mut policy = Self::default();
        for line in text.lines() {
            let unknown =
                || Error::Invalid(format!("line {line:?} of devices.list is not understood"));
            let mut words = line.split([' ', ':']);
            let kind = match words.next() {
                Some("a") => {
                    return Ok(Self {
                        allow: true,
                        ..Self::default()
                    });
                }
                Some("b") => Kind::Block,
                Some("c") => Kind::Char,
                _ => return Err(unknown()),
            };
            let mut number = || match words.next() {
                Some("*") => Ok(None),
                Some(digits) => digits.parse().map(Some).map_err(|_| unknown()),
                None => Err(unknown()),
            };
            let node = Node {
                kind,
                major: number()?,
                minor: number()?,
            };
            let access = words.next().map(Access::parse).ok_or_else(unknown)?;
            policy.exceptions.add(node, access);
        }
        Ok(policy)
    }

    /// The fewest lines that lead from `self` to `target`, so that at no moment
    /// a device is denied which both allow: the container may be running.
    pub(crate) fn lines_to(&self, target: &Self) -> Vec<Line> {
        let mut lines = Vec::new();
        let nothing = Exceptions::default();
        let old = if self.allow == target.allow {
            &self.exceptions
        } else {
            lines.push(Line {
                allow: target.allow,
                text: "a".to_owned(),
            });
            &nothing
        };
        let difference = |from: &Exceptions, other: &Exceptions, allow| {
            let line = |(node, access): (Node, Access)| {
                let access = access.without(other.get(&node));
                (!access.is_none()).then(|| Line {
                    allow,
                    text: format!("{node} {access}"),
                })
            };
            from.iter().filter_map(line).collect::<Vec<_>>()
        };
        lines.extend(difference(&target.exceptions, old, !target.allow));
        lines.extend(difference(old, &target.exceptions, target.allow));
        lines
    }

    /// Whether `access` to one node is allowed: the meaning that the kernel's
    /// list and our program must both have.
    #[cfg(test)]
    pub(crate) fn allows(&self, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let same = |wanted: Option<u32>, number| wanted.is_none_or(|wanted| wanted == number);
        let hit = self.exceptions.iter().any(|(node, held)| {
            let here = node.kind == kind && same(node.major, major) && same(node.minor, minor);
            here && if self.allow {
                held.0 & access != 0
            } else {
                access & !held.0 == 0
            }
        });
        hit != self.allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<Policy, Error> {
        Policy::new(&serde_json::from_str::<Vec<DeviceRule>>(json).unwrap())
    }

    #[test]
    fn an_empty_list_is_not_allow_all() {
        let policy = policy("[]").unwrap();
        assert!(!policy.allows(Kind::Char, 1, 11, 2), "kmsg");
        assert!(!policy.allows(Kind::Block, 8, 0, 2), "sda");
        assert!(policy.allows(Kind::Block, 8, 0, 1), "mknod alone");
        assert!(policy.allows(Kind::Char, 1, 3, 7), "null");
        assert!(policy.allows(Kind::Char, 136, 77, 6), "pts");
    }

    #[test]
    fn rules_are_applied_in_order() {
        let last =
            policy(r#"[{"allow": true, "access": "rwm"}, {"allow": false, "access": "rwm"}]"#)
                .unwrap();
        assert!(!last.allows(Kind::Char, 1, 11, 2));
        let privileged =
            policy(r#"[{"allow": false, "access": "rwm"}, {"allow": true, "access": "rwm"}]"#)
                .unwrap();
        assert_eq!(
            privileged,
            Policy {
                allow: true,
                exceptions: Exceptions::default()
            }
        );
        let but = policy(
            r#"[{"allow": true, "access": "rwm"},
                {"allow": false, "type": "b", "major": 8, "minor": 0, "access": "w"}]"#,
        )
        .unwrap();
        assert!(but.allows(Kind::Block, 8, 0, 2) && !but.allows(Kind::Block, 8, 0, 6));
    }

    #[test]
    fn a_hole_in_a_wider_rule_is_refused() {
        let error = policy(
            r#"[{"allow": true, "type": "c", "access": "rw"},
                {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "r"}]"#,
        )
        .unwrap_err();
        assert!(error.to_string().contains("deny c 1:11 r"), "{error}");
    }

    #[test]
    fn odd_rules_are_refused_with_their_value() {
        for (json, word) in [
            (
                r#"[{"allow": true, "type": "x", "access": "rwm"}]"#,
                "\"x\"",
            ),
            (r#"[{"allow": true, "type": "c", "access": "x"}]"#, "\"x\""),
            (r#"[{"allow": true}]"#, "\"\""),
            (
                r#"[{"allow": true, "type": "c", "major": -7, "access": "r"}]"#,
                "-7",
            ),
        ] {
            let error = policy(json).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let line = |allow, text: &str| Line {
            allow,
            text: text.to_owned(),
        };
        let fresh = Policy::from_list("a *:* rwm\n").unwrap();
        let usual = policy("[]").unwrap();
        let lines = fresh.lines_to(&usual);
        assert_eq!(lines[0], line(false, "a"));
        assert_eq!(lines.len(), 1 + USUAL.len());
        assert!(lines[1..].iter().all(|line| line.allow));
        assert_eq!(usual.lines_to(&usual), []);
        let fuse =
            policy(r#"[{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]"#)
                .unwrap();
        assert_eq!(usual.lines_to(&fuse), [line(true, "c 10:229 rw")]);
        assert_eq!(fuse.lines_to(&usual), [line(false, "c 10:229 rw")]);
        let all = Policy {
            allow: true,
            exceptions: Exceptions::default(),
        };
        assert_eq!(usual.lines_to(&all), [line(true, "a")]);
    }

    #[test]
    fn the_kernels_list_is_understood() {
        let usual = policy("[]").unwrap();
        let list: String = usual
            .exceptions
            .iter()
            .map(|(node, access)| format!("{node} {access}\n"))
            .collect();
        assert_eq!(Policy::from_list(&list).unwrap(), usual);
        assert!(Policy::from_list("z 1:1 r").is_err());
    }
}
