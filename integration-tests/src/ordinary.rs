//! What stands in for root where the suites run as an ordinary user: cgroups
//! that were delegated to it, a user namespace in each container.

use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where cgroup v2 is mounted.
const HIERARCHY: &str = "/sys/fs/cgroup";
/// The cgroup that the tests move to: one with processes cannot hand on controllers.
const TESTS: &str = "tests";

/// Whether the tests have root's rights.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The cgroup below which all scenes have theirs: of root the top, else the one
/// that the tests were started in, which has to be the user's own.
pub(crate) fn parent() -> &'static str {
    static PARENT: OnceLock<String> = OnceLock::new();
    PARENT.get_or_init(|| {
        if is_root() {
            return String::new();
        }
        let own = fs::read_to_string("/proc/self/cgroup").expect("read the own cgroup");
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        let own = own.expect("a place in cgroup v2").trim_end_matches('/');
        match own.strip_suffix(&format!("/{TESTS}")) {
            Some(parent) => parent.to_owned(),
            None => hand_on(own).map(|()| own.to_owned()).expect(
                "a delegated cgroup: start the tests by systemd-run --user --pipe -p Delegate=yes",
            ),
        }
    })
}

/// Makes room for processes, moves them there, and enables the controllers.
fn hand_on(own: &str) -> std::io::Result<()> {
    let own = PathBuf::from(format!("{HIERARCHY}{own}"));
    let tests = own.join(TESTS);
    fs::create_dir_all(&tests)?;
    for pid in fs::read_to_string(own.join("cgroup.procs"))?.lines() {
        fs::write(tests.join("cgroup.procs"), pid)?;
    }
    for controller in fs::read_to_string(own.join("cgroup.controllers"))?.split_whitespace() {
        fs::write(own.join("cgroup.subtree_control"), format!("+{controller}"))?;
    }
    Ok(())
}

/// Gives a configuration the user namespace that an ordinary user needs: this
/// user is its root, and the ids lent to it are the others.
pub(crate) fn adapt(config: &mut Value) {
    let linux = &mut config["linux"];
    linux["uidMappings"] = mappings("/etc/subuid", geteuid().as_raw());
    linux["gidMappings"] = mappings("/etc/subgid", getegid().as_raw());
    let namespaces = linux["namespaces"].as_array_mut().expect("a list");
    namespaces.push(json!({"type": "user"}));
}

fn mappings(lent: &str, own: u32) -> Value {
    let first = json!({"containerID": 0, "hostID": own, "size": 1});
    let name = Command::new("id").arg("-un").output().expect("run id");
    let name = String::from_utf8_lossy(&name.stdout).trim().to_owned();
    let lists = fs::read_to_string(Path::new(lent)).unwrap_or_default();
    let numbers = lists.lines().find_map(|line| {
        let (start, count) = line.strip_prefix(&format!("{name}:"))?.split_once(':')?;
        Some((start.parse::<u32>().ok()?, count.parse::<u32>().ok()?))
    });
    match numbers {
        Some((start, count)) => {
            json!([first, {"containerID": 1, "hostID": start, "size": count}])
        }
        None => json!([first]),
    }
}
