//! The rules by their names, which are BuildKit's: people skip them by these names.

/// A rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub description: &'static str,
    /// The last element of the address of its page, if it has one.
    page: Option<&'static str>,
    /// Only applied where asked for.
    pub experimental: bool,
}

impl Rule {
    const fn new(name: &'static str, page: &'static str, description: &'static str) -> Self {
        Self {
            name,
            description,
            page: Some(page),
            experimental: false,
        }
    }

    const fn experimental(self) -> Self {
        Self {
            experimental: true,
            ..self
        }
    }

    /// Where it is explained.
    pub fn url(&self) -> Option<String> {
        self.page
            .map(|page| format!("https://docs.docker.com/go/dockerfile/rule/{page}/"))
    }
}

/// `FROM x AS Name`.
pub static STAGE_NAME_CASING: Rule = Rule::new(
    "StageNameCasing",
    "stage-name-casing",
    "names of stages are lower case",
);
/// `FROM x as name`.
pub static FROM_AS_CASING: Rule = Rule::new(
    "FromAsCasing",
    "from-as-casing",
    "FROM and AS are written in the same case",
);
/// An empty line between a line's end and its continuation.
pub static NO_EMPTY_CONTINUATION: Rule = Rule::new(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "a continued line is followed by no empty one",
);
/// `FROM` and `run` in one file.
pub static CONSISTENT_INSTRUCTION_CASING: Rule = Rule::new(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "all instructions are written in upper case, or all in lower case",
);
/// Two stages of one name.
pub static DUPLICATE_STAGE_NAME: Rule = Rule::new(
    "DuplicateStageName",
    "duplicate-stage-name",
    "each stage has a name of its own",
);
/// A stage called `scratch` or `context`.
pub static RESERVED_STAGE_NAME: Rule = Rule::new(
    "ReservedStageName",
    "reserved-stage-name",
    "no stage has a name with a meaning of its own",
);
/// `CMD program` instead of `CMD ["program"]`.
pub static JSON_ARGS_RECOMMENDED: Rule = Rule::new(
    "JSONArgsRecommended",
    "json-args-recommended",
    "CMD and ENTRYPOINT are JSON arrays, so that the program and not a shell gets the signals",
);
/// `MAINTAINER`.
pub static MAINTAINER_DEPRECATED: Rule = Rule::new(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "an author is named by a label, not by MAINTAINER",
);
/// `FROM $X` without `ARG X`.
pub static UNDEFINED_ARG_IN_FROM: Rule = Rule::new(
    "UndefinedArgInFrom",
    "undefined-arg-in-from",
    "what FROM uses is declared by an ARG before the first FROM",
);
/// `WORKDIR x` before any `WORKDIR /y`.
pub static WORKDIR_RELATIVE_PATH: Rule = Rule::new(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "the first WORKDIR of a build is absolute: what the base image has may change",
);
/// `$x` that nothing sets.
pub static UNDEFINED_VAR: Rule = Rule::new(
    "UndefinedVar",
    "undefined-var",
    "variables are set before they are used",
);
/// Two CMD, ENTRYPOINT or HEALTHCHECK in one stage.
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = Rule::new(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "an instruction of which only the last counts stands once in a stage",
);
/// `ENV name value`.
pub static LEGACY_KEY_VALUE_FORMAT: Rule = Rule::new(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "ENV and LABEL have a = between name and value",
);
/// A base image of another platform than the one wanted.
pub static INVALID_BASE_IMAGE_PLATFORM: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    description: "a base image is of the platform that is built for",
    page: None,
    experimental: false,
};
/// `FROM --platform=$TARGETPLATFORM`.
pub static REDUNDANT_TARGET_PLATFORM: Rule = Rule::new(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "--platform=$TARGETPLATFORM is left out: it is the default",
);
/// `ENV PASSWORD=...`.
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule = Rule::new(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "secrets are mounted, not put into ARG or ENV, where everybody reads them",
);
/// `ARG TAG` and `FROM image:$TAG`.
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule = Rule::new(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "FROM names an image also when no build argument is given",
);
/// `FROM --platform=linux/amd64`.
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = Rule::new(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "--platform of FROM is no constant",
);
/// `COPY x` where .dockerignore excludes x.
pub static COPY_IGNORED_FILE: Rule = Rule::new(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "what is copied is not excluded by the ignore file",
)
.experimental();
/// A comment above ARG or FROM that does not begin with the name.
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule::new(
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "a comment right above ARG or FROM begins with the name that it describes",
)
.experimental();
/// `EXPOSE 80/TCP`.
pub static EXPOSE_PROTO_CASING: Rule = Rule::new(
    "ExposeProtoCasing",
    "expose-proto-casing",
    "the protocol of EXPOSE is lower case",
);
/// `EXPOSE 127.0.0.1:80:80`.
pub static EXPOSE_INVALID_FORMAT: Rule = Rule::new(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "EXPOSE names ports of the container, neither addresses nor ports of the host",
);

/// All rules.
pub static ALL: [&Rule; 22] = [
    &STAGE_NAME_CASING,
    &FROM_AS_CASING,
    &NO_EMPTY_CONTINUATION,
    &CONSISTENT_INSTRUCTION_CASING,
    &DUPLICATE_STAGE_NAME,
    &RESERVED_STAGE_NAME,
    &JSON_ARGS_RECOMMENDED,
    &MAINTAINER_DEPRECATED,
    &UNDEFINED_ARG_IN_FROM,
    &WORKDIR_RELATIVE_PATH,
    &UNDEFINED_VAR,
    &MULTIPLE_INSTRUCTIONS_DISALLOWED,
    &LEGACY_KEY_VALUE_FORMAT,
    &INVALID_BASE_IMAGE_PLATFORM,
    &REDUNDANT_TARGET_PLATFORM,
    &SECRETS_USED_IN_ARG_OR_ENV,
    &INVALID_DEFAULT_ARG_IN_FROM,
    &FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    &COPY_IGNORED_FILE,
    &INVALID_DEFINITION_DESCRIPTION,
    &EXPOSE_PROTO_CASING,
    &EXPOSE_INVALID_FORMAT,
];
