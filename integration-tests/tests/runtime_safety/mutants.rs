//! Damaged configurations given to the built program: each is refused or carried
//! out, none makes it panic or hang, and nothing is left of any.

use serde_json::{Value, json};
use std::time::Duration;

use super::{Attack, bind, push};

#[path = "../../../runtime/src/mutation/damage.rs"]
mod damage;

/// Mutants tried unless `TEU_PROGRAM_MUTANTS` says how many.
const MUTANTS: usize = 300;

/// Mutants between two looks at the whole machine.
const BATCH: usize = 50;

/// Longest run of a program that does nothing; only a hang takes longer.
const LIMIT: Duration = Duration::from_secs(10);

/// A bit of everything that can be carried out on every machine, and that no
/// damage turns into a program which rightly never ends.
fn rich(config: &mut Value) {
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    push(&mut config["linux"], "namespaces", json!({"type": "user"}));
    config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    config["linux"]["resources"]["pids"] = json!({"limit": 100});
    config["linux"]["resources"]["cpu"] = json!({"shares": 512});
    config["linux"]["devices"] = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}]);
    let never = json!({"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1});
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [never]});
    config["process"]["oomScoreAdj"] = json!(100);
    config["process"]["user"] = json!({"uid": 0, "gid": 0, "umask": 18, "additionalGids": [4, 20]});
    config["annotations"] = json!({"org.example.key": "value"});
    let tmpfs = json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64k", "mode=755"]});
    push(config, "mounts", tmpfs);
}

/// Puts back what decides where on the machine a container is made; the planner's
/// own tests damage that too.
fn confined(text: Vec<u8>, whole: &Value) -> Vec<u8> {
    let Ok(mut config) = serde_json::from_slice::<Value>(&text) else {
        return text;
    };
    if !config.is_object() {
        return text;
    }
    for part in ["root", "linux"] {
        if !config[part].is_object() {
            config[part] = whole[part].clone();
        }
    }
    config["root"]["path"] = whole["root"]["path"].clone();
    config["linux"]["cgroupsPath"] = whole["linux"]["cgroupsPath"].clone();
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        let mount = json!({"type": "mount"});
        if !namespaces.contains(&mount) {
            namespaces.push(mount);
        }
    } else {
        config["linux"]["namespaces"] = whole["linux"]["namespaces"].clone();
    }
    serde_json::to_vec(&config).unwrap()
}

#[test]
fn damaged_configurations_leave_nothing() {
    let variable = std::env::var("TEU_PROGRAM_MUTANTS");
    let count = variable.map_or(MUTANTS, |text| text.parse().unwrap());
    let mut succeeded = 0;
    for first in (0..count).step_by(BATCH) {
        succeeded += batch(first..count.min(first + BATCH));
    }
    eprintln!("{count} damaged configurations, {succeeded} of them carried out");
    assert!(succeeded > 0, "none comes as far as to a container");
}

/// Runs some of them; the end of the attack looks for what is left. How many succeeded.
fn batch(numbers: std::ops::Range<usize>) -> usize {
    let attack = Attack::new("mutants");
    let scene = &attack.scene;
    let bundle = scene.bundle("m", &["/bin/true"], |config| {
        rich(config);
        push(config, "mounts", bind(&attack.sentinel(), "/mnt"));
    });
    let file = bundle.join("config.json");
    let whole: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let id = format!("{}-m", scene.mark());
    let words = ["run", "-b", bundle.to_str().unwrap(), &id];
    scene.run("teu-runtime", words).succeeds();
    let mut succeeded = 0;
    for number in numbers {
        std::fs::write(&file, confined(damage::mutant(number, &whole), &whole)).unwrap();
        let outcome = scene.run_within(LIMIT, "teu-runtime", words);
        let signal = std::os::unix::process::ExitStatusExt::signal(&outcome.status);
        let code = outcome.status.code();
        assert!(
            !outcome.stderr.contains("panicked")
                && signal.is_none()
                && ![Some(101), Some(134), Some(139)].contains(&code),
            "mutant {number}: {outcome}"
        );
        succeeded += usize::from(outcome.status.success());
        let states = std::fs::read_dir(scene.path("state/runtime")).unwrap();
        let left: Vec<_> = states.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            left.is_empty(),
            "mutant {number} leaves {left:?}: {outcome}"
        );
    }
    succeeded
}
