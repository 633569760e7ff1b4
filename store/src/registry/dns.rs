//! The little of DNS that finds a host's addresses (RFC 1035, RFC 3596): a
//! question is written, an answer is read; nothing here touches a socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name in a message (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 255;

/// Most compression pointers followed in one name: a loop must end.
const POINTERS_MAX: usize = 32;

/// Most records read of one answer; real ones have under twenty.
const RECORDS_MAX: usize = 256;

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_AAAA: u16 = 28;
const CLASS_INTERNET: u16 = 1;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4 (`A`).
    V4,
    /// IPv6 (`AAAA`).
    V6,
}

/// What a name server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The addresses; none when the name exists without any of this family.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoSuchName,
    /// It was cut to fit a datagram: ask again over TCP.
    Truncated,
    /// The server could not answer (SERVFAIL, REFUSED and the like): ask another.
    Trouble,
}

/// A question, as it is sent; the answer must fit it.
#[derive(Debug, Clone)]
pub(super) struct Question {
    id: u16,
    /// Lower case, without a last dot.
    name: String,
    family: Family,
}

impl Question {
    /// A question for `name`, or none when it is no host name that DNS can hold.
    /// `id` should be unpredictable.
    #[must_use]
    pub(super) fn new(id: u16, name: &str, family: Family) -> Option<Self> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let fits = !name.is_empty()
            && name.len() < NAME_BYTES_MAX - 1
            && name
                .split('.')
                .all(|label| (1..=63).contains(&label.len()) && label.bytes().all(is_host_byte));
        fits.then_some(Self { id, name, family })
    }

    /// The message to send, without the length that TCP puts before it.
    #[must_use]
    pub(super) fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(32 + self.name.len());
        message.extend(self.id.to_be_bytes());
        message.extend([0x01, 0x00]); // recursion desired
        message.extend([0, 1, 0, 0, 0, 0, 0, 0]); // one question
        for label in self.name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(self.kind().to_be_bytes());
        message.extend(CLASS_INTERNET.to_be_bytes());
        message
    }

    /// Reads what came back; none when it is not an answer to this question
    /// (another id, another name, not a message at all).
    #[must_use]
    pub(super) fn read(&self, message: &[u8]) -> Option<Answer> {
        let mut cursor = Cursor { message, at: 0 };
        let id = cursor.u16()?;
        let flags = cursor.u16()?;
        let questions = cursor.u16()?;
        let answers = cursor.u16()?;
        cursor.skip(4)?;
        let is_response = flags & 0x8000 != 0;
        if id != self.id || !is_response || questions != 1 {
            return None;
        }
        let asked = (cursor.name()?, cursor.u16()?, cursor.u16()?);
        if asked != (self.name.clone(), self.kind(), CLASS_INTERNET) {
            return None;
        }
        if flags & 0x0200 != 0 {
            return Some(Answer::Truncated);
        }
        match flags & 0x000f {
            0 => Some(self.addresses(&mut cursor, answers)),
            3 => Some(Answer::NoSuchName),
            _ => Some(Answer::Trouble),
        }
    }

    /// The addresses of the asked name, through its aliases.
    fn addresses(&self, cursor: &mut Cursor<'_>, count: u16) -> Answer {
        let mut wanted = vec![self.name.clone()];
        let mut found = Vec::new();
        for _ in 0..usize::from(count).min(RECORDS_MAX) {
            let Some(record) = cursor.record() else { break };
            if !wanted.contains(&record.owner) {
                continue;
            }
            match (record.kind, record.data) {
                (TYPE_CNAME, _) => {
                    let mut inside = Cursor {
                        message: cursor.message,
                        at: record.data_at,
                    };
                    wanted.extend(inside.name());
                }
                (TYPE_A, data) if self.family == Family::V4 => {
                    found.extend(
                        <[u8; 4]>::try_from(data).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
                    );
                }
                (TYPE_AAAA, data) if self.family == Family::V6 => {
                    found.extend(
                        <[u8; 16]>::try_from(data).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
                    );
                }
                _ => {}
            }
        }
        Answer::Addresses(found)
    }

    fn kind(&self) -> u16 {
        match self.family {
            Family::V4 => TYPE_A,
            Family::V6 => TYPE_AAAA,
        }
    }
}

/// Letters, digits, hyphen, and the underscore that internal names use.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

struct Record<'a> {
    owner: String,
    kind: u16,
    data: &'a [u8],
    data_at: usize,
}

