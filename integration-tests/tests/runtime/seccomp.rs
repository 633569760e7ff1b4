//! System calls refused, compared and killed.

use super::Container;
use serde_json::json;
use teu_integration_tests::Scene;

#[test]
fn seccomp_refuses_with_the_chosen_error() {
    let scene = Scene::new("seccomp");
    let container = Container::script(
        &scene,
        "c",
        "mkdir /tmp/d; chmod 700 /tmp; echo alive",
        |config| {
            config["root"]["readonly"] = json!(false);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "syscalls": [
                    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100},
                    {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"},
                ],
            });
        },
    );
    let outcome = container.run().exits(0);
    assert!(outcome.stderr.contains("Network is down"), "{outcome}");
    assert!(
        outcome.stderr.contains("Operation not permitted"),
        "{outcome}"
    );
    assert_eq!(outcome.stdout, "alive\n");
}

#[test]
fn seccomp_compares_arguments_and_kills() {
    let scene = Scene::new("seccomp arguments");
    let container = Container::script(
        &scene,
        "c",
        "kill -CONT 1 && echo allowed; kill -USR1 1; echo not reached",
        |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}],
            });
        },
    );
    let outcome = container.run().exits(159);
    assert_eq!(outcome.stdout, "allowed\n");
}
