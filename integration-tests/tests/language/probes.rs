//! Each feature of the language, built: the Dockerfile itself checks what it got, and BuildKit's answer is the right one.

use crate::{build, standard_context};
use teu_integration_tests::Scene;

/// A feature, what comes after `FROM busybox`, and whether BuildKit builds it.
type Probe = (&'static str, &'static str, bool);

const COPIES: [Probe; 27] = [
    (
        "COPY --chmod octal",
        "COPY --chmod=640 a.txt /\nRUN [ $(stat -c %a /a.txt) = 640 ]",
        true,
    ),
    (
        "COPY --chmod=$ARG",
        "ARG M=600\nCOPY --chmod=$M a.txt /\nRUN [ $(stat -c %a /a.txt) = 600 ]",
        true,
    ),
    (
        "COPY --chmod symbolic",
        "COPY --chmod=u=rwX,go= a.txt /\nRUN [ $(stat -c %a /a.txt) = 600 ]",
        true,
    ),
    (
        "COPY --chown name:group",
        "COPY --chown=app:extra a.txt /\nRUN [ $(stat -c %u:%g /a.txt) = 1000:2000 ]",
        true,
    ),
    (
        "COPY --chown uid only -> gid",
        "COPY --chown=7 a.txt /\nRUN [ $(stat -c %u:%g /a.txt) = 7:7 ]",
        true,
    ),
    (
        "COPY --link",
        "COPY --link a.txt /l/\nRUN [ -f /l/a.txt ]",
        true,
    ),
    (
        "COPY --parents glob",
        "COPY --parents d/*.go /p/\nRUN [ -f /p/d/y.go ]",
        true,
    ),
    (
        "COPY --parents pivot /./",
        "COPY --parents d/./e/z.txt /p/\nRUN [ -f /p/e/z.txt -a ! -e /p/d ]",
        true,
    ),
    (
        "COPY --exclude",
        "COPY --exclude=*.go d /o\nRUN [ -f /o/x.txt -a ! -e /o/y.go ]",
        true,
    ),
    (
        "COPY --exclude x2 **",
        "COPY --exclude=**/*.go --exclude=x.txt d /o\nRUN [ -f /o/e/z.txt -a ! -e /o/e/w.go -a ! -e /o/x.txt ]",
        true,
    ),
    (
        "COPY --from=image",
        "COPY --from=busybox /bin/busybox /bb\nRUN [ -x /bb ]",
        true,
    ),
    (
        "COPY --from=stage index 0",
        "FROM scratch\nCOPY --from=0 /etc/passwd /",
        true,
    ),
    (
        "COPY --from=$ARG",
        "ARG F=busybox\nCOPY --from=$F /bin/busybox /bb",
        false,
    ),
    (
        "COPY heredoc",
        "COPY <<EOF /f\n$PATH\nEOF\nRUN [ \"$(cat /f)\" = \"$PATH\" ]",
        true,
    ),
    (
        "COPY heredoc quoted",
        "COPY <<'EOF' /f\n$PATH\nEOF\nRUN [ \"$(cat /f)\" = '$PATH' ]",
        true,
    ),
    (
        "COPY 2 heredocs + file",
        "COPY <<A <<B a.txt /h/\n1\nA\n2\nB\nRUN [ $(cat /h/A)$(cat /h/B)$(cat /h/a.txt) = 12a ]",
        true,
    ),
    (
        "COPY glob without a match",
        "COPY nosuch* /\nRUN true",
        true,
    ),
    (
        "ADD local tar unpack",
        "ADD t.tar t.tgz /o/\nRUN [ -f /o/m/f -a ! -e /o/t.tar ]",
        true,
    ),
    (
        "ADD --unpack=false",
        "ADD --unpack=false t.tar /o/\nRUN [ -f /o/t.tar ]",
        true,
    ),
    (
        "ADD --exclude",
        "ADD --exclude=*.go d /o\nRUN [ -f /o/x.txt -a ! -e /o/y.go ]",
        true,
    ),
    (
        "WORKDIR relative + created + USER owner",
        "USER app\nWORKDIR /w\nWORKDIR s\nRUN [ $(pwd) = /w/s -a $(stat -c %u .) = 1000 ]",
        true,
    ),
    (
        "HEALTHCHECK all flags",
        "HEALTHCHECK --interval=1s --timeout=1s --start-period=1s --start-interval=1s --retries=2 CMD true",
        true,
    ),
    (
        "STOPSIGNAL/SHELL/VOLUME/EXPOSE/USER/LABEL",
        "STOPSIGNAL 9\nSHELL [\"/bin/sh\", \"-ec\"]\nVOLUME /v\nEXPOSE 80\nUSER app\nLABEL a=b\nRUN [ $(id -u) = 1000 ]",
        true,
    ),
    (
        "ONBUILD trigger in other stage",
        "ONBUILD COPY a.txt /f\nFROM 0\n",
        false,
    ),
    ("FROM --after (buildah)", "FROM --after=x busybox", false),
    ("INCLUDE (buildah)", "INCLUDE x", false),
    (
        ".dockerignore negation **",
        "COPY . /o\nRUN [ ! -e /o/l/f -a -L /o/l/in ]",
        true,
    ),
];

