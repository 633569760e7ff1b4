//! What a registry asks for when it answers 401: the `WWW-Authenticate` header.

/// Longest header that is parsed. Real ones are under 1 KiB.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// Most parameters of one challenge. Real ones have five at most.
const PARAMETERS_MAX: usize = 32;

/// One way in that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user name and a password with each request (RFC 7617).
    Basic,
    /// A token, to be had from a token server (distribution's token specification).
    Bearer(Bearer),
}

/// The parameters of a `Bearer` challenge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    /// Address of the token server, not yet judged (see [`super::realm::judge`]).
    pub realm: String,
    /// The name the token server knows the registry by.
    pub service: Option<String>,
    /// What the token must allow, as the registry sees it.
    pub scope: Option<String>,
    /// Why a token that was sent did not do, such as `insufficient_scope`.
    pub error: Option<String>,
}

/// Parses the value of a `WWW-Authenticate` header (RFC 9110, section 11.6.1)
/// into the challenges that we can meet, in their order.
///
/// Pure: the odd headers seen in the wild are rows of the test below. Unknown
/// schemes are skipped; of a malformed rest nothing is taken.
#[must_use]
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    if header.len() > HEADER_BYTES_MAX {
        return Vec::new();
    }
    let mut text = Text(header);
    let mut found = Vec::new();
    while let Some((scheme, parameters)) = text.challenge() {
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => found.push(Challenge::Basic),
            "bearer" => found.extend(bearer(parameters).map(Challenge::Bearer)),
            _ => {}
        }
    }
    found
}

fn bearer(parameters: Vec<(String, String)>) -> Option<Bearer> {
    let get = |name: &str| {
        let same = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        parameters
            .iter()
            .find(same)
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
    };
    Some(Bearer {
        realm: get("realm")?,
        service: get("service"),
        scope: get("scope"),
        error: get("error"),
    })
}

/// What of the header is still to be read.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    /// The next scheme with its parameters; none at the end or at nonsense.
    fn challenge(&mut self) -> Option<(&'a str, Vec<(String, String)>)> {
        self.skip(|c| c == ',' || c.is_ascii_whitespace());
        let scheme = self.take(is_token)?;
        let mut parameters = Vec::new();
        self.skip_token68();
        while parameters.len() < PARAMETERS_MAX {
            let before = self.0;
            self.skip(|c| c == ',' || c.is_ascii_whitespace());
            let Some(parameter) = self.parameter() else {
                self.0 = before;
                break;
            };
            parameters.push(parameter);
        }
        Some((scheme, parameters))
    }

    /// `name = value`; the value a token, a quoted string, or (seen in the
    /// wild) a bare address.
    fn parameter(&mut self) -> Option<(String, String)> {
        let name = self.take(is_token)?;
        self.skip(|c| c.is_ascii_whitespace());
        self.0 = self.0.strip_prefix('=')?;
        self.skip(|c| c.is_ascii_whitespace());
        let value = match self.0.strip_prefix('"') {
            Some(rest) => {
                let (value, rest) = quoted(rest)?;
                self.0 = rest;
                value
            }
            None => self
                .take(|c| c != ',' && c != '"' && !c.is_ascii_whitespace())
                .unwrap_or_default()
                .to_owned(),
        };
        Some((name.to_owned(), value))
    }

    /// Steps over the single opaque value some schemes have (`Negotiate oYG...==`).
    fn skip_token68(&mut self) {
        let before = self.0;
        self.skip(|c| c == ' ');
        let word = self.take(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(c));
        self.skip(|c| c == '=');
        let ended = self.0.is_empty() || self.0.trim_start().starts_with(',');
        if word.is_none() || !ended || self.0.len() == before.len() {
            self.0 = before;
        }
    }

    fn skip(&mut self, unwanted: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(unwanted);
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> Option<&'a str> {
        let end = self.0.find(|c| !wanted(c)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// The inside of a quoted string whose first quote is already gone, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Challenge::Bearer(Bearer {
            realm: realm.to_owned(),
            service: optional(service),
            scope: optional(scope),
            error: None,
        })
    }

    #[test]
    fn headers_seen_in_the_wild() {
        let rows = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    "registry.docker.io",
                    "repository:library/alpine:pull",
                )],
            ),
            // Two actions: the comma is inside quotes.
            (
                r#"Bearer realm="https://x/t",service="x",scope="repository:a/b:pull,push""#,
                vec![bearer("https://x/t", "x", "repository:a/b:pull,push")],
            ),
            // No service; spaces after the commas.
            (
                r#"Bearer realm="https://gitlab.com/jwt/auth", scope="repository:a:pull""#,
                vec![bearer(
                    "https://gitlab.com/jwt/auth",
                    "",
                    "repository:a:pull",
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            (
                r#"BASIC realm="x", charset="UTF-8""#,
                vec![Challenge::Basic],
            ),
            ("Basic", vec![Challenge::Basic]),
            // Unquoted, lower case.
            (
                "bearer realm=https://x.test:5001/auth,service=x",
                vec![bearer("https://x.test:5001/auth", "x", "")],
            ),
            // White space around the equals sign.
            (
                r#"Bearer realm = "https://x/t" , service = "s""#,
                vec![bearer("https://x/t", "s", "")],
            ),
            // Several challenges in one line.
            (
                r#"Negotiate, Bearer realm="https://x/t",service="s", Basic realm="y""#,
                vec![bearer("https://x/t", "s", ""), Challenge::Basic],
            ),
            (
                r#"Negotiate oYGeMIGb==, Basic realm="y""#,
                vec![Challenge::Basic],
            ),
            // An escaped quote inside a value.
            (
                r#"Bearer realm="https://x/t",service="a \"b\"""#,
                vec![bearer("https://x/t", "a \"b\"", "")],
            ),
        ];
        for (header, expected) in rows {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn nonsense_gives_nothing() {
        for header in [
            "",
            ",,,",
            "Bearer",
            r#"Bearer realm="""#,
            "Digest realm=\"x\"",
            "=",
            "\"\"",
            r#"Bearer service="x""#,
        ] {
            assert_eq!(parse(header), [], "{header}");
        }
        assert_eq!(parse(&format!("Basic {}", "x".repeat(9000))), []);
        let many = format!("Bearer {}", "a=b,".repeat(1000));
        assert_eq!(parse(&many), []);
        assert_eq!(parse(r#"Bearer realm="unterminated"#), []);
    }

    #[test]
    fn the_reason_of_a_refused_token_is_kept() {
        let header = r#"Bearer realm="https://x/t",error="insufficient_scope""#;
        let [Challenge::Bearer(bearer)] = &parse(header)[..] else {
            panic!("one bearer challenge expected");
        };
        assert_eq!(bearer.error.as_deref(), Some("insufficient_scope"));
    }
}
