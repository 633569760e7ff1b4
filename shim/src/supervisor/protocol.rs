//! What the supervisor and those who connect to it say to each other.
//!
//! Two SOCK_SEQPACKET sockets in the container's folder; one packet is one message.
//!
//! `attach`: the shape that conmon gave it. To the client: one byte, 2 for
//! standard output (or the terminal) and 3 for standard error, then up to 8192
//! bytes of output. From the client: input as it is. A client that shuts its
//! sending side has ended its input. End of file: all output was delivered.
//!
//! `ctl`: requests and answers as text, see [`Request`] and [`encode`].

use crate::container::Exit;
use crate::supervisor::log::Stream;
use crate::supervisor::machine::Answer;

/// Most output in one packet, in bytes.
pub const BLOCK_BYTES: usize = 8192;
/// Longest message on `ctl`, in bytes. An answer carries at most an exit record.
pub const MESSAGE_BYTES_MAX: usize = 8192;

/// The first byte of a packet of output.
#[must_use]
pub fn tag(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 2,
        Stream::Stderr => 3,
    }
}

/// The stream of a packet of output.
#[must_use]
pub fn stream(tag: u8) -> Option<Stream> {
    match tag {
        2 => Some(Stream::Stdout),
        3 => Some(Stream::Stderr),
        _ => None,
    }
}

/// A request on `ctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// `start`: run the program. Answered when it runs, or cannot.
    Start,
    /// `kill N`: send the first process a signal.
    Kill(i32),
    /// `resize ROWS COLUMNS`: the terminal's window size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in each.
        columns: u16,
    },
    /// `wait`: answered once, when it has ended.
    Wait,
}

impl Request {
    /// Parses a message; `None` where it is none of ours.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(message).ok()?.split(' ');
        let request = match words.next()? {
            "start" => Self::Start,
            "kill" => Self::Kill(words.next()?.parse().ok()?),
            "resize" => Self::Resize {
                rows: words.next()?.parse().ok()?,
                columns: words.next()?.parse().ok()?,
            },
            "wait" => Self::Wait,
            _ => return None,
        };
        words.next().is_none().then_some(request)
    }

    /// The message.
    #[must_use]
    pub fn encode(self) -> String {
        match self {
            Self::Start => "start".to_owned(),
            Self::Kill(signal) => format!("kill {signal}"),
            Self::Resize { rows, columns } => format!("resize {rows} {columns}"),
            Self::Wait => "wait".to_owned(),
        }
    }
}

/// An answer's message: `ok`, `refused TEXT`, or `exit JSON`.
#[must_use]
pub fn encode(answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Done => b"ok".to_vec(),
        Answer::Refused(reason) => {
            let room = MESSAGE_BYTES_MAX - "refused ".len();
            format!("refused {}", &reason[..reason.floor_char_boundary(room)]).into_bytes()
        }
        Answer::Ended(exit) => {
            let mut message = b"exit ".to_vec();
            let mut exit = exit.clone();
            // The reason of a failed start was told to who asked for the start.
            exit.error = None;
            if let Ok(json) = serde_json::to_vec(&exit) {
                message.extend_from_slice(&json);
            }
            message
        }
    }
}

/// The answer in a message; `None` where it is none of ours.
#[must_use]
pub fn decode(message: &[u8]) -> Option<Answer> {
    if message == b"ok" {
        return Some(Answer::Done);
    }
    if let Some(reason) = message.strip_prefix(b"refused ") {
        return Some(Answer::Refused(
            String::from_utf8_lossy(reason).into_owned(),
        ));
    }
    let exit: Exit = serde_json::from_slice(message.strip_prefix(b"exit ")?).ok()?;
    Some(Answer::Ended(exit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        for request in [
            Request::Start,
            Request::Kill(15),
            Request::Resize {
                rows: 24,
                columns: 80,
            },
            Request::Wait,
        ] {
            assert_eq!(Request::parse(request.encode().as_bytes()), Some(request));
        }
        for odd in [
            "",
            "kill",
            "kill x",
            "start now",
            "resize 1",
            "resize 1 70000",
            "stop",
            "kill 9 9",
        ] {
            assert_eq!(Request::parse(odd.as_bytes()), None, "{odd}");
        }
        assert_eq!(Request::parse(&[0xff, 0]), None);
    }

    #[test]
    fn answers_survive_the_wire() {
        let exit = Exit {
            status: Some(143),
            signal: Some(15),
            finished: "t".into(),
            ..Exit::default()
        };
        for answer in [
            Answer::Done,
            Answer::Refused("no: such".into()),
            Answer::Ended(exit),
        ] {
            assert_eq!(decode(&encode(&answer)), Some(answer));
        }
        assert!(encode(&Answer::Refused("ä".repeat(9000))).len() <= MESSAGE_BYTES_MAX);
        assert_eq!(decode(b"exit {"), None);
    }
}
