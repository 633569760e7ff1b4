//! `spec`: a config.json to begin with.

use std::fs::File;
use std::io::Write;

use super::absolute;
use super::args::Args;
use crate::cgroup::Layout;
use crate::error::Error;
use crate::spec::{IdMapping, Mount, Namespace, NamespaceType, Spec};

/// A shell in `rootfs`, with the namespaces and protections that runc's has.
const TEMPLATE: &str = include_str!("template.json");

/// `spec`.
pub(super) fn spec(args: &Args) -> Result<u8, Error> {
    let path = absolute(args.value("bundle").unwrap_or(".")).join("config.json");
    let mut spec = template()?;
    if args.flag("rootless") {
        make_rootless(&mut spec);
    }
    if !matches!(Layout::discover(), Ok(Layout::V2)) {
        // On version 1 the container's own paths are what tools compare.
        let namespaces = &mut spec.linux.namespaces;
        namespaces.retain(|namespace| namespace.kind != NamespaceType::Cgroup);
    }
    let text = serde_json::to_string_pretty(&spec).map_err(|source| Error::Json {
        path: path.clone(),
        source,
    })?;
    let created = File::options().write(true).create_new(true).open(&path);
    let mut file = created.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::State(format!("file {path:?} exists. Remove it first"))
        }
        _ => Error::on("create", &path)(error),
    })?;
    file.write_all(text.as_bytes())
        .map_err(Error::on("write", &path))?;
    Ok(0)
}

fn template() -> Result<Spec, Error> {
    Spec::parse(TEMPLATE.as_bytes()).map_err(|source| Error::Json {
        path: "template".into(),
        source,
    })
}

/// What an ordinary user can have: own ids mapped to root, the host's
/// network, its /sys, no groups that are not mapped, no limits.
fn make_rootless(spec: &mut Spec) {
    let one = |host: u32| {
        vec![IdMapping {
            container: 0,
            host,
            size: 1,
        }]
    };
    let linux = &mut spec.linux;
    linux
        .namespaces
        .retain(|namespace| namespace.kind != NamespaceType::Network);
    linux.namespaces.push(Namespace {
        kind: NamespaceType::User,
        path: "".into(),
    });
    linux.uid_mappings = one(rustix::process::geteuid().as_raw());
    linux.gid_mappings = one(rustix::process::getegid().as_raw());
    linux.resources = None;
    for mount in &mut spec.mounts {
        mount
            .options
            .retain(|option| !option.starts_with("gid=") && !option.starts_with("uid="));
        if mount.kind == "sysfs" {
            let options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
                .map(str::to_owned)
                .to_vec();
            *mount = Mount {
                destination: "/sys".into(),
                kind: "none".into(),
                source: "/sys".into(),
                options,
                ..Mount::default()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid_and_protects() {
        let spec = template().unwrap();
        spec.process().unwrap().check("process").unwrap();
        assert!(spec.linux.masked_paths.len() >= 12);
        assert!(spec.process().unwrap().no_new_privileges);
    }

    #[test]
    fn the_rootless_one_maps_only_the_user() {
        let mut spec = template().unwrap();
        make_rootless(&mut spec);
        assert_eq!(spec.linux.uid_mappings[0].size, 1);
        assert!(spec.linux.namespace(NamespaceType::Network).is_none());
        assert!(spec.mounts.iter().all(|mount| {
            mount
                .options
                .iter()
                .all(|option| !option.starts_with("gid="))
        }));
    }
}
