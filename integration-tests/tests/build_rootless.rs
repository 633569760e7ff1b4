//! Builds of an ordinary user: with subordinate ids all is as root's, with one id all that can be; where there is no
//! isolation it is said why.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use teu_integration_tests::{Outcome, Scene, binary, is_root, missing_command, skip_unless};

/// An id that nobody has.
const USER: u32 = 47_117;

/// Ids of the host that are lent to that user.
const LENT: &str = "47117:900000:65536\n";

/// Owners, opaque directories, deletions, links, attributes and modes: what differs where ids are few.
const DOCKERFILE: &str = "FROM base AS one
RUN [ $(stat -c %u:%g /owned/f) = 1000:1000 ] && mkdir /d && touch /d/x && chown 33:34 /d/x && chown 5 /owned/f && ln -s x /d/l && chown -h 7:8 /d/l
RUN rm -rf /gone && mkdir /gone && echo new > /gone/new && rm /bin/ps && chmod 4755 /owned/g
USER app
RUN id -u > /tmp/who && mkdir /tmp/mine
FROM one
USER root
COPY --from=one /owned /copied
COPY --chown=12:13 a.txt /
RUN --mount=type=cache,target=/c,uid=9 touch /c/f && chown 10 /c/f && cp -a /d /e
RUN --mount=type=bind,target=/c,rw ls /c > /seen && ! ls /c/secret && touch /c/sub/new && ls -A /c/sub >> /seen
";

/// The same without anybody but root.
const OF_ROOT: &str = "FROM base AS one
RUN mkdir /d && touch /d/x && rm /bin/ps && rm -rf /gone && mkdir /gone && touch /gone/y && echo more >> /owned/f && chmod 4755 /owned/g
FROM base
COPY --from=one /owned /copied
COPY --from=one /d /d
COPY --chown=12:13 a.txt /
RUN touch /copied/new
RUN --mount=type=bind,target=/c,rw ls /c > /seen && ! ls /c/secret && touch /c/sub/new && ls -A /c/sub >> /seen
";

/// A scene with the user's home, a base and the context; `false` where there can be none.
fn prepare(scene: &Scene) -> bool {
    if !is_root() || missing_command("setpriv") || missing_command("newuidmap") {
        return false;
    }
    let folder = scene.path("");
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["teu-build", "teu-store", "teu-runtime"] {
        std::fs::copy(binary(program), folder.join(program)).unwrap();
    }
    let rootfs = scene.rootfs("base").display().to_string();
    scene.shell(&format!(
        "cd {rootfs} && mkdir owned gone && echo f > owned/f && echo g > owned/g && ln owned/g owned/hard && echo old > gone/old
        setfattr -n user.mine -v v owned/g && chown -R 1000:1000 owned && chmod 2755 owned
        tar --xattrs --xattrs-include='*' --format=pax --numeric-owner -cf ../base.tar . && cd ..
        mkdir home context && echo a > context/a.txt && chown {USER}:{USER} home
        cp /etc/passwd passwd && echo me:x:{USER}:{USER}::/:/bin/sh >> passwd && : > none"
    ));
    scene.write("lent", LENT);
    scene.shell("mkdir context/sub && echo s | tee context/secret > context/sub/secret && echo '**/secret' > context/.dockerignore");
    scene.write("context/Dockerfile", DOCKERFILE);
    scene.write("context/OfRoot", OF_ROOT);
    let namespaces = "unshare -Ur true";
    user_with(scene, "none", namespaces).code() == 0
}

/// Runs a script as the user, in its home, where `lent` says which ids are lent; our programs are in `PATH`.
fn user_with(scene: &Scene, lent: &str, script: &str) -> Outcome {
    let here = scene.path("").display().to_string();
    scene.write(
        "script",
        format!("set -eu\ncd {here}home\nexport HOME={here}home PATH={here}:$PATH\nunset XDG_DATA_HOME XDG_RUNTIME_DIR || :\n{script}\n"),
    );
    // In a mount namespace of its own: the host's lists are another test's.
    let script = format!(
        "mount --bind {lent} /etc/subuid && mount --bind {lent} /etc/subgid && mount --bind passwd /etc/passwd &&
        exec setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all sh script"
    );
    scene.run("unshare", ["-m", "sh", "-ec", &script])
}

fn of_root(scene: &Scene, file: &str) -> String {
    scene
        .run("teu-store", ["import", "-q", "base.tar", "base"])
        .succeeds();
    let file = format!("context/{file}");
    let build = ["build", "-q", "-f", &file, "context"];
    scene.run("teu-build", build).succeeds().trim().to_owned()
}

