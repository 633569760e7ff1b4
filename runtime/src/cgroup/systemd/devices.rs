//! Device rules as properties (`DevicePolicy`, `DeviceAllow`).
//!
//! Our own rules decide in the end. These keep systemd from putting others
//! beside or, on v1, over them when it writes again what it knows of the unit.

use super::super::devices::{Access, Kind, Node, Policy};
use super::Error;
use super::properties::{Host, Property, text};
use crate::dbus::{Type, Value};
use crate::spec::resources::DeviceRule;

/// The properties of the rules. Where systemd could not say them all it is told
/// to restrict nothing, since what it denies nobody else can grant.
pub(super) fn properties(rules: &[DeviceRule], host: Host) -> Result<Vec<Property>, Error> {
    // Before version 240 only nodes that exist under /dev could be named.
    if host.version < 240 {
        return Ok(Vec::new());
    }
    let policy = Policy::new(rules).map_err(|error| Error::Limit(error.to_string()))?;
    let granted = if policy.allow { None } else { granted(&policy) };
    // The list first: since version 230 a policy set before it makes the unit
    // one that "needs daemon-reload" (systemd issue 35710).
    let empty = allow(Vec::new());
    Ok(match granted {
        Some(nodes) => vec![empty, text("DevicePolicy", "strict"), allow(nodes)],
        None => vec![empty, text("DevicePolicy", "auto")],
    })
}

fn allow(nodes: Vec<Value>) -> Property {
    let pair = Type::Struct(vec![Type::Text, Type::Text]);
    ("DeviceAllow".into(), Value::Array(pair, nodes))
}

fn granted(policy: &Policy) -> Option<Vec<Value>> {
    let pair = |(node, access): (Node, Access)| {
        let fields = vec![Value::Text(name(node)?), Value::text(format!("{access}"))];
        Some(Value::Struct(fields))
    };
    policy.exceptions.iter().map(pair).collect()
}

/// How systemd names nodes; it has no name for one minor of every major.
fn name(node: Node) -> Option<String> {
    let kind = match node.kind {
        Kind::Block => "block",
        Kind::Char => "char",
    };
    match (node.major, node.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{major}")),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<Property> {
        let host = Host {
            version: 252,
            is_v2: true,
        };
        properties(&serde_json::from_str::<Vec<_>>(json).unwrap(), host).unwrap()
    }

    fn policy(properties: &[Property]) -> &Value {
        &properties[1].1
    }

    #[test]
    fn grants_are_named() {
        let properties = of(r#"[{"allow": true, "type": "b", "major": 8, "access": "rw"}]"#);
        assert_eq!(policy(&properties), &Value::text("strict"));
        assert_eq!(properties[0], allow(vec![]));
        let Value::Array(_, nodes) = &properties[2].1 else {
            panic!("no list")
        };
        for (name, access) in [
            ("block-8", "rw"),
            ("char-*", "m"),
            ("/dev/char/1:3", "rwm"),
            ("char-136", "rwm"),
        ] {
            let node = Value::Struct(vec![Value::text(name), Value::text(access)]);
            assert!(nodes.contains(&node), "{name}");
        }
    }

    #[test]
    fn what_systemd_cannot_say_it_does_not_restrict() {
        for json in [
            r#"[{"allow": true, "access": "rwm"}]"#,
            r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "access": "w"}]"#,
            r#"[{"allow": true, "type": "c", "minor": 9, "access": "r"}]"#,
        ] {
            let properties = of(json);
            assert_eq!(policy(&properties), &Value::text("auto"), "{json}");
            assert_eq!(properties.len(), 2);
        }
    }
}
