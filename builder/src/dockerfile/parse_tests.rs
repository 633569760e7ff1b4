use super::*;

fn one(line: &str) -> Instruction {
    let mut file = parse(line).unwrap_or_else(|problem| panic!("{line}: {problem}"));
    assert_eq!(file.statements.len(), 1, "{line}");
    file.statements.remove(0).instruction
}

fn raw(texts: &[Text]) -> Vec<&str> {
    texts.iter().map(|text| text.raw.as_str()).collect()
}

#[test]
fn from_forms() {
    let Instruction::From(from) = one("from --platform=$BUILDPLATFORM debian:12 as Build") else {
        panic!()
    };
    assert_eq!(
        (from.base.raw.as_str(), from.name.unwrap().raw.as_str()),
        ("debian:12", "build")
    );
    assert_eq!(from.platform.unwrap().raw, "$BUILDPLATFORM");
}

#[test]
fn run_forms() {
    let Instruction::Run(run) = one("RUN --mount=type=cache,target=/c,ro --network=none a  b")
    else {
        panic!()
    };
    assert_eq!(run.command, CommandLine::Shell("a  b".into()));
    assert_eq!(run.mounts[0].fields[2], ("ro".into(), None));
    assert_eq!(run.network.unwrap().raw, "none");
    let Instruction::Run(run) = one("RUN [\"a\", \"b c\"]") else {
        panic!()
    };
    assert_eq!(
        run.command,
        CommandLine::Exec(vec!["a".into(), "b c".into()])
    );
    let Instruction::Run(run) = one("RUN ['a', 'b c']") else {
        panic!()
    };
    assert_eq!(run.command, CommandLine::Shell("['a', 'b c']".into()));
    let Instruction::Run(run) = one("RUN <<EOF bash\n$x\nEOF\n") else {
        panic!()
    };
    assert_eq!(run.heredocs[0].content, "$x\n");
}

#[test]
fn copy_forms() {
    let Instruction::Copy(copy) =
        one("COPY --from=0 --chown=a:b --chmod=u=rwX --link --exclude=x --exclude=y *.c d/ /e/")
    else {
        panic!()
    };
    assert_eq!(copy.transfer.sources.len(), 2);
    assert_eq!(copy.transfer.destination.raw, "/e/");
    assert_eq!(copy.transfer.chmod.unwrap().raw, "u=rwX");
    assert!(copy.transfer.link && !copy.parents);
    assert_eq!(raw(&copy.transfer.exclude), ["x", "y"]);
    let Instruction::Copy(copy) = one("COPY [\"a b\", \"/c d\"]") else {
        panic!()
    };
    assert!(matches!(&copy.transfer.sources[..], [Source::Path(text)] if text.raw == "a b"));
    let Instruction::Copy(copy) = one("COPY <<A f <<\"B\" /d/\n1\nA\n2\nB\n") else {
        panic!()
    };
    assert!(
        matches!(&copy.transfer.sources[..], [Source::Heredoc(a), Source::Path(_), Source::Heredoc(b)] if a.expand && !b.expand)
    );
}

#[test]
fn pairs_of_both_forms() {
    let Instruction::Env(pairs) = one("ENV a=1 b=\"x y\" c=d\\ e") else {
        panic!()
    };
    let values: Vec<_> = pairs
        .iter()
        .map(|pair| (pair.name.raw.as_str(), pair.value.raw.as_str()))
        .collect();
    assert_eq!(values, [("a", "1"), ("b", "\"x y\""), ("c", "d\\ e")]);
    let Instruction::Env(pairs) = one("ENV name  some = value  ") else {
        panic!()
    };
    assert_eq!(
        (pairs[0].name.raw.as_str(), pairs[0].value.raw.as_str()),
        ("name", "some = value")
    );
    let Instruction::Arg(arguments) = one("ARG a b=1 c=") else {
        panic!()
    };
    assert_eq!(
        arguments
            .iter()
            .map(|a| a.default.is_some())
            .collect::<Vec<_>>(),
        [false, true, true]
    );
}

