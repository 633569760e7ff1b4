//! Instructions that change only the image's configuration.

use super::evaluate::Evaluator;
use crate::dockerfile::Result;
use crate::dockerfile::instruction::{CommandLine, Healthcheck, Onbuild, Pair, Text};
use crate::lint::rules;
use crate::report::Problem;
use serde_json::Value;
use teu_store::image as store;

/// Most ports that one EXPOSE can mean: all of them.
const PORT_MAX: u32 = 65_535;

/// Signals by name, without `SIG`; signal(7), x86 and arm.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Evaluator<'_, '_> {
    /// `ENV`. All values of one instruction see the variables as they were before it.
    pub(super) fn env(&mut self, pairs: &[Pair]) -> Result<()> {
        self.warn_of_legacy("ENV", pairs);
        let expanded = self.pairs(pairs)?;
        for (pair, (name, _)) in pairs.iter().zip(&expanded) {
            self.warn_of_secret("ENV", name, &pair.name.span);
        }
        let pairs = expanded;
        let mut environment =
            crate::environment::Environment::from_strings(&self.state.config.config.env);
        for (name, value) in &pairs {
            environment.set(name, value);
            self.state.variables.set(name, value);
        }
        self.state.config.config.env = environment.to_strings();
        self.history(format!("ENV {}", shown(&pairs)));
        Ok(())
    }

    /// `LABEL`.
    pub(super) fn label(&mut self, pairs: &[Pair]) -> Result<()> {
        self.warn_of_legacy("LABEL", pairs);
        let pairs = self.pairs(pairs)?;
        self.state
            .config
            .config
            .labels
            .extend(pairs.iter().cloned());
        self.history(format!("LABEL {}", shown(&pairs)));
        Ok(())
    }

    fn warn_of_legacy(&self, name: &str, pairs: &[Pair]) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let detail = format!("write `{name} name=value` instead of `{name} name value`");
            self.warn(&rules::LEGACY_KEY_VALUE_FORMAT, &pair.name.span, detail);
        }
    }

    fn pairs(&self, pairs: &[Pair]) -> Result<Vec<(String, String)>> {
        let expand = |pair: &Pair| {
            let name = self.expand(&pair.name)?;
            if name.is_empty() {
                return Err(Problem::new(
                    "the name is empty",
                    pair.name.span.clone(),
                    "nothing is left of it",
                )
                .into());
            }
            Ok((name, self.expand(&pair.value)?))
        };
        pairs.iter().map(expand).collect()
    }

    /// `CMD`.
    pub(super) fn cmd(&mut self, command: &CommandLine) -> Result<()> {
        self.warn_of_repetition("CMD");
        self.warn_of_shell("CMD", command);
        let words = self.command(command);
        self.history(format!("CMD {}", go_quoted(&words)));
        self.state.config.config.cmd = Some(words);
        self.state.config.config.args_escaped = None;
        self.state.cmd_set = true;
        Ok(())
    }

    /// `ENTRYPOINT`, which drops a CMD that the base image brought: it was meant for another program.
    pub(super) fn entrypoint(&mut self, command: &CommandLine) -> Result<()> {
        self.warn_of_repetition("ENTRYPOINT");
        self.warn_of_shell("ENTRYPOINT", command);
        let words = self.command(command);
        self.history(format!("ENTRYPOINT {}", go_quoted(&words)));
        self.state.config.config.entrypoint = Some(words);
        if !self.state.cmd_set {
            self.state.config.config.cmd = None;
        }
        Ok(())
    }

    /// A shell between the container's start and the program keeps signals from it.
    fn warn_of_shell(&self, name: &str, command: &CommandLine) {
        let shell = self
            .state
            .config
            .config
            .shell
            .as_deref()
            .unwrap_or_default();
        if matches!(command, CommandLine::Shell(_)) && shell.is_empty() {
            let detail =
                format!("{name} in shell form: the shell, not the program, gets the signals");
            let span = self.current().clone();
            self.warn(&rules::JSON_ARGS_RECOMMENDED, &span, detail);
        }
    }

    /// A command's words; the shell form goes to the stage's shell.
    pub(super) fn command(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(line) => self.in_shell(line),
        }
    }

    /// The words that give `line` to the stage's shell.
    pub(super) fn in_shell(&self, line: &str) -> Vec<String> {
        let shell = self
            .state
            .config
            .config
            .shell
            .clone()
            .filter(|shell| !shell.is_empty());
        let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        words.push(line.to_owned());
        words
    }

    /// `EXPOSE`.
    pub(super) fn expose(&mut self, words: &[Text]) -> Result<()> {
        let mut all = Vec::new();
        for text in words {
            let fail = |label: String| {
                Box::new(Problem::new(
                    "EXPOSE takes port[/protocol]",
                    text.span.clone(),
                    label,
                ))
            };
            for word in self
                .lexer()
                .expand_words(&text.raw)
                .map_err(|error| fail(error.to_string()))?
            {
                all.extend(ports(&word).ok_or_else(|| fail(format!("`{word}` is none")))?);
                self.warn_of_port(&word, text);
            }
        }
        all.sort_unstable();
        all.dedup();
        let empty = || Value::Object(serde_json::Map::new());
        self.state
            .config
            .config
            .exposed_ports
            .extend(all.iter().map(|port| (port.clone(), empty())));
        self.history(format!("EXPOSE [{}]", all.join(" ")));
        Ok(())
    }

    fn warn_of_port(&self, word: &str, text: &Text) {
        let protocol = word.split_once('/').map_or("", |(_, protocol)| protocol);
        if protocol != protocol.to_lowercase() {
            let detail = format!("the protocol of `{word}` is not in lower case");
            self.warn(&rules::EXPOSE_PROTO_CASING, &text.span, detail);
        }
        if word.contains(':') {
            let detail = format!("`{word}` names more than a port of the container");
            self.warn(&rules::EXPOSE_INVALID_FORMAT, &text.span, detail);
        }
    }

    /// `VOLUME`.
    pub(super) fn volume(&mut self, texts: &[Text]) -> Result<()> {
        let paths = texts
            .iter()
            .map(|path| self.expand(path))
            .collect::<Result<Vec<_>>>()?;
        for (path, text) in paths.iter().zip(texts) {
            if path.is_empty() {
                return Err(Problem::new("VOLUME needs a path", text.span.clone(), "empty").into());
            }
            self.state
                .config
                .config
                .volumes
                .insert(path.clone(), Value::Object(serde_json::Map::new()));
        }
        self.history(format!("VOLUME [{}]", paths.join(" ")));
        Ok(())
    }

    /// `USER`. Of variables without a value nothing is left, which is root.
    pub(super) fn user(&mut self, text: &Text) -> Result<()> {
        let user = self.expand(text)?;
        self.history(format!("USER {user}"));
        self.state.config.config.user = user;
        Ok(())
    }

    /// `SHELL`.
    pub(super) fn shell(&mut self, words: &[String]) -> Result<()> {
        self.history(format!("SHELL [{}]", words.join(" ")));
        self.state.config.config.shell = Some(words.to_vec());
        Ok(())
    }

    /// `STOPSIGNAL`.
    pub(super) fn stop_signal(&mut self, text: &Text) -> Result<()> {
        let signal = self.expand(text)?;
        if !is_signal(&signal) {
            let problem = Problem::new(
                format!("`{signal}` is no signal"),
                text.span.clone(),
                "unknown",
            );
            return Err(problem
                .help("write a name like SIGTERM or a number from 1 to 64".to_owned())
                .into());
        }
        self.history(format!("STOPSIGNAL {signal}"));
        self.state.config.config.stop_signal = Some(signal);
        Ok(())
    }

    /// `HEALTHCHECK`.
    pub(super) fn healthcheck(&mut self, check: &Healthcheck) -> Result<()> {
        self.warn_of_repetition("HEALTHCHECK");
        let test = match &check.command {
            None => vec!["NONE".to_owned()],
            Some(CommandLine::Exec(words)) => std::iter::once("CMD".to_owned())
                .chain(words.iter().cloned())
                .collect(),
            Some(CommandLine::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
        };
        let healthcheck = store::Healthcheck {
            test,
            interval: self.duration(check.interval.as_ref())?,
            timeout: self.duration(check.timeout.as_ref())?,
            start_period: self.duration(check.start_period.as_ref())?,
            start_interval: self.duration(check.start_interval.as_ref())?,
            retries: self.retries(check.retries.as_ref())?,
            ..store::Healthcheck::default()
        };
        self.history(format!("HEALTHCHECK {}", go_struct(&healthcheck)));
        self.state.config.config.healthcheck = Some(healthcheck);
        Ok(())
    }

    /// Nanoseconds; nothing for 0, which means the default.
    fn duration(&self, text: Option<&Text>) -> Result<Option<i64>> {
        let Some(text) = text else { return Ok(None) };
        let value = self.expand(text)?;
        match go_duration(&value) {
            Some(0) => Ok(None),
            Some(nanoseconds) if nanoseconds >= 1_000_000 => Ok(Some(nanoseconds)),
            _ => {
                let problem = Problem::new(
                    format!("`{value}` is no duration"),
                    text.span.clone(),
                    "at least 1ms, or 0",
                );
                Err(problem.help("write 30s, 1m30s or 500ms".to_owned()).into())
            }
        }
    }

    fn retries(&self, text: Option<&Text>) -> Result<Option<i64>> {
        let Some(text) = text else { return Ok(None) };
        match self.expand(text)?.parse::<u32>() {
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some(i64::from(count))),
            Err(_) => {
                Err(
                    Problem::new("--retries takes a count", text.span.clone(), "not a number")
                        .into(),
                )
            }
        }
    }

    /// `ONBUILD`.
    pub(super) fn onbuild(&mut self, onbuild: &Onbuild) -> Result<()> {
        self.state.config.config.on_build.push(onbuild.text.clone());
        Ok(())
    }

    /// `MAINTAINER`.
    pub(super) fn maintainer(&mut self, text: &Text) -> Result<()> {
        let name = self.expand(text)?;
        self.history(format!("MAINTAINER {name}"));
        self.state.config.author = Some(name);
        Ok(())
    }
}

