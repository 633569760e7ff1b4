//! A bundle that an ordinary user can run: it has a user namespace in which the user is root.
//!
//! Other ids of the container are those that were lent to the user in /etc/subuid and /etc/subgid (subuid(5)), where
//! newuidmap(1) is there to hand them out; without, the container has root alone. What needs more than
//! such a namespace gives is left out, as in `runc spec --rootless`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Directories where newuidmap(1) is looked for.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];
/// The group of terminals, which devpts is asked to use.
const TERMINAL_GROUP: u64 = 5;

/// Which ids a container has: pairs of first id on the host and how many, from the container's id 0 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// User ids.
    pub users: Vec<(u32, u32)>,
    /// Group ids.
    pub groups: Vec<(u32, u32)>,
}

/// Where newuidmap(1) or newgidmap(1) is, if it is anywhere.
pub fn lender(name: &str) -> Option<PathBuf> {
    let mut places = PROGRAM_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name));
    places.find(|place| place.exists())
}

impl Ids {
    /// Those of the user of this process.
    pub fn of_this_user() -> Ids {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let can_lend = lender("newuidmap").is_some();
        let text = |path| match can_lend {
            true => fs::read_to_string(path).unwrap_or_default(),
            false => String::new(),
        };
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name_of(&passwd, uid);
        let lent = |file| lent(&text(file), name, uid);
        Ids {
            users: [vec![(uid, 1)], lent("/etc/subuid")].concat(),
            groups: [vec![(gid, 1)], lent("/etc/subgid")].concat(),
        }
    }
}

/// The name of user `uid` in passwd(5).
fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The ranges that subuid(5) lends to a user, by name or number.
fn lent(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().splitn(3, ':');
        let owner = fields.next()?;
        let is_ours = Some(owner) == name || owner == number;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        is_ours.then_some(range)
    };
    text.lines().filter_map(range).collect()
}

fn mappings(ranges: &[(u32, u32)]) -> Vec<Value> {
    let mut next = 0;
    let mut out = Vec::new();
    for (host, size) in ranges {
        out.push(json!({"containerID": next, "hostID": host, "size": size}));
        next += u64::from(*size);
    }
    out
}

/// How many groups a user namespace has, of whose root this process is, or will be.
fn count(ranges: &[(u32, u32)]) -> u64 {
    ranges.iter().map(|(_, size)| u64::from(*size)).sum()
}

/// Adapts a configuration that root could run to what root of this process's user namespace can.
pub(super) fn adapt_within(config: &mut Value) {
    let map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    let sizes = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    let groups = sizes.filter_map(|size| size.parse::<u64>().ok()).sum();
    let denied = fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    if let (true, Some(user)) = (denied, config["process"]["user"].as_object_mut()) {
        user.remove("additionalGids");
    }
    if let Some(linux) = config["linux"].as_object_mut() {
        if linux.get("cgroupsPath").is_none() {
            linux.remove("resources");
        }
        limit_ping(linux, groups);
    }
    adapt_mounts(config, groups);
}

/// The kernel takes groups of the namespace only.
fn limit_ping(linux: &mut Map<String, Value>, groups: u64) {
    if let Some(sysctl) = linux.get_mut("sysctl").and_then(Value::as_object_mut)
        && let Some(range) = sysctl.get_mut("net.ipv4.ping_group_range")
    {
        *range = json!(format!("0 {}", groups.saturating_sub(1)));
    }
}

/// Adapts a configuration that root could run.
pub(super) fn adapt(config: &mut Value, ids: &Ids) {
    let groups = count(&ids.groups);
    if let Some(linux) = config["linux"].as_object_mut() {
        linux.insert("uidMappings".into(), mappings(&ids.users).into());
        linux.insert("gidMappings".into(), mappings(&ids.groups).into());
        // Limits need cgroups that belong to the user; whoever has them adds limits.
        linux.remove("resources");
        limit_ping(linux, groups);
        if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            namespaces.push(json!({"type": "user"}));
        }
    }
    // Without newgidmap(1) the kernel forbids to set groups (user_namespaces(7), "/proc/[pid]/setgroups").
    if let (1, Some(user)) = (ids.groups.len(), config["process"]["user"].as_object_mut()) {
        user.remove("additionalGids");
    }
    adapt_mounts(config, groups);
}

fn adapt_mounts(config: &mut Value, groups: u64) {
    let Some(mounts) = config["mounts"].as_array_mut() else {
        return;
    };
    // A user namespace may mount neither over a network it does not own.
    mounts.retain(|mount| mount["type"] != "cgroup");
    for mount in mounts {
        if mount["type"] == "sysfs" {
            *mount = json!({"destination": mount["destination"], "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
        }
        if let Some(options) = mount["options"].as_array_mut()
            && groups <= TERMINAL_GROUP
        {
            options.retain(|option| option != "gid=5");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_lent() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:100::/:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000), Some("me"));
        assert_eq!(name_of(passwd, 7), None);
        let subuid = "you:100:5\nme:200:10\n1000:300:20\nme:x:y\nbad\n";
        assert_eq!(lent(subuid, Some("me"), 1000), [(200, 10), (300, 20)]);
        assert_eq!(lent(subuid, None, 7), []);
    }

    #[test]
    fn what_an_ordinary_user_can_run() {
        let mut config = json!({
            "process": {"user": {"uid": 0, "additionalGids": [0]}},
            "linux": {"namespaces": [{"type": "pid"}], "resources": {}, "sysctl": {"net.ipv4.ping_group_range": "0 2147483647"}},
            "mounts": [
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup"},
                {"destination": "/dev/pts", "type": "devpts", "options": ["gid=5", "mode=620"]},
            ],
        });
        let ids = Ids {
            users: vec![(1000, 1), (200, 10)],
            groups: vec![(100, 1)],
        };
        adapt(&mut config, &ids);
        assert_eq!(
            config["linux"],
            json!({"namespaces": [{"type": "pid"}, {"type": "user"}], "sysctl": {"net.ipv4.ping_group_range": "0 0"},
                "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 200, "size": 10}],
                "gidMappings": [{"containerID": 0, "hostID": 100, "size": 1}]})
        );
        assert_eq!(config["process"]["user"], json!({"uid": 0}));
        assert_eq!(config["mounts"][0]["source"], "/sys");
        assert_eq!(config["mounts"][1]["options"], json!(["mode=620"]));
    }
}