#[test]
fn healthcheck_onbuild_and_lists() {
    let Instruction::Healthcheck(check) = one("HEALTHCHECK --interval=5s --retries=3 CMD curl x")
    else {
        panic!()
    };
    assert_eq!(check.command, Some(CommandLine::Shell("curl x".into())));
    assert!(
        matches!(one("HEALTHCHECK NONE"), Instruction::Healthcheck(check) if check.command.is_none())
    );
    let Instruction::Onbuild(onbuild) = one("ONBUILD RUN <<X\nbody\nX\n") else {
        panic!()
    };
    assert_eq!(onbuild.text, "RUN <<X\nbody\nX");
    assert!(
        matches!(onbuild.statement.instruction, Instruction::Run(run) if run.heredocs.len() == 1)
    );
    assert!(
        matches!(one("VOLUME /a /b"), Instruction::Volume(paths) if raw(&paths) == ["/a", "/b"])
    );
    assert!(
        matches!(one("VOLUME [\"/a b\"]"), Instruction::Volume(paths) if raw(&paths) == ["/a b"])
    );
    assert!(
        matches!(one("CMD []"), Instruction::Cmd(CommandLine::Exec(words)) if words.is_empty())
    );
    assert!(matches!(one("CMD"), Instruction::Cmd(CommandLine::Shell(line)) if line.is_empty()));
}

#[test]
fn every_mistake_has_its_place() {
    let table = [
        ("COPPY a b", "COPPY", "did you mean `COPY`?"),
        (
            "RUN --mout=type=bind x",
            "--mout=type=bind",
            "did you mean `--mount`?",
        ),
        (
            "RUN --mount=typ=bind x",
            "--mount=typ=bind",
            "did you mean `type`?",
        ),
        ("COPY --link=maybe a b", "--link=maybe", ""),
        ("COPY --chown a b", "--chown", ""),
        ("COPY --from=a --from=b a b", "--from=b", ""),
        ("USER --x a", "--x", "USER has no flags"),
        ("COPY a", "COPY", ""),
        ("FROM a b", "b", "AS name"),
        ("FROM a AS 1x", "1x", ""),
        ("FROM", "FROM", ""),
        ("ENV a=1 b", "b", "quotes"),
        ("ENV a", "ENV", ""),
        ("ENV =a", "=a", ""),
        ("ARG =a", "=a", ""),
        ("SHELL /bin/sh", "SHELL", "JSON"),
        ("HEALTHCHECK curl", "curl", "CMD"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK", ""),
        ("ONBUILD FROM x", "FROM", ""),
        ("ONBUILD ONBUILD RUN x", "ONBUILD", ""),
        ("RUN", "RUN", ""),
        ("RUN []", "RUN", ""),
        ("WORKDIR", "WORKDIR", ""),
        ("COPY <<A <<B\nA\nB\n", "<<B", ""),
        ("RUN cat <<EOF\nx", "<<EOF", "only `EOF`"),
    ];
    for (source, at, help) in table {
        let problem = parse(source)
            .err()
            .unwrap_or_else(|| panic!("{source} was accepted"));
        assert_eq!(&source[problem.span.clone()], at, "{source}: {problem}");
        assert!(format!("{problem}").contains(help), "{source}: {problem}");
    }
    assert!(parse("").is_err());
    assert!(parse("# only a comment\n").is_err());
}

#[test]
fn places_survive_continuations() {
    let source = "FROM x\nCOPY \\\n  # note\n  --bad \\\n a b\n";
    let problem = parse(source).err().unwrap();
    assert_eq!(&source[problem.span.clone()], "--bad");
}

#[test]
fn odd_bytes_never_panic() {
    let pieces = [
        "RUN", " ", "\\", "\n", "<<", "EOF", "\"", "'", "[", "$", "{", "é", "#", "=", "--", "COPY",
        "\t", "`", "ONBUILD", "\r",
    ];
    let mut state = 7_u64;
    for _ in 0..20_000 {
        let mut source = String::new();
        for _ in 0..12 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            source.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        if let Err(problem) = parse(&source) {
            problem.render("Dockerfile", &source, false);
        }
    }
}
