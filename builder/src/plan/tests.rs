use super::*;
use crate::dockerfile;
use crate::report::Problem;
use std::collections::HashMap;
use teu_store::image::RootFs;

#[derive(Default)]
struct Known(HashMap<String, ImageConfig>);

impl Images for Known {
    fn image(
        &mut self,
        name: &str,
        platform: &Platform,
    ) -> Result<Image, Box<dyn std::error::Error + Send + Sync>> {
        let mut config = self.0.get(name).cloned().ok_or("no such image")?;
        config.architecture.clone_from(&platform.architecture);
        Ok(Image {
            name: name.to_owned(),
            platform: platform.clone(),
            layers: Vec::new(),
            config,
        })
    }
}

fn options() -> Options {
    let platform = Platform {
        architecture: "amd64".into(),
        os: "linux".into(),
        variant: None,
        os_version: None,
        os_features: Vec::new(),
    };
    Options {
        build_platform: platform.clone(),
        platform,
        ..Options::default()
    }
}

fn base_image() -> ImageConfig {
    let mut config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs: RootFs::default(),
        ..ImageConfig::default()
    };
    config.config.env = vec!["PATH=/bin".into(), "BASE=1".into()];
    config.config.cmd = Some(vec!["sh".into()]);
    config
}

fn try_plan_with(source: &str, options: &Options) -> Result<Plan, Box<Problem>> {
    let mut known = Known::default();
    known.0.insert("base".into(), base_image());
    let mut trigger = base_image();
    trigger.config.on_build = vec!["COPY --from=tools /t /t".into(), "ENV FIRED=$BASE".into()];
    known.0.insert("onbuild".into(), trigger);
    plan(&dockerfile::parse(source)?, options, &mut known)
}

fn planned(source: &str) -> Plan {
    try_plan_with(source, &options()).unwrap_or_else(|problem| {
        panic!("{source}\n{}", problem.render("Dockerfile", source, false))
    })
}

fn copies(plan: &Plan) -> Vec<&Copy> {
    plan.steps
        .iter()
        .filter_map(|step| {
            if let Operation::Copy(copy) = &step.operation {
                Some(&**copy)
            } else {
                None
            }
        })
        .collect()
}

