//! What the client wants of a process's standard streams, out of the addresses it names.

use std::path::PathBuf;

/// Where one of the output streams goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Nobody wants it.
    Null,
    /// A fifo that the client reads, or a file there: it is looked which.
    Path(PathBuf),
    /// A log file that both streams, and other processes, may be appended to.
    File(PathBuf),
    /// A program that takes both streams.
    Logger(Program),
}

/// A program that takes a process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Each name of the address's query and its value.
    pub arguments: Vec<String>,
    /// Whether it must write a byte when it is ready (`binary-v2`), or may just close the pipe.
    pub must_speak: bool,
}

/// The standard streams of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whether a terminal takes the place of the three streams.
    pub terminal: bool,
    /// The fifo that the client writes.
    pub stdin: Option<PathBuf>,
    /// Where standard output goes, or what the terminal shows.
    pub stdout: Output,
    /// Where standard error goes.
    pub stderr: Output,
}

/// An address that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Its scheme is none that shims know.
    #[error("unknown scheme {scheme:?} of stream {address:?}")]
    Scheme {
        /// The scheme.
        scheme: String,
        /// The whole.
        address: String,
    },
    /// It names nothing.
    #[error("stream {0:?} has no path")]
    NoPath(String),
    /// A logger for standard error alone.
    #[error("logger {0:?} is for standard error alone; name it for standard output")]
    Alone(String),
}

impl Plan {
    /// Parses the addresses of a `Create` or `Exec`; an empty one is none.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub fn parse(
        terminal: bool,
        stdin: &str,
        stdout: &str,
        stderr: &str,
    ) -> Result<Self, BadAddress> {
        let stdin = match Address::parse(stdin)? {
            None => None,
            Some(Address {
                scheme: "" | "fifo",
                path,
                ..
            }) => Some(path.into()),
            Some(other) => return Err(other.unknown(stdin)),
        };
        let stdout = output(stdout)?;
        let stderr = match &stdout {
            // The one program gets both, whatever else is said of the second.
            Output::Logger(_) => Output::Null,
            _ if terminal => Output::Null,
            _ => match output(stderr)? {
                Output::Logger(_) => return Err(BadAddress::Alone(stderr.to_owned())),
                output => output,
            },
        };
        Ok(Self {
            terminal,
            stdin,
            stdout,
            stderr,
        })
    }
}

fn output(text: &str) -> Result<Output, BadAddress> {
    Ok(match Address::parse(text)? {
        None => Output::Null,
        Some(Address {
            scheme: "" | "fifo",
            path,
            ..
        }) => Output::Path(path.into()),
        Some(Address {
            scheme: "file",
            path,
            ..
        }) => Output::File(path.into()),
        Some(address) if matches!(address.scheme, "binary" | "binary-v2") => {
            Output::Logger(Program {
                arguments: arguments(address.query),
                must_speak: address.scheme == "binary-v2",
                path: address.path.into(),
            })
        }
        Some(other) => return Err(other.unknown(text)),
    })
}

/// `name=value&name=value` as arguments: each name, in the order of their first
/// appearance, followed by its first value.
fn arguments(query: &str) -> Vec<String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode(name, true);
        if !pairs.iter().any(|(known, _)| *known == name) {
            pairs.push((name, decode(value, true)));
        }
    }
    pairs
        .into_iter()
        .flat_map(|(name, value)| [name, value])
        .collect()
}

/// The parts of `scheme://host/path?query`, or a plain path.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    /// Empty for a plain path.
    scheme: &'a str,
    path: String,
    query: &'a str,
}

impl<'a> Address<'a> {
    /// `None` for an empty text. A plain path is taken as it stands; of a URI the
    /// host is ignored, as containerd does, and percent signs are decoded.
    fn parse(text: &'a str) -> Result<Option<Self>, BadAddress> {
        if text.is_empty() {
            return Ok(None);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let path = text.to_owned();
            return Ok(Some(Self {
                scheme: "",
                path,
                query: "",
            }));
        };
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = place.find('/').map_or("", |at| &place[at..]);
        if path.is_empty() {
            return Err(BadAddress::NoPath(text.to_owned()));
        }
        let path = decode(path, false);
        Ok(Some(Self {
            scheme,
            path,
            query,
        }))
    }

