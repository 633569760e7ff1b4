//! Kernel parameters of the container's own namespaces (config-linux.md,
//! "Sysctl").

use crate::error::Error;
use crate::init::{Failure, Step};
use crate::spec::{Linux, NamespaceType, invalid};

/// Parameters outside `net.*` that belong to a namespace, with its kind.
/// All others belong to the whole host.
const NAMESPACED: [(&str, NamespaceType); 11] = [
    ("kernel.msgmax", NamespaceType::Ipc),
    ("kernel.msgmnb", NamespaceType::Ipc),
    ("kernel.msgmni", NamespaceType::Ipc),
    ("kernel.sem", NamespaceType::Ipc),
    ("kernel.shmall", NamespaceType::Ipc),
    ("kernel.shmmax", NamespaceType::Ipc),
    ("kernel.shmmni", NamespaceType::Ipc),
    ("kernel.shm_rmid_forced", NamespaceType::Ipc),
    ("fs.mqueue.", NamespaceType::Ipc),
    ("kernel.domainname", NamespaceType::Uts),
    ("kernel.hostname", NamespaceType::Uts),
];

/// The files below /proc/sys and their values; refuses what would change the host.
pub(crate) fn plan(linux: &Linux) -> Result<Vec<(String, String)>, Error> {
    linux
        .sysctl
        .iter()
        .map(|(key, value)| Ok((file(linux, key)?, value.clone())))
        .collect()
}

fn file(linux: &Linux, key: &str) -> Result<String, Error> {
    let field = format!("linux.sysctl[{key:?}]");
    let dotted = normalise(key);
    let owner = if dotted.starts_with("net.") {
        Some(NamespaceType::Network)
    } else {
        let belongs =
            |name: &str| dotted == name || (name.ends_with('.') && dotted.starts_with(name));
        NAMESPACED
            .iter()
            .find(|(name, _)| belongs(name))
            .map(|(_, kind)| *kind)
    };
    let owner = owner.ok_or_else(|| invalid(&field, "is not in a separate kernel namespace"))?;
    if linux.namespace(owner).is_none() {
        return Err(invalid(&field, "is not allowed in the hosts namespace"));
    }
    if dotted == "kernel.hostname" {
        return Err(invalid(&field, "is set by the field hostname"));
    }
    let path = dotted.replace('.', "/").replace('\u{0}', ".");
    if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(invalid(&field, "is not the name of a parameter"));
    }
    Ok(path)
}

/// sysctl(8) takes both separators; the first that occurs is the one that
/// separates, and the other stands for itself (`net/ipv4/conf/eth0.1/x`,
/// `net.ipv4.conf.eth0/1.x`). A literal dot is carried as NUL.
fn normalise(key: &str) -> String {
    match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'/') => key.replace('.', "\u{0}").replace('/', "."),
        _ => key.replace('/', "\u{0}"),
    }
}

/// Writes them; must run in the namespaces that own them, while the host's
/// procfs can still be opened.
pub(crate) fn apply(parameters: &[(String, String)]) -> Result<(), Failure> {
    if parameters.is_empty() {
        return Ok(());
    }
    let proc = crate::proc::open().map_err(Step::Sysctl.on("open /proc"))?;
    for (file, value) in parameters {
        let path = format!("sys/{file}");
        crate::proc::write(&proc, &path, value.as_bytes())
            .map_err(Step::Sysctl.on(format!("{file} to {value:?}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(key: &str) -> Result<Vec<(String, String)>, Error> {
        let namespaces = r#"[{"type":"network"},{"type":"ipc"}]"#;
        let text = format!(r#"{{"namespaces":{namespaces},"sysctl":{{{key:?}:"1"}}}}"#);
        plan(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn both_separators_are_understood() {
        assert_eq!(
            plan_of("net.ipv4.ip_forward").unwrap()[0].0,
            "net/ipv4/ip_forward"
        );
        assert_eq!(
            plan_of("net/ipv4/conf/eth0.1/forwarding").unwrap()[0].0,
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            plan_of("net.ipv4.conf.eth0/1.forwarding").unwrap()[0].0,
            "net/ipv4/conf/eth0.1/forwarding"
        );
    }

    #[test]
    fn the_host_is_not_configured() {
        for key in [
            "vm.swappiness",
            "kernel.core_pattern",
            "net/../kernel/core_pattern",
            "kernel.domainname",
            "net..x",
        ] {
            assert!(plan_of(key).is_err(), "{key}");
        }
        assert!(plan_of("kernel.shmmax").is_ok());
        assert!(plan_of("fs.mqueue.msg_max").is_ok());
    }
}