#[test]
fn with_subordinate_ids_all_is_as_roots() {
    let scene = Scene::new("lent ids");
    skip_unless!(
        scene,
        prepare(&scene),
        "needs root, setpriv, newuidmap and user namespaces"
    );
    let expected = of_root(&scene, "Dockerfile");
    let user = |script: &str| user_with(&scene, "lent", script);
    user("teu-store import -q ../base.tar base").succeeds();
    let build = user("teu-build -t made --progress plain ../context").exits(0);
    assert_eq!(build.stdout.trim(), expected);
    let said = "isolation: user namespace with subordinate ids";
    assert!(build.stderr.contains(said), "{}", build.stderr);
    assert!(
        user("teu-build --progress plain ../context")
            .exits(0)
            .stderr
            .contains("#6 CACHED")
    );
    // Outside of the namespace the same store serves the user, who cannot read all of what the build has unpacked.
    user("teu-store export -q --format oci-archive -o out.tar made && teu-store verify -q && teu-store unpack made bundle && teu-store gc").succeeds();
    let records =
        user("teu-build mounts ls --format json && teu-build prune && teu-build df --format json");
    assert!(records.succeeds().replace(' ', "").contains("\"uid\":9"));
    // Of what belonged to subordinate ids nothing is left; the image is.
    user("teu-store rmi made base && teu-build prune").succeeds();
    let strangers = scene.shell(&format!("find home ! -uid {USER} | head -n 3"));
    assert_eq!(strangers, "");
    user("teu-store gc").succeeds();
}

#[test]
fn with_one_id_all_is_as_roots_that_belongs_to_root() {
    let scene = Scene::new("one id");
    skip_unless!(
        scene,
        prepare(&scene),
        "needs root, setpriv, newuidmap and user namespaces"
    );
    let expected = of_root(&scene, "OfRoot");
    let user = |script: &str| user_with(&scene, "none", script);
    user("teu-store import -q ../base.tar base").succeeds();
    let build = user("teu-build --progress plain -f ../context/OfRoot ../context").exits(0);
    assert_eq!(build.stdout.trim(), expected);
    let said = "isolation: user namespace with one id";
    assert!(build.stderr.contains(said), "{}", build.stderr);
    let help = "help: steps have one id here";
    user("printf 'FROM base\\nRUN chown 5 /owned/f\\n' | teu-build -q -")
        .fails(1, &["exit status 1", help]);
    user("printf 'FROM base\\nUSER app\\nRUN true\\n' | teu-build -q -").fails(1, &[help]);
    let strangers = scene.shell(&format!("find home ! -uid {USER} | head -n 3"));
    assert_eq!(strangers, "");
}

#[test]
fn a_killed_build_of_a_user_is_put_away() {
    let scene = Scene::new("killed user");
    skip_unless!(
        scene,
        prepare(&scene),
        "needs root, setpriv, newuidmap and user namespaces"
    );
    let user = |script: &str| user_with(&scene, "lent", script);
    // A number of its own: what another run of this test left is not ours.
    let sleep = format!("sleep {}", 100_000 + std::process::id());
    // The step's process belongs to a subordinate id, which no other namespace of the user has power over.
    scene.write(
        "context/Dockerfile",
        format!("FROM base\nRUN mkdir /x && chown app /x\nUSER app\nRUN touch /x/y && {sleep}\n"),
    );
    user("teu-store import -q ../base.tar base").succeeds();
    let runs = || scene.shell(&format!("pgrep -f '^{sleep}' || true"));
    for (signal, code) in [("TERM", 143), ("KILL", 137)] {
        let script = format!(
            "teu-build -q ../context & pid=$!; until pgrep -f '^{sleep}' > /dev/null; do sleep 0.05; done; kill -{signal} $pid; wait $pid"
        );
        // What a shell starts in the background would ignore the signal.
        let script = format!(
            "env --default-signal bash -c '{}'",
            script.replace('\'', "'\\''")
        );
        let _ = user(&script).exits(code);
        if signal == "TERM" {
            assert_eq!(runs(), "");
        }
    }
    scene.write("context/Dockerfile", "FROM base\nRUN true\n");
    user("teu-build -q ../context && teu-store gc && teu-build prune").succeeds();
    assert_eq!(runs(), "");
    let left = scene
        .shell("cd home/.local/share/teu/store && ls -A tmp roots | grep -v : | grep . || true");
    assert_eq!(left, "");
}