    fn unknown(&self, address: &str) -> BadAddress {
        BadAddress::Scheme {
            scheme: self.scheme.to_owned(),
            address: address.to_owned(),
        }
    }
}

/// Decodes `%XX`, and in a query `+` for a blank. What is no such code stays as
/// it is; what is not UTF-8 then is replaced. RFC 3986, section 2.1.
fn decode(text: &str, plus: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| byte == b'%');
        let code = code.and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(code) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(code);
            rest = &after[2..];
        } else {
            bytes.push(if plus && byte == b'+' { b' ' } else { byte });
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|err| String::from_utf8_lossy(err.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stdin: &str, stdout: &str, stderr: &str) -> Result<Plan, BadAddress> {
        Plan::parse(false, stdin, stdout, stderr)
    }

    #[test]
    fn plain_paths_are_taken_as_they_stand() {
        let plan = of("/a%20b", "/c?d", "relative").unwrap();
        assert_eq!(plan.stdin, Some("/a%20b".into()));
        assert_eq!(plan.stdout, Output::Path("/c?d".into()));
        assert_eq!(plan.stderr, Output::Path("relative".into()));
    }

    #[test]
    fn nothing_is_nothing() {
        let plan = of("", "", "").unwrap();
        assert_eq!(
            (plan.stdin, plan.stdout, plan.stderr),
            (None, Output::Null, Output::Null)
        );
    }

    #[test]
    fn schemes_are_told_apart() {
        let plan = of("fifo:///in", "fifo:///a%20b", "file:///log%2fx").unwrap();
        assert_eq!(plan.stdin, Some("/in".into()));
        assert_eq!(plan.stdout, Output::Path("/a b".into()));
        assert_eq!(plan.stderr, Output::File("/log/x".into()));
        assert_eq!(
            of("", "file://host/log#x", "").unwrap().stdout,
            Output::File("/log".into())
        );
    }

    #[test]
    fn loggers_take_both_streams_and_their_querys_words() {
        let text = "binary:///bin/log?b=1&a=x+y&b=2&%2dc&&d=%26";
        let plan = of("", text, "/err").unwrap();
        let program = |must_speak, arguments: &[&str]| {
            Output::Logger(Program {
                path: "/bin/log".into(),
                arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
                must_speak,
            })
        };
        let words = ["b", "1", "a", "x y", "-c", "", "d", "&"];
        assert_eq!(plan.stdout, program(false, &words));
        assert_eq!(plan.stderr, Output::Null);
        let plan = of("", "binary-v2:///bin/log", "").unwrap();
        assert_eq!(plan.stdout, program(true, &[]));
        assert!(of("", "/out", "binary:///bin/log").is_err());
        assert!(of("binary:///bin/log", "", "").is_err());
    }

    #[test]
    fn a_terminal_has_no_standard_error() {
        let plan = Plan::parse(true, "/in", "/out", "/err").unwrap();
        assert_eq!(plan.stderr, Output::Null);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, message) in [
            (
                "http://x/y",
                "unknown scheme \"http\" of stream \"http://x/y\"",
            ),
            ("file://", "stream \"file://\" has no path"),
            ("file://name", "stream \"file://name\" has no path"),
        ] {
            assert_eq!(of("", text, "").unwrap_err().to_string(), message);
            assert_eq!(of("", "", text).unwrap_err().to_string(), message);
        }
        assert!(of("file:///x", "", "").is_err());
    }

    #[test]
    fn any_text_is_parsed_without_harm() {
        for text in ["%", "a%", "a%4", "a%zz", "%ff", "%41", "%c3%a9", "+", "%+1"] {
            let _ = decode(text, true);
        }
        assert_eq!(decode("a%4", true), "a%4");
        assert_eq!(decode("%41%zz+", true), "A%zz ");
        assert_eq!(decode("%c3%a9+", false), "é+");
    }
}