const RUNS: [Probe; 43] = [
    (
        "RUN heredoc",
        "RUN <<EOF\ncd /tmp\ntouch x\nEOF\nRUN [ -f /tmp/x ]",
        true,
    ),
    (
        "RUN heredoc shebang",
        "RUN <<EOF\n#!/bin/busybox sh\necho $0 > /x\nEOF\nRUN [ $(cat /x) = /dev/pipes/EOF ]",
        true,
    ),
    (
        "RUN cmd <<EOF",
        "RUN cat <<EOF > /x\n1\n2\nEOF\nRUN [ $(wc -l < /x) = 2 ]",
        true,
    ),
    (
        "RUN heredoc <<-",
        "RUN <<-EOF\n\ttouch /x\n\tEOF\nRUN [ -f /x ]",
        true,
    ),
    (
        "RUN exec form",
        "RUN [\"/bin/touch\", \"/a b\"]\nRUN [ -f '/a b' ]",
        true,
    ),
    (
        "RUN --mount bind ctx",
        "RUN --mount=target=/c [ -f /c/a.txt ] && ! touch /c/x",
        true,
    ),
    (
        "RUN --mount bind relative target",
        "WORKDIR /w\nRUN --mount=target=c [ -f /w/c/a.txt ]",
        true,
    ),
    (
        "RUN --mount bind rw discarded",
        "RUN --mount=source=d,target=/c,rw touch /c/n\nRUN [ ! -e /c/n ]",
        true,
    ),
    (
        "RUN --mount bind from=stage,source",
        "FROM busybox AS s\nRUN mkdir /d && touch /d/f\nFROM busybox\nRUN --mount=from=s,source=/d,target=/m [ -f /m/f ]",
        true,
    ),
    (
        "RUN --mount bind from=image",
        "RUN --mount=from=busybox,source=/etc,target=/m [ -f /m/passwd ]",
        true,
    ),
    (
        "RUN --mount cache sharing=locked",
        "RUN --mount=type=cache,target=/c,sharing=locked touch /c/x",
        true,
    ),
    (
        "RUN --mount cache sharing=private",
        "RUN --mount=type=cache,target=/c,sharing=private touch /c/x",
        true,
    ),
    (
        "RUN --mount cache from=stage",
        "FROM busybox AS s\nRUN mkdir -p /d/e && echo q > /d/e/f && ln -s e /d/l && chown 5:6 /d/e && chmod 700 /d/e\nFROM busybox\nRUN --mount=type=cache,from=s,source=/d,target=/c [ $(cat /c/l/f)$(stat -c %a:%u:%g /c/e) = q700:5:6 ] && touch /c/new\nRUN --mount=type=cache,from=s,source=/d,target=/c,ro [ -f /c/new ]\nRUN --mount=from=s,source=/d,target=/c [ ! -e /c/new ]",
        true,
    ),
    (
        "RUN --mount cache ro",
        "RUN --mount=type=cache,target=/c,ro ! touch /c/x",
        true,
    ),
    (
        "RUN --mount cache persist",
        "RUN --mount=type=cache,target=/c,id=p1 touch /c/f\nRUN --mount=type=cache,target=/c2,id=p1 [ -f /c2/f ]",
        true,
    ),
    (
        "RUN --mount cache uid/gid/mode: another",
        "RUN --mount=type=cache,target=/c,id=p2,uid=3,gid=4,mode=0700 [ $(stat -c %a:%u:%g /c) = 700:3:4 ] && touch /c/f\nRUN --mount=type=cache,target=/c2,id=p2 [ -f /c2/f ]",
        false,
    ),
    (
        "RUN --mount target=$ARG",
        "ARG T=/t\nRUN --mount=type=tmpfs,target=$T touch /t/x",
        true,
    ),
    (
        "RUN --mount tmpfs",
        "RUN --mount=type=tmpfs,target=/t touch /t/x\nRUN [ ! -e /t/x ]",
        true,
    ),
    (
        "RUN --mount tmpfs size",
        "RUN --mount=type=tmpfs,target=/t,size=1m [ $(df -k /t | tail -1 | awk '{print $2}') = 1024 ]",
        true,
    ),
    (
        "RUN --mount secret default path",
        "RUN --mount=type=secret,id=k [ $(cat /run/secrets/k) = tell-nobody-$((7000+381)) ]",
        true,
    ),
    (
        "RUN --mount secret env=",
        "RUN --mount=type=secret,id=k,env=K [ $K = tell-nobody-$((7000+381)) -a ! -e /run/secrets/k ]",
        true,
    ),
    (
        "RUN --mount secret mode/uid",
        "RUN --mount=type=secret,id=k,target=/k,mode=0440,uid=33 [ $(stat -c %a:%u /k) = 440:33 ]",
        true,
    ),
    (
        "RUN --mount secret missing optional",
        "RUN --mount=type=secret,id=none [ ! -e /run/secrets/none ]",
        true,
    ),
    (
        "RUN --mount secret required",
        "RUN --mount=type=secret,id=none,required=true true",
        false,
    ),
    (
        "RUN --mount ssh required",
        "RUN --mount=type=ssh,id=none,required true",
        false,
    ),
    (
        "RUN --network=none",
        "RUN --network=none [ \"$(ls /sys/class/net)\" = lo ]",
        true,
    ),
    ("RUN --network=host", "RUN --network=host true", true),
    (
        "RUN --security=insecure",
        "RUN --security=insecure [ -w /proc/sys/kernel/hostname ] && [ $(grep CapEff /proc/self/status | cut -c8-) != 00000000a80425fb ]",
        true,
    ),
    (
        "RUN --security=sandbox",
        "RUN --security=sandbox ! (echo x > /proc/sys/kernel/hostname) 2> /dev/null",
        true,
    ),
    ("RUN --device (labs)", "RUN --device=vendor/x=y true", false),
    (
        "RUN --mount type=bind,z (buildah)",
        "RUN --mount=type=bind,target=/c,z true",
        false,
    ),
    (
        "RUN sees the size of /dev/shm",
        "RUN [ $(df -k /dev/shm | tail -1 | awk '{print $2}') = 2048 ]",
        true,
    ),
    (
        "add-host",
        "RUN grep -q '^10.1.2.3.*somehost' /etc/hosts && grep -q localhost /etc/hosts",
        true,
    ),
    ("ulimit", "RUN [ $(ulimit -n) = 99 ]", true),
    ("memory/cpu limit opts", "RUN true", true),
    (
        "ENV PATH stays",
        "ENV PATH=/bin\nRUN [ $PATH = /bin ]",
        true,
    ),
    (
        "subst in RUN flags and not in RUN",
        "ENV A=1\nRUN [ \"$(echo '$A')\" = '$A' -a $A = 1 ]",
        true,
    ),
    (
        "predefined proxy ARG not in history",
        "RUN [ $http_proxy = http://p.invalid ]",
        true,
    ),
    (
        "a proxy has both its names",
        "RUN [ $HTTP_PROXY = http://p.invalid ]",
        true,
    ),
    (
        "multiple ARG per line",
        "ARG A=1 B=2\nRUN [ $A$B = 12 ]",
        true,
    ),
    (
        "ARG TARGET*/BUILD* platform args",
        "ARG TARGETOS TARGETARCH TARGETPLATFORM BUILDPLATFORM BUILDOS BUILDARCH TARGETSTAGE\nRUN [ $TARGETPLATFORM = $TARGETOS/$TARGETARCH -a $BUILDPLATFORM = $BUILDOS/$BUILDARCH -a $TARGETSTAGE = default ]",
        true,
    ),
    (
        "VOLUME: later writes stay",
        "VOLUME /v\nRUN mkdir -p /v && touch /v/x\nRUN [ -f /v/x ]",
        true,
    ),
    ("RUN: a failing command fails", "RUN false", false),
];

