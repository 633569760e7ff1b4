//! `linux.personality` (`personality(2)`).

use crate::error::Error;
use crate::spec::{Personality, invalid};

/// Domains of `linux/personality.h`, which libc leaves out.
const PER_LINUX: libc::c_ulong = 0;
const PER_LINUX32: libc::c_ulong = 8;

/// The kernel's number of an execution domain.
pub(super) fn parse(spec: &Personality) -> Result<libc::c_ulong, Error> {
    if let Some(flag) = spec.flags.first() {
        let reason = format!("has {flag:?}, but the specification defines no flag");
        return Err(invalid("linux.personality.flags", &reason));
    }
    match spec.domain.as_str() {
        "LINUX" => Ok(PER_LINUX),
        "LINUX32" => Ok(PER_LINUX32),
        other => {
            let reason = format!("{other:?} is neither LINUX nor LINUX32");
            Err(invalid("linux.personality.domain", &reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(domain: &str, flags: &[&str]) -> Result<libc::c_ulong, Error> {
        super::parse(&Personality {
            domain: domain.into(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        })
    }

    #[test]
    fn both_domains_are_known() {
        assert_eq!(parse("LINUX", &[]).unwrap(), 0);
        assert_eq!(parse("LINUX32", &[]).unwrap(), 8);
    }

    #[test]
    fn all_else_is_refused_by_its_field() {
        let error = parse("BSD", &[]).unwrap_err().to_string();
        assert!(
            error.contains("linux.personality.domain \"BSD\""),
            "{error}"
        );
        let error = parse("LINUX", &["ADDR_NO_RANDOMIZE"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("linux.personality.flags"), "{error}");
    }
}
