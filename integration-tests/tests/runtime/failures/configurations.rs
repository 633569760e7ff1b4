//! Failures that a configuration provokes.

use super::cases::{Case, line, only, run, x86_64};
use super::cgroup_v1;

pub(super) const CONFIGURATIONS: &[Case] = &[
    // The program.
    run(
        "a program that is not there",
        &[("/process/args", r#"["/no/such"]"#)],
    ),
    run(
        "a program missing in a folder",
        &[("/process/args", r#"["/bin/nosuch"]"#)],
    ),
    run(
        "a program in no folder of PATH",
        &[("/process/args", r#"["nosuch"]"#)],
    ),
    run(
        "no PATH at all",
        &[("/process/args", r#"["true"]"#), ("/process/env", "[]")],
    ),
    run(
        "a program that is a directory",
        &[("/process/args", r#"["/tmp"]"#)],
    ),
    run(
        "a program without execute permission",
        &[("/process/args", r#"["/odd/not-executable"]"#)],
    ),
    run(
        "a program of somebody else",
        &[
            ("/process/args", r#"["/odd/private"]"#),
            ("/process/user/uid", "1000"),
            ("/process/capabilities", ""),
        ],
    ),
    run(
        "a script without its interpreter",
        &[("/process/args", r#"["/odd/no-interpreter"]"#)],
    ),
    run(
        "a script with Windows line ends",
        &[("/process/args", r#"["/odd/crlf"]"#)],
    ),
    run(
        "a script whose interpreter is no program",
        &[("/process/args", r#"["/odd/bad-interpreter"]"#)],
    ),
    only(
        run(
            "a script whose interpreter is foreign",
            &[("/process/args", r#"["/odd/foreign-interpreter"]"#)],
        ),
        x86_64,
    ),
    run(
        "text without an interpreter",
        &[("/process/args", r#"["/odd/text"]"#)],
    ),
    run(
        "data as a program",
        &[("/process/args", r#"["/odd/data"]"#)],
    ),
    run(
        "an empty program",
        &[("/process/args", r#"["/odd/empty"]"#)],
    ),
    run(
        "a program that is cut off",
        &[("/process/args", r#"["/odd/cut-off"]"#)],
    ),
    run(
        "a link to nowhere",
        &[("/process/args", r#"["/odd/dangling"]"#)],
    ),
    only(
        run(
            "a program without its loader",
            &[("/process/args", r#"["/odd/dynamic"]"#)],
        ),
        x86_64,
    ),
    only(
        run(
            "a program for another machine",
            &[("/process/args", r#"["/odd/foreign"]"#)],
        ),
        x86_64,
    ),
    run(
        "a program on a noexec mount",
        &[
            ("/process/args", r#"["/noexec/busybox"]"#),
            (
                "/mounts/-",
                r#"{"destination":"/noexec","source":"rootfs/bin","options":["bind","noexec"]}"#,
            ),
        ],
    ),
    run("no program", &[("/process/args", "[]")]),
    run(
        "a working directory that is a file",
        &[("/process/cwd", r#""/etc/passwd""#)],
    ),
    run(
        "a relative working directory",
        &[("/process/cwd", r#""tmp""#)],
    ),
    // The file.
    run(
        "a configuration that is no JSON",
        &[(
            "",
            "{\n  \"ociVersion\": \"1.0.2\",\n  \"root\": {\"path\": }\n}",
        )],
    ),
    run("an empty configuration", &[("", "")]),
    line("a bundle that is not there", "run -b /no/such/bundle @case"),
    line("a bundle without a configuration", "run -b spec/.. @case"),
    run("a wrong type", &[("/root/path", "7")]),
    run(
        "a wrong type deep inside",
        &[("/linux/resources/devices/0/allow", r#""yes""#)],
    ),
    run("no root", &[("/root", "")]),
    run("no process", &[("/process", "")]),
    run("another major version", &[("/ociVersion", r#""2.0.0""#)]),
    run(
        "an unknown namespace",
        &[("/linux/namespaces/1/type", r#""moon""#)],
    ),
    run(
        "a namespace without a type",
        &[("/linux/namespaces/1", "{}")],
    ),
    run(
        "a namespace named twice",
        &[("/linux/namespaces/-", r#"{"type":"pid"}"#)],
    ),
    run(
        "a rootfs that is not there",
        &[("/root/path", r#""nosuch""#)],
    ),
    // Mounts.
    run(
        "a bind mount of what is not there",
        &[(
            "/mounts/-",
            r#"{"destination":"/tmp","source":"/no/such","options":["bind"]}"#,
        )],
    ),
    run(
        "a bind mount without a source",
        &[("/mounts/-", r#"{"destination":"/tmp","options":["bind"]}"#)],
    ),
    run(
        "a mount without a type",
        &[("/mounts/-", r#"{"destination":"/tmp"}"#)],
    ),
    run(
        "a mount without a destination",
        &[("/mounts/-", r#"{"type":"tmpfs"}"#)],
    ),
    run(
        "an option that a file system does not know",
        &[("/mounts/1/options/-", r#""nosuch=1""#)],
    ),
    run(
        "an unknown file system",
        &[("/mounts/-", r#"{"destination":"/tmp","type":"nosuchfs"}"#)],
    ),
    run(
        "a mount inside /proc",
        &[(
            "/mounts/-",
            r#"{"destination":"/proc/self","type":"tmpfs"}"#,
        )],
    ),
    run(
        "a mount point below a file",
        &[(
            "/mounts/-",
            r#"{"destination":"/etc/passwd/x","type":"tmpfs"}"#,
        )],
    ),
    run(
        "an unknown propagation",
        &[("/linux/rootfsPropagation", r#""private-ish""#)],
    ),
    run(
        "mounts in the host's namespace",
        &[("/linux/namespaces", r#"[{"type":"pid"}]"#)],
    ),
    // Namespaces and what belongs to them.
    run(
        "id maps without a user namespace",
        &[(
            "/linux/uidMappings",
            r#"[{"containerID":0,"hostID":0,"size":1}]"#,
        )],
    ),
    run(
        "a user namespace without id maps",
        &[("/linux/namespaces/-", r#"{"type":"user"}"#)],
    ),
    run(
        "a host name without its namespace",
        &[("/linux/namespaces", r#"[{"type":"pid"},{"type":"mount"}]"#)],
    ),
    run(
        "a namespace to join that is not there",
        &[(
            "/linux/namespaces/1",
            r#"{"type":"network","path":"/no/such/ns"}"#,
        )],
    ),
    run(
        "a namespace to join of another kind",
        &[(
            "/linux/namespaces/1",
            r#"{"type":"network","path":"/proc/self/ns/uts"}"#,
        )],
    ),
    run(
        "a relative path of a namespace",
        &[("/linux/namespaces/1", r#"{"type":"network","path":"ns"}"#)],
    ),
    run(
        "time offsets without a time namespace",
        &[("/linux/timeOffsets", r#"{"boottime":{"secs":1}}"#)],
    ),
    run(
        "a sysctl of the whole host",
        &[("/linux/sysctl", r#"{"vm.swappiness":"1"}"#)],
    ),
    run(
        "a sysctl with a bad value",
        &[("/linux/sysctl", r#"{"kernel.shmmni":"many"}"#)],
    ),
    run(
        "a sysctl that is not there",
        &[("/linux/sysctl", r#"{"net.nosuch":"1"}"#)],
    ),
    // Limits, devices, privileges.
    run(
        "an unknown resource limit",
        &[("/process/rlimits/0/type", r#""RLIMIT_FILES""#)],
    ),
    run(
        "a resource limit above its ceiling",
        &[("/process/rlimits/0/soft", "2000")],
    ),
    run(
        "an unknown kind of device",
        &[("/linux/devices", r#"[{"path":"/dev/x","type":"q"}]"#)],
    ),
    run(
        "a device with a relative path",
        &[(
            "/linux/devices",
            r#"[{"path":"x","type":"c","major":1,"minor":3}]"#,
        )],
    ),
    run(
        "a file in the place of a device",
        &[(
            "/linux/devices",
            r#"[{"path":"/etc/passwd","type":"c","major":1,"minor":3}]"#,
        )],
    ),
    run(
        "an unknown scheduler",
        &[("/process/scheduler", r#"{"policy":"FIFO"}"#)],
    ),
    run(
        "an unknown I/O class",
        &[(
            "/process/ioPriority",
            r#"{"class":"IOPRIO_CLASS_X","priority":1}"#,
        )],
    ),
    run(
        "an unknown personality",
        &[("/linux/personality", r#"{"domain":"BSD"}"#)],
    ),
    run(
        "an unknown memory policy",
        &[("/linux/memoryPolicy", r#"{"mode":"MPOL_X"}"#)],
    ),
    only(
        run(
            "CPUs that are not there",
            &[("/linux/resources/cpu", r#"{"cpus":"4000"}"#)],
        ),
        cgroup_v1,
    ),
    only(
        run(
            "resources of version 2 on version 1",
            &[("/linux/resources/unified", r#"{"memory.max":"1"}"#)],
        ),
        cgroup_v1,
    ),
    run(
        "a cgroup outside of all",
        &[("/linux/cgroupsPath", r#""/../../x""#)],
    ),
    // Seccomp.
    run(
        "an unknown seccomp action",
        &[("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#)],
    ),
    run(
        "an agent without a socket",
        &[(
            "/linux/seccomp",
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        )],
    ),
    run(
        "an agent that is not there",
        &[(
            "/linux/seccomp",
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/no/such","syscalls":[{"names":["chmod"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        )],
    ),
    run(
        "a missing program under a filter",
        &[
            ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#),
            ("/process/args", r#"["/odd/no-interpreter"]"#),
        ],
    ),
    // Hooks.
    run(
        "a hook that fails",
        &[(
            "/hooks",
            r#"{"createRuntime":[{"path":"/bin/true"},{"path":"/bin/sh","args":["sh","-c","echo out; echo err >&2; exit 3"]}]}"#,
        )],
    ),
    run(
        "a hook that is not there",
        &[("/hooks", r#"{"createRuntime":[{"path":"/no/such/hook"}]}"#)],
    ),
    run(
        "a hook inside that fails",
        &[("/hooks", r#"{"createContainer":[{"path":"/bin/false"}]}"#)],
    ),
    run(
        "a hook before the program that fails",
        &[("/hooks", r#"{"startContainer":[{"path":"/bin/false"}]}"#)],
    ),
    run(
        "a hook before the program that is not there",
        &[("/hooks", r#"{"startContainer":[{"path":"/no/such/hook"}]}"#)],
    ),
    run(
        "a hook that takes too long",
        &[(
            "/hooks",
            r#"{"prestart":[{"path":"/bin/sleep","args":["sleep","100"],"timeout":1}]}"#,
        )],
    ),
    run(
        "a hook with a relative path",
        &[("/hooks", r#"{"poststop":[{"path":"hook"}]}"#)],
    ),
];