#[test]
fn the_doctor_says_what_is_missing() {
    let scene = Scene::new("doctor");
    skip_unless!(
        scene,
        prepare(&scene),
        "needs root, setpriv, newuidmap and user namespaces"
    );
    let doctor = |lent: &str, before: &str| -> (i32, Value) {
        let outcome = user_with(
            &scene,
            lent,
            &format!("{before} teu-build doctor --format json"),
        );
        let report = serde_json::from_str(&outcome.stdout);
        (
            outcome.code(),
            report.unwrap_or_else(|_| panic!("{outcome:?}")),
        )
    };
    let advice = |report: &Value, name: &str| -> String {
        let checks = report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        format!("{} {}", check["detail"], check["advice"])
    };
    let lent = "user namespace with subordinate ids";
    let (code, report) = doctor("lent", "");
    assert_eq!(
        (code, report["isolation"].as_str()),
        (0, Some("subordinate-ids")),
        "{report}"
    );
    let (code, report) = doctor("none", "");
    assert_eq!(
        (code, report["isolation"].as_str()),
        (0, Some("one-id")),
        "{report}"
    );
    assert!(
        advice(&report, lent).contains("/etc/subuid lends none to user 47117"),
        "{report}"
    );
    // A process that gets no new privileges cannot have newuidmap's.
    let (_, report) = doctor("lent", "setpriv --no-new-privs");
    assert!(advice(&report, lent).contains("no_new_privs"), "{report}");
    assert_eq!(report["isolation"], "one-id");
    // Root of a namespace in which there may be no others, and who may not mount.
    let limited = "unshare -Ur sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-sys_admin --inh-caps=-all \"$@\"' -";
    let (code, report) = doctor("lent", limited);
    assert_eq!((code, &report["isolation"]), (1, &Value::Null), "{report}");
    let why = advice(&report, "user namespace with one id");
    assert!(why.contains("user.max_user_namespaces is 0"), "{why}");
    user_with(&scene, "lent", &format!("{limited} teu-build ../context")).fails(
        1,
        &[
            "steps cannot be kept apart from the host",
            "teu-build doctor",
            "max_user_namespaces",
        ],
    );
}

#[test]
fn a_container_without_privileges_says_so() {
    let scene = Scene::new("doctor in a container");
    skip_unless!(
        scene,
        prepare(&scene),
        "needs root, setpriv, newuidmap and user namespaces"
    );
    // docker's default seccomp profile and capabilities.
    scene.write(
        "Dockerfile",
        "FROM base\nRUN --mount=type=bind,target=/teu /teu/teu-build --root /tmp/s doctor > /report; [ $? = 1 ] && /teu/teu-build --root /tmp/s /teu/context 2> /said; [ $? = 1 ]\n",
    );
    scene
        .run("teu-store", ["import", "-q", "base.tar", "base"])
        .succeeds();
    scene
        .run("teu-build", ["build", "-q", "-o", "out", "."])
        .succeeds();
    let report = std::fs::read_to_string(scene.path("out/report")).unwrap();
    for part in ["isolation: none", "a seccomp filter is set"] {
        assert!(report.contains(part), "{part:?} in {report}");
    }
    let said = std::fs::read_to_string(scene.path("out/said")).unwrap();
    assert!(said.contains("seccomp"), "{said}");
}

#[test]
fn where_proc_is_masked_steps_share_it() {
    let scene = Scene::new("masked proc");
    skip_unless!(
        scene,
        prepare(&scene),
        "needs root, setpriv, newuidmap and user namespaces"
    );
    user_with(&scene, "none", "teu-store import -q ../base.tar base").succeeds();
    scene.write(
        "context/Dockerfile",
        "FROM base\nRUN echo $$ > /pid && head -c 3 /proc/self/status && cat /proc/self/attr/none 2>/dev/null; [ -r /proc/uptime ]\n",
    );
    // As container engines do it; without this the step has its own.
    for (mask, shares) in [
        ("mount --bind /dev/null /proc/interrupts", true),
        (":", false),
    ] {
        let script = format!(
            "{mask} && mount --bind passwd /etc/passwd && mount --bind none /etc/subuid &&
            exec setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all sh script"
        );
        let here = scene.path("").display().to_string();
        scene.write(
            "script",
            format!("cd {here}home; export HOME={here}home PATH={here}:$PATH; unset XDG_DATA_HOME; teu-build --no-cache --progress plain ../context\n"),
        );
        let outcome = scene.run("unshare", ["-m", "sh", "-ec", &script]).exits(0);
        let said = outcome
            .stderr
            .contains("steps see the processes around the build");
        assert_eq!(said, shares, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("Nam"), "{}", outcome.stderr);
    }
}
