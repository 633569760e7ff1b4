use crate::dockerfile;
use crate::pattern::ignore::Rules;
use crate::plan::{self, Checked, Image, Images, Options};
use teu_store::image::{ImageConfig, Platform};

#[derive(Default)]
struct Bases;

impl Images for Bases {
    fn image(
        &mut self,
        name: &str,
        platform: &Platform,
    ) -> Result<Image, Box<dyn std::error::Error + Send + Sync>> {
        let mut config = ImageConfig {
            architecture: if name == "foreign" { "arm64" } else { "amd64" }.into(),
            os: "linux".into(),
            ..ImageConfig::default()
        };
        config.config.env = vec!["FROM_BASE=1".into()];
        Ok(Image {
            name: name.to_owned(),
            platform: platform.clone(),
            layers: Vec::new(),
            config,
        })
    }
}

fn checked(source: &str, build_args: &[(&str, &str)]) -> Checked {
    let options = Options {
        platform: "linux/amd64".parse::<Platform>().unwrap(),
        build_args: build_args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ignore: Rules::parse("ignored\n").unwrap(),
        ..Options::default()
    };
    plan::check(&dockerfile::parse(source).unwrap(), &options, &mut Bases)
}

/// Each violation as `Rule:line:marked`.
fn found(source: &str) -> Vec<String> {
    let checked = checked(source, &[]);
    assert_eq!(checked.error, None, "{source}");
    checked
        .warnings
        .iter()
        .map(|warning| {
            let line = source[..warning.statement.start].matches('\n').count() + 1;
            format!(
                "{}:{line}:{}",
                warning.rule.name,
                &source[warning.span.clone()]
            )
        })
        .collect()
}

/// A Dockerfile for each rule, and one that is nearly the same and right.
const ROWS: [(&str, &[&str], &str); 22] = [
    (
        "FROM scratch AS Base\n",
        &["StageNameCasing:1:Base"],
        "FROM scratch AS base\n",
    ),
    (
        "FROM scratch as base\n",
        &["FromAsCasing:1:as"],
        "from scratch as base\n",
    ),
    (
        "FROM base\nRUN a \\\n\n  b\n",
        &["NoEmptyContinuation:4:  b"],
        "FROM base\nRUN a \\\n# note\n  b\n",
    ),
    (
        "FROM base\nworkdir /x\nRUN y\n",
        &["ConsistentInstructionCasing:2:workdir"],
        "from base\nworkdir /x\n",
    ),
    (
        "FROM base AS a\nFROM base AS a\n",
        &["DuplicateStageName:2:a"],
        "FROM base AS a\nFROM base AS b\n",
    ),
    (
        "FROM base AS scratch\n",
        &["ReservedStageName:1:scratch"],
        "FROM base AS scratched\n",
    ),
    (
        "FROM base\nCMD x y\n",
        &["JSONArgsRecommended:2:CMD x y"],
        "FROM base\nSHELL [\"/bin/sh\", \"-c\"]\nCMD x y\n",
    ),
    (
        "FROM base\nMAINTAINER me\n",
        &["MaintainerDeprecated:2:MAINTAINER me"],
        "FROM base\nLABEL maintainer=me\n",
    ),
    (
        "FROM base:$TAGG\n",
        &[
            "UndefinedArgInFrom:1:base:$TAGG",
            "InvalidDefaultArgInFrom:1:base:$TAGG",
        ],
        "ARG TAGG=1\nFROM base:$TAGG\n",
    ),
    (
        "FROM base\nWORKDIR x\nWORKDIR y\n",
        &["WorkdirRelativePath:2:x"],
        "FROM base\nWORKDIR /x\nWORKDIR y\n",
    ),
    (
        "FROM base\nCOPY a$X /b\n",
        &["UndefinedVar:2:a$X"],
        "FROM base\nARG X\nCOPY a$X ${Y:-b} ${FROM_BASE} /b\n",
    ),
    (
        "FROM base\nCMD [\"a\"]\nCMD [\"b\"]\n",
        &["MultipleInstructionsDisallowed:2:CMD [\"a\"]"],
        "FROM base AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n",
    ),
    (
        "FROM base\nENV a b\n",
        &["LegacyKeyValueFormat:2:a"],
        "FROM base\nENV a=b\n",
    ),
    (
        "FROM foreign\n",
        &["InvalidBaseImagePlatform:1:foreign"],
        "FROM base\n",
    ),
    (
        "FROM --platform=$TARGETPLATFORM base\n",
        &["RedundantTargetPlatform:1:--platform=$TARGETPLATFORM"],
        "FROM --platform=$BUILDPLATFORM base\n",
    ),
    (
        "FROM base\nENV DB_PASSWORD=x\nARG git_key\n",
        &[
            "SecretsUsedInArgOrEnv:2:DB_PASSWORD",
            "SecretsUsedInArgOrEnv:3:git_key",
        ],
        "FROM base\nENV PUBLIC_KEY=x TOKENS=y PASSWORD_FILE=z\n",
    ),
    (
        "ARG TAG\nFROM base:$TAG\n",
        &["InvalidDefaultArgInFrom:2:base:$TAG"],
        "ARG TAG\nFROM base:${TAG:-1}\n",
    ),
    (
        "FROM --platform=linux/amd64 base\n",
        &["FromPlatformFlagConstDisallowed:1:--platform=linux/amd64"],
        "FROM --platform=linux/amd64 base AS base-amd64\n",
    ),
    (
        "# check=experimental=all\nFROM base\nCOPY ignored /\n",
        &["CopyIgnoredFile:3:ignored"],
        "FROM base\nCOPY ignored /\n",
    ),
    (
        "# check=experimental=InvalidDefinitionDescription\n\n# some words\nFROM base AS a\n",
        &["InvalidDefinitionDescription:4:FROM base AS a"],
        "# check=experimental=all\n\n# a some words\nFROM base AS a\n\n# words\n#\nARG x\n",
    ),
    (
        "FROM base\nEXPOSE 80/TCP\n",
        &["ExposeProtoCasing:2:80/TCP"],
        "FROM base\nEXPOSE 80/tcp\n",
    ),
    (
        "FROM base\nEXPOSE 127.0.0.1:80:80\n",
        &["ExposeInvalidFormat:2:127.0.0.1:80:80"],
        "FROM base\nEXPOSE 80-81\n",
    ),
];

