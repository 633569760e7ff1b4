//! Configurations that are too long, unknown, or broken.

use serde_json::{Value, json};

use super::{Attack, push};

/// R10: lengths that overflow 16 bits (CVE-2021-43784): refused or done exactly.
#[test]
fn r10_long_values_do_not_overflow() {
    let attack = Attack::new("R10");
    let long = "x".repeat(65537);
    let fields: [(&str, Value); 14] = [
        ("/hostname", json!(long)),
        ("/domainname", json!(long)),
        ("/process/cwd", json!(format!("/{long}"))),
        ("/process/args/0", json!(format!("/{long}"))),
        ("/process/selinuxLabel", json!(long)),
        ("/process/apparmorProfile", json!(long)),
        ("/root/path", json!(long)),
        ("/linux/cgroupsPath", json!(format!("/{long}"))),
        ("/linux/mountLabel", json!(long)),
        ("/linux/rootfsPropagation", json!(long)),
        ("/linux/maskedPaths", json!([format!("/{long}")])),
        ("/linux/readonlyPaths", json!([format!("/{long}")])),
        (
            "/linux/namespaces/0/path",
            json!(format!("/{}", "n".repeat(70 * 1024))),
        ),
        ("/linux/namespaces/0/type", json!(long)),
    ];
    for (pointer, value) in fields {
        let container = attack.container("id -u", |config| {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            let parent = config.pointer_mut(parent).unwrap();
            match name.parse::<usize>() {
                Ok(index) => parent[index] = value.clone(),
                Err(_) => parent[name] = value.clone(),
            }
        });
        if let Some(out) = container.run_or_refuse() {
            assert_eq!(out.trim(), "0", "{pointer}");
        }
    }
    let maps: Vec<_> = (0..6000)
        .map(|n| json!({"containerID": n, "hostID": 100_000 + n, "size": 1}))
        .collect();
    let container = attack.container("wc -l < /proc/self/uid_map", |config| {
        push(&mut config["linux"], "namespaces", json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!(maps);
        config["linux"]["gidMappings"] = json!(maps);
    });
    assert_eq!(container.run_or_refuse(), None);
    let container = attack.container("true", |config| {
        config["process"]["env"] = json!([format!("A={long}"), "PATH=/bin"]);
        config["annotations"] = json!({"long": long});
        config["mounts"].as_array_mut().unwrap()[0]["options"] = json!([long]);
    });
    let _ = container.run_or_refuse();
}

/// R36: a filter holds on every way into the kernel, and what it does not know
/// is an error before anything is made (CVE-2026-123876, GHSA-7236-3392-c5c6).
#[test]
fn r36_filters_have_no_side_door() {
    let attack = Attack::new("R36");
    for seccomp in [
        json!({"defaultAction": "SCMP_ACT_NONSENSE"}),
        json!({"defaultAction": 7}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NONSENSE"]}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "unconfined"}]}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NONSENSE"]}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_NONSENSE"}]}]}),
    ] {
        let container = attack.container("true", |config| {
            config["linux"]["seccomp"] = seccomp.clone();
        });
        assert_eq!(container.run_or_refuse(), None, "{seccomp}");
        let states = attack.scene.path("state/runtime");
        assert!(!states.exists() || std::fs::read_dir(states).unwrap().count() == 0);
    }
}

/// R36: 32-bit and x32 calls of a forbidden name are refused too; needs a C
/// compiler for a static program that makes them.
#[test]
fn r36_other_abis_are_filtered() {
    let attack = Attack::new("R36 abis");
    let here = cfg!(target_arch = "x86_64") && !teu_integration_tests::missing_command("gcc");
    teu_integration_tests::skip_unless!(attack.scene, here, "gcc makes an x86-64 program");
    let source = r#"
#include <stdio.h>
#include <unistd.h>
#include <sys/syscall.h>
static long compat(long nr) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(nr), "b"(0), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11"); return r; }
static long native(long nr) { long r; __asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(0), "S"(0), "d"(0) : "memory", "rcx", "r11"); return r; }
int main(void) { /* getpriority is 96 on i386 and 140 on x86-64 */
  printf("%ld %ld %ld\n", native(140), native(0x40000000 | 140), compat(96)); return 0; }"#;
    attack.scene.write("abis.c", source);
    let run = |architectures: Value| {
        let container = attack.container("", |config| {
            config["process"]["args"] = json!(["/abis"]);
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures,
                "syscalls": [{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]});
        });
        attack.scene.shell(&format!(
            "gcc -O1 -static -o {} abis.c",
            container.root("abis").display()
        ));
        container.run()
    };
    let all = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let outcome = run(all);
    assert_eq!(outcome.stdout.trim(), "-95 -95 -95", "{outcome}");
    // An ABI that the profile does not name ends the process, as libseccomp has it.
    let outcome = run(json!(["SCMP_ARCH_X86_64"]));
    assert!(
        !outcome.stdout.contains(" 20") && outcome.code() != 0,
        "{outcome}"
    );
}

/// R35: the template masks and protects all that moby does (GHSA-7ww5-4wqc-m92c).
#[test]
fn r35_the_template_masks_what_moby_masks() {
    let attack = Attack::new("R35");
    attack.scene.run("teu-runtime", ["spec"]).succeeds();
    let text = std::fs::read(attack.scene.path("config.json")).unwrap();
    let spec: Value = serde_json::from_slice(&text).unwrap();
    let list = |name: &str| -> Vec<String> {
        serde_json::from_value(spec["linux"][name].clone()).unwrap()
    };
    let (masked, readonly) = (list("maskedPaths"), list("readonlyPaths"));
    for path in [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ] {
        assert!(
            masked.iter().any(|known| known == path),
            "{path} is not masked"
        );
    }
    for path in [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ] {
        assert!(
            readonly.iter().any(|known| known == path),
            "{path} is not read-only"
        );
    }
}

/// R33: annotations steer nothing: the program finds itself in the same world
/// with and without those that others obey (CVE-2026-94603, 53488, 121885).
#[test]
fn r33_annotations_steer_nothing() {
    let attack = Attack::new("R33");
    let script = "cat /proc/self/status | grep -E 'Cap|Seccomp:|NoNew|Groups'; cut -d' ' -f3- /proc/self/mountinfo | sed 's/[0-9]*:[0-9]* //'; env; cat /proc/self/cgroup | grep -c .";
    let world = |annotations: Value| {
        let container = attack.container(script, |config| {
            config["annotations"] = annotations;
        });
        container.run().succeeds()
    };
    let plain = world(json!({}));
    let loud = world(json!({
        "io.podman.annotations.privileged": "TRUE", "io.podman.annotations.seccomp": "unconfined", "io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel": "true",
        "run.oci.keep_original_groups": "1", "run.oci.seccomp.receiver": "/tmp/x", "run.oci.handler": "wasm", "module.wasm.image/variant": "compat",
        "org.criu.config": "/etc/passwd", "io.containerd.runc.v2.group": "x", "com.docker.security.unconfined": "true", "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.apparmor.security.beta.kubernetes.io/c": "unconfined", "run.oci.mount_context_type": "rootcontext", "run.oci.pidfd_receiver": "/tmp/x", "dev.gvisor.spec.mount.x": "y",
    }));
    assert_eq!(plain, loud);
}
