//! Messages of rtnetlink(7): built and read as bytes, without a socket.

/// Flags of a request (`netlink(7)`).
pub(super) const REQUEST: u16 = 1;
/// The kernel shall answer in any case.
pub(super) const ACK: u16 = 4;
/// All that there is of the kind.
pub(super) const DUMP: u16 = 0x300;
/// What is made must not be there yet.
pub(super) const CREATE_NEW: u16 = 0x600;

/// Kinds of messages (`rtnetlink(7)`).
pub(super) const NEW_LINK: u16 = 16;
/// Asks for a device.
pub(super) const GET_LINK: u16 = 18;
/// An address, or to add it.
pub(super) const NEW_ADDRESS: u16 = 20;
/// Asks for addresses.
pub(super) const GET_ADDRESS: u16 = 22;
/// An error, or with number 0 the end of an answer.
const ERROR: u16 = 2;
/// The end of a dump.
const DONE: u16 = 3;

/// Bytes of the header of each message.
const HEADER_BYTES: usize = 16;

/// Everything is laid out in units of four bytes.
const ALIGNMENT: usize = 4;

/// A request that is being built.
#[derive(Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A request with its fixed part after the header.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes()); // the length, when it is known
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&1u32.to_ne_bytes()); // sequence: one request at a time
        bytes.extend_from_slice(&0u32.to_ne_bytes()); // to the kernel
        bytes.extend_from_slice(fixed);
        Request(bytes)
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        let length = (value.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self
    }

    /// Adds an attribute that is a name, with the NUL byte at its end.
    pub(super) fn name(self, kind: u16, name: &str) -> Request {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value)
    }

    /// The bytes to send.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0[..length.len()].copy_from_slice(&length);
        self.0
    }
}

/// The fixed part of messages about devices: `struct ifinfomsg`. Of its flags
/// those in `change` are set to `flags`; index 0 stands for a named device.
pub(super) fn link(index: i32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// What was asked for: kind, and what follows the header.
    Content(u16, &'a [u8]),
    /// An error number, or 0 for success: nothing more will come.
    End(i32),
}

/// The messages of one packet. A message that does not fit ends the reading.
pub(super) fn answers(packet: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk::<4>()?) as usize;
        let message = rest.get(..length)?;
        let (header, body) = message.split_at_checked(HEADER_BYTES)?;
        rest = rest
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or(&[]);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        match kind {
            DONE => Some(Answer::End(0)),
            ERROR => {
                let number = i32::from_ne_bytes(*body.first_chunk::<4>()?);
                Some(Answer::End(number.checked_neg().unwrap_or(libc::EIO)))
            }
            kind => Some(Answer::Content(kind, body)),
        }
    })
}

/// The attributes after a fixed part: kind and value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Bits of the kind that describe the value.
    const DESCRIPTION: u16 = 0xc000;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (header, _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !DESCRIPTION;
        let value = rest.get(4..length)?;
        rest = rest
            .get(length.next_multiple_of(ALIGNMENT)..)
            .unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The text of an attribute, without the NUL byte at its end.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_bytes_that_the_kernel_reads() {
        let bytes = Request::new(NEW_LINK, ACK, &link(5, 1, 1))
            .name(3, "eth0")
            .attribute(28, &7u32.to_ne_bytes())
            .finish();
        #[rustfmt::skip]
        let golden = [
            52, 0, 0, 0, 16, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, // header
            0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,   // ifinfomsg
            9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0,   // IFLA_IFNAME
            8, 0, 28, 0, 7, 0, 0, 0,                          // IFLA_NET_NS_FD
        ];
        assert_eq!(bytes, golden);
    }

    #[test]
    fn answers_are_read_to_their_end() {
        let mut packet = Request::new(NEW_LINK, 0, &link(5, 0, 0)).finish();
        let done = Request::new(ERROR, 0, &(-17i32).to_ne_bytes()).finish();
        packet.extend_from_slice(&done);
        let read: Vec<_> = answers(&packet).collect();
        assert_eq!(read[0], Answer::Content(NEW_LINK, &link(5, 0, 0)));
        assert_eq!(read[1], Answer::End(17));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn attributes_survive_the_wire() {
        let bytes = Request::new(GET_LINK, 0, &[])
            .name(3, "a")
            .name(4, "bcd")
            .finish();
        let read: Vec<_> = attributes(&bytes[HEADER_BYTES..])
            .map(|(kind, value)| (kind, text(value)))
            .collect();
        assert_eq!(read, [(3, "a".to_owned()), (4, "bcd".to_owned())]);
    }

    #[test]
    fn damaged_packets_end_early() {
        assert_eq!(answers(&[]).count(), 0);
        assert_eq!(answers(&[255, 255, 255, 255, 1]).count(), 0);
        assert_eq!(answers(&[4, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
        let error = Request::new(ERROR, 0, &i32::MIN.to_ne_bytes()).finish();
        assert_eq!(answers(&error).next(), Some(Answer::End(libc::EIO)));
    }
}
