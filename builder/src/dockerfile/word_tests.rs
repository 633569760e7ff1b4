use super::*;

fn environment() -> Environment {
    [
        ("a", "A"),
        ("empty", ""),
        ("path", "/usr/local/lib/x.tar.gz"),
        ("sp", "x y  z"),
        ("q", "'"),
    ]
    .into_iter()
    .collect()
}

fn expand(word: &str) -> Result<String, WordError> {
    let variables = environment();
    Lexer::new('\\', &variables).expand(word)
}

#[test]
fn every_operator() {
    let table = [
        ("$a-${a}-$none-$", "A-A--$"),
        ("${none:-w}${none-w}${empty:-w}${empty-w}${a:-w}", "wwwA"),
        (
            "${none:+w}|${none+w}|${empty:+w}|${empty+w}|${a:+w}",
            "|||w|w",
        ),
        ("${a:?m}${a?m}${empty?m}", "AA"),
        ("${path#*/}|${path##*/}", "usr/local/lib/x.tar.gz|x.tar.gz"),
        (
            "${path%.*}|${path%%.*}",
            "/usr/local/lib/x.tar|/usr/local/lib/x",
        ),
        (
            "${path/lib/LIB}|${path//\\//:}",
            "/usr/local/LIB/x.tar.gz|:usr:local:lib:x.tar.gz",
        ),
        ("${path/l*l/L}", "/usr/Lib/x.tar.gz"),
        ("${none:-${none:-${a}}}", "A"),
        ("${none:-a}b}", "ab}"),
        ("${sp}", "x y  z"),
        ("$1$10$@", ""),
    ];
    for (word, value) in table {
        assert_eq!(expand(word).as_deref(), Ok(value), "{word}");
    }
}

#[test]
fn quotes_and_escapes() {
    let table = [
        ("'$a'", "$a"),
        ("\"$a'\"", "A'"),
        ("\\$a", "$a"),
        ("\"\\$a\\\"\\n\\\\\"", "$a\"\\n\\"),
        ("a\\ b", "a b"),
        ("a\\", "a"),
        ("${none:-'}'}", "}"),
        ("${none:-\\}}", "}"),
        ("$q", "'"),
        ("", ""),
    ];
    for (word, value) in table {
        assert_eq!(expand(word).as_deref(), Ok(value), "{word}");
    }
}

#[test]
fn bad_words() {
    let missing = |name: &str, message: &str| WordError::Required {
        name: name.into(),
        message: message.into(),
    };
    let table = [
        ("'a", WordError::OpenQuote("single")),
        ("\"a", WordError::OpenQuote("double")),
        ("${", WordError::Missing('}')),
        ("${a", WordError::Missing('}')),
        ("${a:-b", WordError::Missing('}')),
        ("${}", WordError::BadSubstitution),
        ("${:x}", WordError::BadSubstitution),
        ("${a^}", WordError::Modifier("^".into())),
        ("${a:=b}", WordError::Modifier(":=".into())),
        ("${a:#b}", WordError::Modifier(":#".into())),
        ("${a:%b}", WordError::Modifier(":%".into())),
        ("${a=}", WordError::Modifier("=".into())),
        ("${a//w}", WordError::Missing('/')),
        ("${a//}", WordError::Missing('/')),
        ("${none:?gone}", missing("none", "gone")),
        ("${none?}", missing("none", "must be set")),
        ("${empty:?}", missing("empty", "must not be empty")),
        ("${a#\\x}", WordError::Pattern('x')),
    ];
    for (word, error) in table {
        assert_eq!(expand(word), Err(error), "{word}");
    }
}

#[test]
fn values_split_into_words_but_not_in_quotes() {
    let variables = environment();
    let words = |word| Lexer::new('\\', &variables).expand_words(word).unwrap();
    assert_eq!(
        words("$sp  'a b' \"$sp\" c\\ d"),
        ["x", "y", "z", "a b", "x y  z", "c d"]
    );
    assert_eq!(words("$none"), Vec::<String>::new());
}

#[test]
fn heredoc_bodies_and_kept_words() {
    let variables = environment();
    let body = Lexer {
        quotes: Quotes::Ignore,
        ..Lexer::new('\\', &variables)
    };
    assert_eq!(
        body.expand("it's \"$a\" \\$a\n").as_deref(),
        Ok("it's \"A\" $a\n")
    );
    let keep = Lexer {
        quotes: Quotes::Keep,
        keep_unset: true,
        ..Lexer::new('\\', &variables)
    };
    assert_eq!(
        keep.expand("'a b' $none ${none:-x} \"$a\"").as_deref(),
        Ok("'a b' $none ${none:-x} \"A\"")
    );
}

#[test]
fn bombs_are_errors() {
    let big = "x".repeat(EXPANSION_BYTES_MAX / 2 + 1);
    let variables: Environment = [("b", big.as_str())].into_iter().collect();
    let lexer = Lexer::new('\\', &variables);
    assert_eq!(lexer.expand("$b$b"), Err(WordError::TooLong));
    assert_eq!(lexer.expand("\"$b$b\""), Err(WordError::TooLong));
    assert_eq!(lexer.expand("${b//x/yy}"), Err(WordError::TooLong));
    let deep = "${n:-".repeat(100_000);
    assert_eq!(lexer.expand(&deep), Err(WordError::TooDeep));
}

#[test]
fn raw_words_and_json() {
    let text = r#" a="b c"  d\ e 'f'"#;
    let words: Vec<_> = split_raw(text, '\\')
        .into_iter()
        .map(|range| &text[range])
        .collect();
    assert_eq!(words, [r#"a="b c""#, r"d\ e", "'f'"]);
    assert_eq!(
        json_strings(r#" ["a", "b\n"] "#),
        Some(vec!["a".into(), "b\n".into()])
    );
    for text in ["['a']", "[a]", "[1]", "a", "[\"a\"] x", "{}"] {
        assert_eq!(json_strings(text), None, "{text}");
    }
}