#[test]
fn every_rule_finds_its_mistake_at_its_place_and_no_other() {
    let mut seen: Vec<&str> = Vec::new();
    for (wrong, violations, right) in ROWS {
        assert_eq!(found(wrong), violations, "{wrong}");
        assert_eq!(found(right), Vec::<String>::new(), "{right}");
        seen.extend(violations.iter().filter_map(|row| row.split(':').next()));
    }
    for rule in super::rules::ALL {
        assert!(seen.contains(&rule.name), "{} is not tried", rule.name);
    }
}

#[test]
fn names_of_variables_are_suggested() {
    let checked = checked("FROM base\nENV COLOUR=red\nWORKDIR /$COLOR\n", &[]);
    assert_eq!(
        checked.warnings[0].help.as_deref(),
        Some("did you mean `$COLOUR`?")
    );
}

#[test]
fn the_directive_and_its_build_argument() {
    let skipped =
        "# check=skip=FromAsCasing,ConsistentInstructionCasing\nFROM base as a\nworkdir /x\n";
    assert_eq!(found(skipped), Vec::<String>::new());
    let strict = "# check=error=true\nFROM base as a\n";
    let error = checked(strict, &[]).error.unwrap();
    assert_eq!(error.title, "lint violation found for rules: FromAsCasing");
    let off = checked(strict, &[("BUILDKIT_DOCKERFILE_CHECK", "skip=all")]);
    assert!(off.error.is_none() && off.warnings.is_empty());
    let bad = checked("# check=skp=all\nFROM base\n", &[]).error.unwrap();
    assert!(bad.title.contains("did you mean `skip`?"), "{bad}");
    assert_eq!(
        &"# check=skp=all\nFROM base\n"[bad.span.clone()],
        "# check=skp=all"
    );
}
