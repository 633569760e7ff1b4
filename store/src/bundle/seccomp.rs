//! Docker's default system call filter, from the data in `seccomp.json`, resolved for this processor and a set
//! of capabilities (runtime-spec, config-linux.md, "Seccomp").

use serde::Deserialize;
use serde_json::{Value, json};

use crate::image::Platform;

/// Where the facts come from stands in the file.
const PROFILE: &str = include_str!("seccomp.json");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: u32,
    architectures: Vec<Architecture>,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Architecture {
    name: String,
    also: Vec<String>,
}

/// System calls and the conditions under which the rule is part of the filter.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    not_caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    not_arches: Vec<String>,
}

impl Rule {
    fn applies(&self, architecture: &str, capabilities: &[&str]) -> bool {
        let arch = |list: &[String]| list.iter().any(|name| name == architecture);
        let has = |name: &String| capabilities.contains(&name.as_str());
        (self.arches.is_empty() || arch(&self.arches))
            && !arch(&self.not_arches)
            && self.caps.iter().all(has)
            && !self.not_caps.iter().any(has)
    }
}

/// Runtime-spec's `linux.seccomp` for a container with `capabilities`; `None` on processors the profile does not know.
pub(super) fn profile(capabilities: &[&str]) -> Option<Value> {
    resolve(&Platform::host().architecture, capabilities)
}

fn resolve(architecture: &str, capabilities: &[&str]) -> Option<Value> {
    let profile: Profile = serde_json::from_str(PROFILE).ok()?;
    let native = match architecture {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        "riscv64" => "SCMP_ARCH_RISCV64",
        "s390x" => "SCMP_ARCH_S390X",
        "loong64" => "SCMP_ARCH_LOONGARCH64",
        _ => return None,
    };
    let known = profile
        .architectures
        .iter()
        .find(|known| known.name == native)?;
    let architectures: Vec<&String> = [&known.name].into_iter().chain(&known.also).collect();
    let rules = profile
        .rules
        .iter()
        .filter(|rule| rule.applies(architecture, capabilities));
    let syscalls: Vec<Value> = rules
        .map(|rule| {
            let mut out = json!({ "names": rule.names, "action": rule.action });
            if let Some(errno) = rule.errno_ret {
                out["errnoRet"] = errno.into();
            }
            if !rule.args.is_empty() {
                out["args"] = rule.args.clone().into();
            }
            out
        })
        .collect();
    Some(json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": architectures,
        "syscalls": syscalls,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::defaults::CAPABILITIES;

    fn actions(profile: &Value, name: &str) -> Vec<String> {
        let rules = profile["syscalls"].as_array().unwrap().iter();
        let named = rules.filter(|rule| {
            rule["names"]
                .as_array()
                .unwrap()
                .iter()
                .any(|known| known == name)
        });
        named
            .map(|rule| rule["action"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn capabilities_open_system_calls() {
        let plain = resolve("amd64", &CAPABILITIES).unwrap();
        assert_eq!(actions(&plain, "read"), ["SCMP_ACT_ALLOW"]);
        assert_eq!(actions(&plain, "clone3"), ["SCMP_ACT_ERRNO"]);
        assert_eq!(actions(&plain, "mount"), [""; 0]);
        assert_eq!(actions(&plain, "chroot"), ["SCMP_ACT_ALLOW"]);
        assert_eq!(actions(&plain, "arch_prctl"), ["SCMP_ACT_ALLOW"]);
        let admin = resolve("amd64", &["CAP_SYS_ADMIN"]).unwrap();
        assert_eq!(actions(&admin, "clone3"), ["SCMP_ACT_ALLOW"]);
        assert_eq!(actions(&admin, "mount"), ["SCMP_ACT_ALLOW"]);
        assert_eq!(
            actions(&resolve("arm64", &[]).unwrap(), "arch_prctl"),
            [""; 0]
        );
        assert!(resolve("z80", &[]).is_none());
    }
}
