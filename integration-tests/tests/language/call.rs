//! `--call` and `--check`: answers instead of builds; warnings after them.

use crate::{build, standard_context};
use serde_json::Value;
use teu_integration_tests::Scene;

const DOCKERFILE: &str = "\
# base what all start from
FROM scratch AS base
# VERSION of what is built
ARG VERSION=1
RUN --mount=type=secret,id=token,required --mount=type=ssh x
FROM base as final
COPY a.txt /
";

fn scene() -> Scene {
    let scene = Scene::new("call");
    standard_context(&scene);
    scene.write("context/Dockerfile", DOCKERFILE);
    scene
}

fn ask(scene: &Scene, arguments: &[&str], code: i32) -> String {
    let mut all = vec!["build"];
    all.extend(arguments);
    all.push("context");
    scene.run("teu-build", all).exits(code).stdout
}

#[test]
fn check() {
    let scene = scene();
    let text = ask(&scene, &["--check"], 1);
    let wanted = "Check complete, 1 warning has been found!\n\nWARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n";
    assert!(text.starts_with(wanted), "{text}");
    let excerpt = "context/Dockerfile:6\n--------------------\n   4 |     ARG VERSION=1\n   5 |     RUN --mount=type=secret,id=token,required --mount=type=ssh x\n   6 | >>> FROM base as final\n   7 |     COPY a.txt /\n   8 |     \n--------------------\n";
    assert!(text.ends_with(excerpt), "{text}");
    let value: Value =
        serde_json::from_str(&ask(&scene, &["--call", "check,format=json"], 1)).unwrap();
    let warning = &value["warnings"][0];
    assert_eq!(warning["ruleName"], "FromAsCasing");
    assert_eq!(warning["location"]["ranges"][0]["start"]["line"], 6);
    assert_eq!(value["sources"][0]["filename"], "context/Dockerfile");
    scene.write("context/Dockerfile", "FROM scratch\n");
    assert_eq!(
        ask(&scene, &["--check"], 0),
        "Check complete, no warnings found.\n"
    );
    scene.write("context/Dockerfile", "FROM scratch\nCOPY --from=9 a b\n");
    let text = ask(&scene, &["--check"], 1);
    assert!(
        text.contains("ERROR: there is no stage `9`") && text.contains("   2 | >>> COPY"),
        "{text}"
    );
    // Nothing was built.
    assert_eq!(
        scene.shell("ls data/store/tars/sha256 2>/dev/null | wc -l"),
        "0"
    );
}

#[test]
fn what_was_meant_is_told_before_what_is_wrong() {
    let scene = scene();
    scene.write("context/Dockerfile", "FROM scratch AS Cased\nFETCH x\n");
    let value: Value =
        serde_json::from_str(&ask(&scene, &["--call", "check,format=json"], 1)).unwrap();
    assert_eq!(value["warnings"][0]["ruleName"], "StageNameCasing");
    let error = &value["buildError"];
    assert_eq!(error["location"]["ranges"][0]["start"]["line"], 2);
    // A build tells of both, too.
    for (text, said) in [
        (
            "FROM scratch AS Cased\nMAINTAINER me\nFETCH x\n",
            [
                "warning: StageNameCasing",
                "warning: MaintainerDeprecated",
                "2 warnings found",
                "unknown instruction `FETCH`",
            ],
        ),
        (
            "FROM --platform=$BULIDPLATFORM scratch\n",
            [
                "warning: UndefinedArgInFrom",
                "did you mean `$BUILDPLATFORM`?",
                "`` is no platform",
                "did you mean `BUILDPLATFORM`?",
            ],
        ),
    ] {
        scene.write("context/Dockerfile", text);
        let _ = scene
            .run("teu-build", ["build", "--progress", "plain", "context"])
            .fails(1, &said);
    }
}

/// Of what stands before the first FROM an outline tells what the target needs.
#[test]
fn outline_of_arguments_outside_of_stages() {
    let scene = scene();
    scene.write(
        "context/Dockerfile",
        "ARG END=tch OTHER=no\nARG UNUSED=$OTHER\n# BASE what all start from\nARG BASE=\"scra${END}\"\nARG LEVEL=3 SHARED=1\n\
         FROM $UNUSED AS unused\nFROM $BASE AS used\nARG LEVEL\nARG SHARED=2\nFROM used AS target\nARG OWN\nFROM unused\n",
    );
    let asked = ["--call=outline,format=json", "--target=target"];
    let outline: Value = serde_json::from_str(&ask(&scene, &asked, 0)).unwrap();
    let told: Vec<String> = outline["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|known| {
            let line = &known["location"]["ranges"][0]["start"]["line"];
            format!(
                "{line} {} {} {}",
                known["name"], known["value"], known["description"]
            )
        })
        .collect();
    let wanted = [
        r#"1 "END" "tch" null"#,
        r#"4 "BASE" "scratch" "what all start from""#,
        r#"5 "LEVEL" "3" null"#,
        r#"9 "SHARED" "2" null"#,
        r#"11 "OWN" null null"#,
    ];
    assert_eq!(told, wanted);
}

#[test]
fn outline_and_targets() {
    let scene = scene();
    let wanted = "TARGET: final\n\nBUILD ARG   VALUE   DESCRIPTION\nVERSION     1       of what is built\n\nSECRET   REQUIRED\ntoken    true\n\nSSH       REQUIRED\ndefault   \n\n";
    assert_eq!(ask(&scene, &["--call", "outline"], 0), wanted);
    let outline: Value =
        serde_json::from_str(&ask(&scene, &["--call=outline,format=json"], 0)).unwrap();
    assert_eq!(outline["args"][0]["description"], "of what is built");
    assert_eq!(outline["secrets"][0]["required"], true);
    let wanted = "TARGET            DESCRIPTION\nbase              what all start from\nfinal (default)   \n";
    assert_eq!(ask(&scene, &["--call", "targets"], 0), wanted);
    let targets: Value =
        serde_json::from_str(&ask(&scene, &["--call=targets,format=json"], 0)).unwrap();
    assert_eq!(targets["targets"][1]["default"], true);
    let _ = scene
        .run("teu-build", ["build", "--call", "guess", "context"])
        .fails(1, &["check, outline"]);
}

#[test]
fn warnings_are_shown_after_a_build_with_their_lines() {
    let scene = scene();
    let dockerfile =
        "FROM scratch AS base\nENV COLOUR=red\nFROM base as final\nWORKDIR /$COLOR\nCOPY a.txt /\n";
    let outcome = build(&scene, dockerfile, &["--progress", "plain"]).exits(0);
    assert!(outcome.stderr.is_empty(), "quiet is quiet: {outcome}");
    let outcome = scene
        .run("teu-build", ["build", "--progress", "plain", "context"])
        .exits(0);
    for part in [
        "warning: FromAsCasing",
        "3 | FROM base as final",
        "^^",
        "nothing sets `$COLOR`",
        "did you mean `$COLOUR`?",
        "2 warnings found",
    ] {
        assert!(
            outcome.stderr.contains(part),
            "{part:?} is not in {outcome}"
        );
    }
}