const SUBSTITUTIONS: [Probe; 15] = [
    ("subst :-", "ENV r=${N:-w}\nRUN [ $r = w ]", true),
    ("subst -", "ENV E=\nENV r=x${E-w}\nRUN [ $r = x ]", true),
    ("subst :+", "ENV v=1\nENV r=${v:+w}\nRUN [ $r = w ]", true),
    ("subst +", "ENV E=\nENV r=${E+w}\nRUN [ $r = w ]", true),
    ("subst :? unset", "ENV r=${N:?missing}", false),
    ("subst ? unset", "ENV r=${N?missing}", false),
    (
        "subst #",
        "ENV v=a.b.c\nENV r=${v#*.}\nRUN [ $r = b.c ]",
        true,
    ),
    (
        "subst ##",
        "ENV v=a.b.c\nENV r=${v##*.}\nRUN [ $r = c ]",
        true,
    ),
    (
        "subst %",
        "ENV v=a.b.c\nENV r=${v%.*}\nRUN [ $r = a.b ]",
        true,
    ),
    (
        "subst %%",
        "ENV v=a.b.c\nENV r=${v%%.*}\nRUN [ $r = a ]",
        true,
    ),
    (
        "subst /",
        "ENV v=a/b/c\nENV r=${v/\\//-}\nRUN [ $r = a-b/c ]",
        true,
    ),
    (
        "subst //",
        "ENV v=aXbX\nENV r=${v//X/-}\nRUN [ $r = a-b- ]",
        true,
    ),
    (
        "subst nested",
        "ENV r=${N:-${M:-deep}}\nRUN [ $r = deep ]",
        true,
    ),
    (
        "subst in COPY",
        "ARG F=a\nCOPY $F.txt /${G:-g}\nRUN [ -f /g ]",
        true,
    ),
    ("subst escaped", "ENV r=\\$x\nRUN [ \"$r\" = '$x' ]", true),
];