fn shown(pairs: &[(String, String)]) -> String {
    pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A list as Go's `%q` prints it, which is what histories hold.
pub(super) fn go_quoted(words: &[String]) -> String {
    let quoted: Vec<_> = words
        .iter()
        .map(|word| Value::from(word.as_str()).to_string())
        .collect();
    format!("[{}]", quoted.join(" "))
}

/// A health check as Go's `%+v` prints it, which is what histories hold.
fn go_struct(check: &store::Healthcheck) -> String {
    let time = |value: Option<i64>| go_duration_text(value.unwrap_or_default());
    format!(
        "{{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
        check.retries.unwrap_or_default()
    )
}

/// Nanoseconds as Go's `time.Duration` prints them, from a millisecond up.
fn go_duration_text(nanoseconds: i64) -> String {
    let fraction = |value: i64, unit: i64| {
        let text = format!("{:09}", value % unit * (1_000_000_000 / unit));
        let text = text.trim_end_matches('0');
        if text.is_empty() {
            String::new()
        } else {
            format!(".{text}")
        }
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        ns if ns < 1_000_000_000 => format!("{}{}ms", ns / 1_000_000, fraction(ns, 1_000_000)),
        ns => {
            let (minutes, rest) = (ns / 60_000_000_000, ns % 60_000_000_000);
            let seconds = format!("{}{}s", rest / 1_000_000_000, fraction(rest, 1_000_000_000));
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`, and docker's `host:container` of which only the container counts.
fn ports(word: &str) -> Option<Vec<String>> {
    let (range, protocol) = word.split_once('/').unwrap_or((word, ""));
    let protocol = match protocol {
        "" => "tcp".to_owned(),
        name => name.to_ascii_lowercase(),
    };
    let range = range.rsplit(':').next()?;
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    let valid =
        first <= last && last <= PORT_MAX && matches!(protocol.as_str(), "tcp" | "udp" | "sctp");
    valid.then(|| {
        (first..=last)
            .map(|port| format!("{port}/{protocol}"))
            .collect()
    })
}

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = name
        .strip_prefix("RTMIN+")
        .or_else(|| name.strip_prefix("RTMAX-"))
        .is_some_and(|offset| offset.parse().is_ok_and(|n: u8| n <= 30));
    SIGNALS.contains(&name)
        || realtime
        || matches!(name, "RTMIN" | "RTMAX" | "IOT" | "CLD" | "POLL")
}

/// Go's `time.ParseDuration`: numbers with units, added up; nanoseconds.
pub(super) fn go_duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0.0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    // A Go duration ends at 292 years.
    #[allow(clippy::cast_possible_truncation, reason = "bounded by the comparison")]
    (!text.is_empty() && total < 9.2e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_ports_and_signals() {
        assert_eq!(go_duration("1m30s"), Some(90_000_000_000));
        assert_eq!(go_duration("1.5s"), Some(1_500_000_000));
        assert_eq!(go_duration("500ms"), Some(500_000_000));
        for bad in ["", "5", "s", "5x", "-1s"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
        assert_eq!(ports("80"), Some(vec!["80/tcp".into()]));
        assert_eq!(ports("1-2/UDP"), Some(vec!["1/udp".into(), "2/udp".into()]));
        for bad in ["", "x", "2-1", "70000", "1/icmp"] {
            assert_eq!(ports(bad), None, "{bad}");
        }
        assert!(
            is_signal("SIGTERM") && is_signal("9") && is_signal("SIGRTMIN+3") && is_signal("quit")
        );
        assert!(!is_signal("SIGNOPE") && !is_signal("0") && !is_signal("65"));
    }

    #[test]
    fn go_durations() {
        for text in [
            "0s", "5s", "1m30s", "1h0m1s", "500ms", "1.5s", "2m0.25s", "1.5ms",
        ] {
            let nanoseconds = go_duration(text).unwrap();
            assert_eq!(go_duration_text(nanoseconds), text);
        }
    }

    #[test]
    fn go_lists() {
        assert_eq!(
            go_quoted(&["a".into(), "b \"c\"".into()]),
            r#"["a" "b \"c\""]"#
        );
    }
}
