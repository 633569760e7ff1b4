//! What the supervisor waits for.

use crate::supervisor::log::Stream;
use crate::supervisor::poller::Name;
use crate::supervisor::pump::Watched;

/// What became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The signalfd.
    Signals,
    /// The caller says something on the start pipe.
    Start,
    /// The process ended.
    Process,
    /// Somebody attaches.
    Attach,
    /// A line for `ctl`.
    Control,
    /// A line for `winsz`.
    Window,
    /// The container says something of its readiness.
    Notify,
    /// The kernel says something of memory.
    Memory,
    /// Output or input can go on.
    Pump(Watched),
}

impl From<Watched> for Token {
    fn from(watched: Watched) -> Self {
        Self::Pump(watched)
    }
}

impl Name for Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::Start => (1, 0),
            Self::Process => (2, 0),
            Self::Attach => (3, 0),
            Self::Control => (4, 0),
            Self::Window => (5, 0),
            Self::Pump(Watched::Output(Stream::Stdout)) => (6, 0),
            Self::Pump(Watched::Output(Stream::Stderr)) => (7, 0),
            Self::Pump(Watched::Input) => (8, 0),
            Self::Pump(Watched::Log) => (9, 0),
            Self::Pump(Watched::Client(id)) => (10, id),
            Self::Notify => (11, 0),
            Self::Memory => (12, 0),
        };
        kind << 32 | u64::from(number)
    }

    fn decode(data: u64) -> Self {
        let number = (data & u64::from(u32::MAX)) as u32;
        match data >> 32 {
            0 => Self::Signals,
            1 => Self::Start,
            2 => Self::Process,
            3 => Self::Attach,
            4 => Self::Control,
            5 => Self::Window,
            6 => Self::Pump(Watched::Output(Stream::Stdout)),
            7 => Self::Pump(Watched::Output(Stream::Stderr)),
            8 => Self::Pump(Watched::Input),
            9 => Self::Pump(Watched::Log),
            10 => Self::Pump(Watched::Client(number)),
            11 => Self::Notify,
            _ => Self::Memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for token in [
            Token::Signals,
            Token::Start,
            Token::Process,
            Token::Attach,
            Token::Control,
            Token::Window,
            Token::Notify,
            Token::Memory,
            Token::Pump(Watched::Output(Stream::Stdout)),
            Token::Pump(Watched::Output(Stream::Stderr)),
            Token::Pump(Watched::Input),
            Token::Pump(Watched::Log),
            Token::Pump(Watched::Client(u32::MAX)),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