fn runs(plan: &Plan) -> Vec<&Run> {
    plan.steps
        .iter()
        .filter_map(|step| {
            if let Operation::Run(run) = &step.operation {
                Some(&**run)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn only_needed_stages_are_planned_and_steps_follow_what_they_need() {
    let plan = planned(
        "FROM base AS a\nRUN a\nFROM base AS unused\nRUN never\nFROM a AS b\nRUN b\nFROM scratch\nCOPY --from=b /x /x\nCOPY --from=0 /y /y\n",
    );
    let texts: Vec<_> = plan.steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "RUN a",
            "RUN b",
            "COPY --from=b /x /x",
            "COPY --from=0 /y /y"
        ]
    );
    assert_eq!(
        plan.steps.iter().map(Step::needs).collect::<Vec<_>>(),
        [vec![], vec![0], vec![1], vec![0, 2]]
    );
    assert_eq!(plan.steps[3].place, "stage-3 2/2");
    assert_eq!(plan.results[0].tree, Tree::Step(3));
}

#[test]
fn arguments_before_and_after_from() {
    let mut options = options();
    options.build_args = vec![
        ("V".into(), "2".into()),
        ("HTTP_PROXY".into(), "p".into()),
        ("NOBODY".into(), "x".into()),
    ];
    let source = "ARG V=1 NAME=base\nFROM $NAME\nARG V\nARG W=w$V\nARG TARGETARCH\nENV X=${W}-$TARGETARCH-$NAME\nRUN x\n";
    let plan = try_plan_with(source, &options).unwrap();
    let run = runs(&plan)[0];
    assert_eq!(
        run.env,
        [
            "PATH=/bin",
            "BASE=1",
            "V=2",
            "W=w2",
            "TARGETARCH=amd64",
            "X=w2-amd64-"
        ]
    );
    assert_eq!(run.proxies, ["HTTP_PROXY=p", "http_proxy=p"]);
    assert_eq!(
        plan.results[0].config.config.env,
        ["PATH=/bin", "BASE=1", "X=w2-amd64-"]
    );
    assert_eq!(
        plan.warnings,
        ["the build argument NOBODY is declared by no ARG that the build uses"]
    );
    let created_by = plan.results[0]
        .config
        .history
        .last()
        .unwrap()
        .created_by
        .as_deref()
        .unwrap();
    assert_eq!(
        created_by,
        "RUN |3 V=2 W=w2 TARGETARCH=amd64 /bin/sh -c x # buildkit"
    );
}

#[test]
fn metadata_becomes_configuration() {
    let plan = planned(concat!(
        "FROM base\nLABEL a=1 b=\"x y\"\nEXPOSE 80 1-2/udp\nVOLUME /d\nUSER u:g\nWORKDIR /w\nWORKDIR sub/../s\nSTOPSIGNAL SIGINT\n",
        "HEALTHCHECK --interval=5s --retries=2 CMD x\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT e\nONBUILD RUN z\nMAINTAINER m\n"
    ));
    let config = &plan.results[0].config.config;
    assert_eq!(config.labels["b"], "x y");
    assert_eq!(
        config.exposed_ports.keys().collect::<Vec<_>>(),
        ["1/udp", "2/udp", "80/tcp"]
    );
    assert_eq!(
        (config.user.as_str(), config.working_dir.as_str()),
        ("u:g", "/w/s")
    );
    assert_eq!(
        config.healthcheck.as_ref().unwrap().interval,
        Some(5_000_000_000)
    );
    assert_eq!(
        config.entrypoint.as_deref().unwrap(),
        ["/bin/bash", "-c", "e"]
    );
    assert_eq!(config.cmd, None, "the base's CMD was for another program");
    assert_eq!(config.on_build, ["RUN z"]);
    assert_eq!(plan.results[0].config.author.as_deref(), Some("m"));
    let layers = plan.results[0]
        .config
        .history
        .iter()
        .filter(|line| !line.empty_layer)
        .count();
    assert_eq!((layers, plan.steps.len()), (2, 2));
    let kept = planned("FROM base\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n");
    assert_eq!(kept.results[0].config.config.cmd.as_deref().unwrap(), ["c"]);
}

#[test]
fn scratch_starts_as_docker_has_it() {
    let plan = planned("FROM scratch\nCOPY a /\n");
    assert_eq!(
        plan.results[0].config.config.env,
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
    assert_eq!(plan.results[0].config.config.working_dir, "/");
    assert_eq!(plan.steps[0].parent, Tree::Empty);
}

#[test]
fn copy_paths_and_flags() {
    let plan = planned(
        "FROM base\nWORKDIR /w\nARG M=0640\nCOPY --chmod=$M --chown=a:b --link --exclude=*.o ../a b/ .\nCOPY --parents x/./y/*.c /z\nADD t.tar /t\nCOPY <<F <<'G' /h/\n$M\nF\n$M\nG\n",
    );
    let copies = copies(&plan);
    assert_eq!(copies[0].destination, "/w/");
    assert_eq!(
        copies[0].sources[0],
        CopySource::Path {
            path: "/a".into(),
            keep: None
        }
    );
    assert_eq!(copies[0].mode, Some(ModeChange::Octal(0o640)));
    assert_eq!(
        copies[1].sources[0],
        CopySource::Path {
            path: "/x".into(),
            keep: Some("y/*.c".into())
        }
    );
    assert!(copies[2].unpack && !copies[0].unpack);
    assert_eq!(
        copies[3].sources[0],
        CopySource::Inline {
            name: "F".into(),
            content: "0640\n".into()
        }
    );
    assert_eq!(
        copies[3].sources[1],
        CopySource::Inline {
            name: "G".into(),
            content: "$M\n".into()
        }
    );
}

#[test]
fn run_forms_and_mounts() {
    let plan = planned(concat!(
        "FROM base AS tools\nFROM base\nRUN <<E\nx\nE\nRUN <<E\n#!/bin/a\nE\nRUN cat <<-E >f\n\tx\n\tE\n",
        "RUN --mount=target=/c,rw --mount=type=cache,target=k,id=i,sharing=locked --mount=type=secret,id=s,env=S ",
        "--mount=type=tmpfs,target=/t,size=1m --mount=from=tools,source=a,target=/b --network=none [\"p\"]\n"
    ));
    let runs = runs(&plan);
    assert_eq!(runs[0].args, ["/bin/sh", "-c", "x\n"]);
    assert_eq!(runs[1].args, ["/bin/sh", "-c", "/dev/pipes/E"]);
    assert_eq!(runs[1].script, Some(("E".into(), "#!/bin/a\n".into())));
    assert_eq!(runs[2].args[2], "cat <<-E >f\nx\nE");
    assert_eq!(runs[3].network, Network::None);
    let mounts = &runs[3].mounts;
    assert!(matches!(
        &mounts[0].kind,
        MountKind::Bind {
            origin: Origin::Context,
            writable: true,
            ..
        }
    ));
    assert!(
        matches!(&mounts[1].kind, MountKind::Cache { id, sharing: Sharing::Locked, writable: true, .. } if id == "i")
    );
    assert_eq!(mounts[1].target, "/k");
    assert!(
        matches!(&mounts[2].kind, MountKind::Secret { env: Some(env), file: false, .. } if env == "S")
    );
    assert!(matches!(
        &mounts[3].kind,
        MountKind::Tmpfs {
            size: Some(1_048_576)
        }
    ));
    assert!(matches!(
        &mounts[4].kind,
        MountKind::Bind {
            origin: Origin::Tree(Tree::Image(0)),
            writable: false,
            ..
        }
    ));
}

#[test]
fn triggers_run_in_the_stage_that_is_based_on_the_image() {
    let plan = planned("FROM base AS tools\nRUN t\nFROM onbuild\nRUN $FIRED\n");
    assert_eq!(plan.steps[1].text, "COPY --from=tools /t /t");
    assert!(runs(&plan)[1].env.contains(&"FIRED=1".to_owned()));
    assert!(plan.results[0].config.config.on_build.is_empty());
}

#[test]
fn mistakes_show_their_place() {
    let table = [
        ("FROM nosuch\n", "nosuch", "no such image"),
        ("FROM $X\n", "$X", "no name"),
        ("RUN x\nFROM base\n", "RUN x", "before the first FROM"),
        ("FROM base\nCOPY --from=9 a b\n", "--from=9", "no stage"),
        (
            "FROM base\nCOPY --from=$X a b\n",
            "--from=$X",
            "not replaced",
        ),
        (
            "FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nCOPY --from=a x y\n",
            "--from=b",
            "circle",
        ),
        ("FROM base AS a\nCOPY --from=a x y\n", "--from=a", "circle"),
        ("FROM base\nRUN --security=zzz x\n", "--security=zzz", "zzz"),
        ("FROM base\nRUN --network=zzz x\n", "--network=zzz", "zzz"),
        (
            "FROM base\nRUN --mount=type=bind x\n",
            "--mount=type=bind",
            "target",
        ),
        (
            "FROM base\nRUN --mount=type=tmpfs,target=/t,id=x x\n",
            "--mount=type=tmpfs,target=/t,id=x",
            "no option `id`",
        ),
        ("FROM base\nENV A=${B:?gone}\n", "${B:?gone}", "gone"),
        ("FROM base\nCOPY --chmod=9 a b\n", "--chmod=9", "mode"),
        ("FROM base\nEXPOSE x\n", "x", "port"),
        ("FROM base\nSTOPSIGNAL SIGX\n", "SIGX", "signal"),
        (
            "FROM base\nHEALTHCHECK --interval=5 CMD x\n",
            "--interval=5",
            "duration",
        ),
        ("FROM onbuild\n", "onbuild", "trigger"),
    ];
    marks(&table);
}

#[test]
fn what_is_unsupported_is_said_at_its_place() {
    marks(&[
        (
            "FROM --platform=windows/amd64 base\n",
            "--platform=windows/amd64",
            "is no platform",
        ),
        (
            "FROM base\nRUN --device=a=b x\n",
            "--device=a=b",
            "unsupported",
        ),
    ]);
}

// security.md, B3: nothing beyond a sandbox without the word of who builds.
#[test]
fn entitlements_are_asked_for() {
    let table = [
        ("--security=insecure", Entitlement::SecurityInsecure),
        ("--network=host", Entitlement::NetworkHost),
    ];
    for (flag, entitlement) in table {
        let source = format!("FROM base\nRUN {flag} x\n");
        marks(&[(source.as_str(), flag, "not allowed")]);
        let options = Options {
            allow: vec![entitlement],
            ..options()
        };
        let plan = try_plan_with(&source, &options).unwrap();
        assert_eq!(runs(&plan)[0].insecure, flag == "--security=insecure");
    }
}

#[test]
fn sources_that_are_fetched() {
    let plan = planned(
        "FROM base\nADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 https://u:p@h/a.txt /x\nADD --keep-git-dir https://h/r.git#v1:d https://h/s.git?branch=b /y/\nADD local https://h/z /z/\n",
    );
    let copies = copies(&plan);
    assert_eq!(copies.len(), 4);
    assert!(copies[0].origin == Origin::Remote && !copies[0].unpack);
    assert!(
        matches!(&copies[0].sources[0], CopySource::Http(source) if source.url == "https://h/a.txt" && source.checksum.is_some())
    );
    assert!(
        matches!(&copies[1].sources[..], [CopySource::Git(one), CopySource::Git(two)] if one.keep_git_dir && two.reference.as_deref() == Some("refs/heads/b"))
    );
    assert_eq!(
        (copies[2].origin, copies[3].origin),
        (Origin::Context, Origin::Remote)
    );
    let shown = plan.results[0].config.history[0]
        .created_by
        .as_deref()
        .unwrap();
    assert_eq!(shown, "ADD https://h/a.txt /x # buildkit");
    marks(&[
        ("FROM base\nCOPY https://h/a /b\n", "https://h/a", "use ADD"),
        (
            "FROM base\nADD --checksum=sha256:00 a /b\n",
            "--checksum=sha256:00",
            "local",
        ),
        (
            "FROM base\nADD --checksum=x https://h/a /b\n",
            "--checksum=x",
            "no digest",
        ),
        (
            "FROM base\nADD https://h/a.git#-x /b\n",
            "https://h/a.git#-x",
            "no reference",
        ),
        (
            "FROM base\nADD --keep-git-dir a /b\n",
            "ADD --keep-git-dir a /b",
            "git repository",
        ),
    ]);
}

#[test]
fn named_contexts_take_the_place_of_images_and_stages() {
    let mut options = options();
    options.contexts = vec![
        ("base".into(), NamedContext::Files(0)),
        ("other".into(), NamedContext::Image("base".into())),
        ("made".into(), NamedContext::Files(1)),
    ];
    let source = "FROM docker.io/library/base:latest AS a\nRUN never AS made\nFROM other AS made\nRUN replaced\nFROM a\nCOPY --from=made /x /x\nCOPY --from=other /y /y\nRUN --mount=from=base,target=/b z\n";
    let plan = try_plan_with(source, &options).unwrap();
    let texts: Vec<_> = plan.steps.iter().map(|step| step.text.as_str()).collect();
    assert!(!texts.contains(&"RUN replaced"), "{texts:?}");
    let copies = copies(&plan);
    assert_eq!(copies[0].origin, Origin::Named(0));
    assert!(copies.iter().any(|copy| copy.origin == Origin::Named(1)));
    assert!(
        copies
            .iter()
            .any(|copy| copy.origin == Origin::Tree(Tree::Image(0)))
    );
    let mounts = &runs(&plan).last().unwrap().mounts;
    assert!(matches!(
        mounts[0].kind,
        MountKind::Bind {
            origin: Origin::Named(0),
            ..
        }
    ));
}

#[test]
fn histories_are_buildkits() {
    let plan = planned(concat!(
        "FROM base\nWORKDIR /w\nCOPY --chown=1:2 --chmod=755 a b <<X sub/\nx\nX\nHEALTHCHECK --interval=90s --retries=2 CMD x y\n",
        "ONBUILD RUN z\nEXPOSE 80/ 1-2/UDP\nCMD [\"a b\"]\n"
    ));
    let shown: Vec<_> = plan.results[0]
        .config
        .history
        .iter()
        .filter_map(|line| line.created_by.as_deref())
        .collect();
    assert_eq!(
        shown,
        [
            "WORKDIR /w",
            "COPY --chown=1:2 --chmod=755 a b <<X sub/ # buildkit",
            "HEALTHCHECK {Test:[CMD-SHELL x y] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:2}",
            "EXPOSE [1/udp 2/udp 80/tcp]",
            "CMD [\"a b\"]",
        ]
    );
}

#[test]
fn predefined_arguments_can_be_given() {
    let mut options = options();
    options.build_args = vec![
        ("TARGETARCH".into(), "riscv64".into()),
        ("BUILDKIT_SBOM_SCAN_STAGE".into(), "true".into()),
    ];
    let source = "FROM base AS last\nARG TARGETARCH TARGETSTAGE BUILDKIT_SBOM_SCAN_STAGE\nRUN x\n";
    let plan = try_plan_with(source, &options).unwrap();
    let env = &runs(&plan)[0].env;
    assert!(env.contains(&"TARGETARCH=riscv64".to_owned()));
    assert!(env.contains(&"TARGETSTAGE=last".to_owned()));
    assert!(!env.iter().any(|variable| variable.starts_with("BUILDKIT_")));
}

/// Each Dockerfile is refused, the words marked are the second of the row, and what is said holds the third.
fn marks(table: &[(&str, &str, &str)]) {
    for &(source, at, text) in table {
        let problem = try_plan_with(source, &options())
            .err()
            .unwrap_or_else(|| panic!("{source} was accepted"));
        assert_eq!(&source[problem.span.clone()], at, "{source}: {problem}");
        assert!(problem.to_string().contains(text), "{source}: {problem}");
    }
}

#[test]
fn targets_by_name_and_number() {
    let source = "FROM base AS a\nRUN a\nFROM base AS b\nRUN b\n";
    for (target, text) in [("a", "RUN a"), ("A", "RUN a"), ("1", "RUN b")] {
        let options = Options {
            target: Some(target.into()),
            ..options()
        };
        assert_eq!(try_plan_with(source, &options).unwrap().steps[0].text, text);
    }
    let options = Options {
        target: Some("c".into()),
        ..options()
    };
    assert!(try_plan_with(source, &options).is_err());
}

#[test]
fn plans_are_made_quickly() {
    let lines: String = (0..500)
        .map(|n| format!("ENV V{n}=$V\nRUN echo {n}\n"))
        .collect();
    let start = std::time::Instant::now();
    assert_eq!(planned(&format!("FROM base\n{lines}")).steps.len(), 500);
    assert!(
        start.elapsed().as_secs() < 5,
        "500 steps took {:?}",
        start.elapsed()
    );
    let doubled: String = (0..60).map(|_| "ARG A=x$A$A\n".to_owned()).collect();
    assert!(try_plan_with(&format!("FROM base\n{doubled}"), &options()).is_err());
}

#[test]
fn platforms_in_one_plan() {
    let source = "FROM --platform=$BUILDPLATFORM base AS tools\nARG TARGETARCH\nRUN make $TARGETARCH\nFROM base\nRUN native\nCOPY --from=tools /x /x\n";
    let file = dockerfile::parse(source).unwrap();
    let mut plans = ["linux/amd64", "linux/arm64"].map(|platform| {
        let mut known = Known::default();
        known.0.insert("base".into(), base_image());
        let options = Options {
            platform: platform.parse().unwrap(),
            ..options()
        };
        let mut plan = plan(&file, &options, &mut known).unwrap();
        plan.name_platform();
        Some(plan)
    });
    let mut joined = plans[0].take().unwrap();
    joined.join(plans[1].take().unwrap());
    assert_eq!(joined.results.len(), 2);
    assert_eq!(joined.results[1].config.architecture, "arm64");
    assert_eq!(joined.steps[5].needs(), [3, 4]);
    assert_eq!(joined.steps[4].place, "linux/arm64 tools 1/1");
    let emulated: Vec<bool> = runs(&joined)
        .iter()
        .map(|run| run.emulated.is_some())
        .collect();
    assert_eq!(emulated, [false, false, true, false]);
    let values = runs(&joined)[3].env.join(" ");
    assert!(values.contains("TARGETARCH=arm64"), "{values}");
}