/// Dockerfiles that begin in their own way.
const WHOLE: [Probe; 13] = [
    (
        "ARG before FROM",
        "ARG B=busybox\nFROM $B\nRUN true\n",
        true,
    ),
    (
        "FROM --platform=$BUILDPLATFORM",
        "FROM --platform=$BUILDPLATFORM busybox\nRUN true\n",
        true,
    ),
    (
        "stage from scratch only metadata",
        "FROM scratch\nENV A=1\n",
        true,
    ),
    (
        "unused stage skipped",
        "FROM nosuch/image AS no\nFROM busybox\nRUN true\n",
        true,
    ),
    (
        "# escape=`",
        "# escape=`\nFROM busybox\nRUN true && `\n true\nENV A=C:\\x\nRUN [ $A = 'C:\\x' ]\n",
        true,
    ),
    (
        "# syntax=docker/dockerfile:1",
        "# syntax=docker/dockerfile:1\nFROM busybox\nRUN true\n",
        true,
    ),
    (
        "# check=error=true",
        "# check=error=true\nFROM scratch\nMAINTAINER x\nCMD a\n",
        false,
    ),
    (
        "ONBUILD COPY --from (1.11)",
        "FROM busybox AS src\nRUN touch /s\nFROM busybox AS base\nONBUILD COPY --from=src /s /f\nFROM base\nRUN [ -f /f ]\n",
        true,
    ),
    (
        "ONBUILD trigger",
        "FROM busybox AS base\nONBUILD COPY a.txt /f\nFROM base\nRUN [ -f /f ]\n",
        true,
    ),
    (
        "stage name in any case",
        "FROM busybox AS Base\nFROM BASE\nRUN true\n",
        true,
    ),
    (
        "COPY --from a stage in any case",
        "FROM busybox AS Base\nFROM busybox\nCOPY --from=BASE /etc/passwd /p\n",
        true,
    ),
    (
        "comments in continuations",
        "FROM busybox\nRUN true \\\n# note\n   && true\n",
        true,
    ),
    ("empty file", "", false),
];