/// A place in a message; every step checks that the message is long enough.
struct Cursor<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn skip(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.skip(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn record(&mut self) -> Option<Record<'a>> {
        let owner = self.name()?;
        let kind = self.u16()?;
        self.skip(6)?; // class and time to live
        let length = usize::from(self.u16()?);
        let data_at = self.at;
        let data = self.skip(length)?;
        Some(Record {
            owner,
            kind,
            data,
            data_at,
        })
    }

    /// A name, compressed or not (RFC 1035, section 4.1.4), in lower case.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut at = self.at;
        let mut after = None;
        for _ in 0..NAME_BYTES_MAX + POINTERS_MAX {
            let length = *self.message.get(at)?;
            match length {
                0 => {
                    self.at = after.unwrap_or(at + 1);
                    return Some(name);
                }
                0xc0.. => {
                    let low = *self.message.get(at + 1)?;
                    after = after.or(Some(at + 2));
                    at = usize::from(length & 0x3f) << 8 | usize::from(low);
                }
                0x40.. => return None,
                1.. => {
                    let label = self.message.get(at + 1..at + 1 + usize::from(length))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
                    at += 1 + usize::from(length);
                }
            }
            if name.len() > NAME_BYTES_MAX {
                return None;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, family: Family) -> Question {
        Question::new(0x1234, name, family).unwrap()
    }

    /// An answer to `question`: its header and question, then these records.
    fn answer(question: &Question, code: u8, records: &[(&[u8], u16, &[u8])]) -> Vec<u8> {
        let mut message = question.message();
        message[2] = 0x81;
        message[3] = 0x80 | code;
        message[7] = records.len() as u8;
        for (owner, kind, data) in records {
            message.extend(*owner);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 60]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(*data);
        }
        message
    }

    const POINTER_TO_QUESTION: &[u8] = &[0xc0, 12];

    #[test]
    fn addresses_come_through_aliases() {
        let asked = question("Registry.Example.COM.", Family::V4);
        let alias = b"\x03cdn\x07example\x03net\x00";
        let message = answer(
            &asked,
            0,
            &[
                (POINTER_TO_QUESTION, TYPE_CNAME, alias),
                (alias, TYPE_A, &[10, 0, 0, 7]),
                (b"\x04evil\x00", TYPE_A, &[6, 6, 6, 6]),
            ],
        );
        let expected = Answer::Addresses(vec!["10.0.0.7".parse().unwrap()]);
        assert_eq!(asked.read(&message), Some(expected));
    }

    #[test]
    fn both_families() {
        let asked = question("a.test", Family::V6);
        let data = "2001:db8::5".parse::<Ipv6Addr>().unwrap().octets();
        let message = answer(&asked, 0, &[(POINTER_TO_QUESTION, TYPE_AAAA, &data)]);
        let expected = Answer::Addresses(vec!["2001:db8::5".parse().unwrap()]);
        assert_eq!(asked.read(&message), Some(expected));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_ignored() {
        let asked = question("a.test", Family::V4);
        assert_eq!(
            asked.read(&answer(&question("b.test", Family::V4), 0, &[])),
            None
        );
        assert_eq!(
            asked.read(&answer(&question("a.test", Family::V6), 0, &[])),
            None
        );
        let mut other_id = answer(&asked, 0, &[]);
        other_id[0] ^= 1;
        assert_eq!(asked.read(&other_id), None);
        assert_eq!(
            asked.read(&asked.message()),
            None,
            "a question is no answer"
        );
        for length in 0..20 {
            assert_eq!(asked.read(&answer(&asked, 0, &[])[..length]), None);
        }
    }

    #[test]
    fn codes_and_truncation() {
        let asked = question("a.test", Family::V4);
        assert_eq!(
            asked.read(&answer(&asked, 3, &[])),
            Some(Answer::NoSuchName)
        );
        assert_eq!(asked.read(&answer(&asked, 2, &[])), Some(Answer::Trouble));
        let mut cut = answer(&asked, 0, &[]);
        cut[2] |= 0x02;
        assert_eq!(asked.read(&cut), Some(Answer::Truncated));
    }

    #[test]
    fn a_pointer_loop_ends() {
        let asked = question("a.test", Family::V4);
        let at = asked.message().len() as u8;
        let message = answer(&asked, 0, &[(&[0xc0, at], TYPE_A, &[1, 2, 3, 4])]);
        assert_eq!(asked.read(&message), Some(Answer::Addresses(vec![])));
    }

    #[test]
    fn names_that_dns_cannot_hold() {
        for name in [
            "",
            ".",
            "a..b",
            "a b",
            "ä.test",
            &"a.".repeat(200),
            &"a".repeat(64),
        ] {
            assert!(Question::new(0, name, Family::V4).is_none(), "{name:?}");
        }
    }
}
