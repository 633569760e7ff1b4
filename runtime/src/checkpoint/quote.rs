//! The lines of CRIU's log that say why it failed.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::log::Log;

/// Lines shown before each line with an error.
const LINES_BEFORE: usize = 5;

/// What is read of a log, in bytes: one of a large container has some tens of
/// megabytes.
const LOG_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Lines that are shown of one log: what follows the first errors is mostly
/// CRIU cleaning up.
const LINES_MAX: usize = 60;

/// Warns with the errors of `file`, each with what came before it. A log that
/// cannot be read is only mentioned: the command has failed for its own reason.
pub(super) fn errors(file: &Path, log: &Log) {
    let source = match super::images::open(file) {
        Ok(source) => BufReader::new(source.take(LOG_BYTES_MAX)),
        Err(error) => return log.warn(&format!("open {file:?}: {error}")),
    };
    let quoted = quote(source);
    if quoted.is_empty() {
        return;
    }
    log.warn(&format!("--- Quoting {file:?}"));
    for line in &quoted {
        log.warn(line);
    }
    log.warn("---");
}

/// Numbered lines around each error, `...` for a gap between two.
fn quote(mut source: impl BufRead) -> Vec<String> {
    let mut quoted: Vec<String> = Vec::new();
    let mut before: VecDeque<String> = VecDeque::new();
    let mut gap = false;
    let (mut number, mut line) = (0, Vec::new());
    while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) && quoted.len() < LINES_MAX {
        number += 1;
        let text = String::from_utf8_lossy(&line);
        before.push_back(format!("{number}:{}", text.trim_end()));
        if text.contains("Error") {
            if gap && !quoted.is_empty() {
                quoted.push("...".into());
            }
            quoted.extend(before.drain(..));
            gap = false;
        } else if before.len() > LINES_BEFORE {
            before.pop_front();
            gap = true;
        }
        line.clear();
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_with_what_led_to_it() {
        let mut text: String = (1..=9).map(|n| format!("line {n}\n")).collect();
        text.push_str("Error (a): first\nfine\nError (b): second\n");
        text.extend((13..=30).map(|n| format!("line {n}\n")));
        text.push_str("Error (c): third\n");
        let quoted = quote(text.as_bytes());
        assert_eq!(quoted[0], "5:line 5");
        assert_eq!(
            quoted[5..8],
            ["10:Error (a): first", "11:fine", "12:Error (b): second"]
        );
        assert_eq!(quoted[8], "...");
        assert_eq!(quoted[9], "26:line 26");
        assert_eq!(quoted.last().unwrap(), "31:Error (c): third");
    }

    #[test]
    fn a_log_without_errors_is_not_shown() {
        assert!(quote("all\nwell\n".as_bytes()).is_empty());
    }
}