/// What all probes are built with.
const ARGUMENTS: [&str; 17] = [
    "--secret",
    "id=k,src=secret",
    "--allow",
    "network.host",
    "--allow",
    "security.insecure",
    "--shm-size",
    "2m",
    "--add-host",
    "somehost:10.1.2.3",
    "--ulimit",
    "nofile=99",
    "--memory=64m",
    "--cpu-shares=100",
    "--build-arg",
    "http_proxy=http://p.invalid",
    "--no-cache",
];

pub(crate) fn scene(name: &str) -> Scene {
    let scene = Scene::new(name);
    scene.busybox("busybox");
    standard_context(&scene);
    scene.write("secret", "tell-nobody-7381");
    scene.write("context/.dockerignore", "l\n!l/**/in\n");
    scene
}

fn probe(scene: &Scene, list: &[Probe], head: &str) {
    let mut wrong = Vec::new();
    for (name, text, builds) in list {
        let outcome = build(scene, &format!("{head}{text}\n"), &ARGUMENTS);
        assert!(!outcome.stderr.contains("panicked"), "{outcome}");
        if outcome.status.success() != *builds {
            wrong.push(format!("{name}: {outcome}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn copies_and_metadata() {
    probe(&scene("copies"), &COPIES, "FROM busybox\n");
}

#[test]
fn runs() {
    let scene = scene("runs");
    probe(&scene, &RUNS, "FROM busybox\n");
    let secret = scene.shell("grep -rl tell-nobody-7381 data || true");
    assert!(secret.is_empty(), "the secret is in {secret}");
}

#[test]
fn substitutions() {
    probe(&scene("substitutions"), &SUBSTITUTIONS, "FROM busybox\n");
}

#[test]
fn whole_files() {
    probe(&scene("whole files"), &WHOLE, "");
}

#[test]
fn a_machine_with_a_name() {
    let scene = scene("a name");
    let text = "FROM busybox\nRUN [ $(hostname) = host.name ] && grep -q '^127.0.0.1.*host.name$' /etc/hosts && grep -q localhost /etc/hosts\n";
    let name = |value: &str| format!("BUILDKIT_SANDBOX_HOSTNAME={value}");
    let _ = build(&scene, text, &["--build-arg", &name("host.name")]).exits(0);
    let _ = build(&scene, text, &["--build-arg", &name("other")]).fails(1, &["grep"]);
    let _ = build(&scene, text, &["--build-arg", &name("a b")]).fails(1, &["no name of a machine"]);
}

#[test]
fn one_stage_without_the_cache() {
    let scene = scene("no cache filter");
    let text = "FROM busybox AS One\nRUN cat /proc/sys/kernel/random/uuid > /1\nFROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /2\nCOPY --from=one /1 /\n";
    let made = |arguments: &[&str]| {
        let _ = build(&scene, text, arguments).exits(0);
        let files = crate::files(&scene);
        ["1=", "2="].map(|start| files.iter().find(|line| line.starts_with(start)).cloned())
    };
    let first = made(&[]);
    assert_eq!(made(&[]), first);
    let second = made(&["--no-cache-filter", "one"]);
    assert!(second[0] != first[0] && second[1] == first[1]);
    let third = made(&["--no-cache-filter", "x,stage-1"]);
    assert!(third[0] == second[0] && third[1] != first[1]);
}
