//! ttrpc's frames: ten bytes of header, then data (containerd/ttrpc, `PROTOCOL.md`).

/// Most data of a frame, in bytes: ttrpc's own limit.
pub const DATA_BYTES_MAX: usize = 4 << 20;
/// Length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 10;

/// What a frame is, from its header's ninth byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Request,
    /// Its answer.
    Response,
    /// More of a stream.
    Data,
    /// Something that later versions may mean; it is skipped.
    Unknown(u8),
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Data => 3,
            Self::Unknown(code) => code,
        }
    }

    fn of(code: u8) -> Self {
        match code {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Data,
            code => Self::Unknown(code),
        }
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of data that follow.
    pub length: u32,
    /// Which call it belongs to; a client's calls have odd numbers.
    pub stream: u32,
    /// What the data is.
    pub kind: Kind,
    /// Of streaming calls.
    pub flags: u8,
}

impl Header {
    fn decode(bytes: [u8; HEADER_BYTES]) -> Self {
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = bytes;
        Self {
            length: u32::from_be_bytes([l0, l1, l2, l3]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            kind: Kind::of(kind),
            flags,
        }
    }

    fn encode(self) -> [u8; HEADER_BYTES] {
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, l3, s0, s1, s2, s3, self.kind.code(), self.flags]
    }
}

/// A frame that arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Whole.
    Whole(Header, Vec<u8>),
    /// Larger than [`DATA_BYTES_MAX`]: its data is skipped.
    TooLarge(Header),
}

/// Appends a frame to `out`.
pub fn encode(kind: Kind, stream: u32, data: &[u8], out: &mut Vec<u8>) {
    let header = Header {
        length: u32::try_from(data.len()).unwrap_or(u32::MAX),
        stream,
        kind,
        flags: 0,
    };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(data);
}

/// Takes bytes in whatever pieces they arrive and yields frames. Holds at most
/// one frame, and no memory between frames.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    /// Bytes of a too large frame still to be skipped.
    skip: u32,
}

impl Decoder {
    /// Takes bytes off the front of `bytes` until a frame is whole or they are all taken.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        let skipped = bytes.len().min(self.skip as usize);
        self.skip -= skipped as u32;
        *bytes = &bytes[skipped..];
        if !self.fill(HEADER_BYTES, bytes) {
            return None;
        }
        let header: [u8; HEADER_BYTES] = self.pending[..HEADER_BYTES].try_into().ok()?;
        let header = Header::decode(header);
        let length = header.length as usize;
        if length > DATA_BYTES_MAX {
            self.pending = Vec::new();
            self.skip = header.length;
            return Some(Frame::TooLarge(header));
        }
        if !self.fill(HEADER_BYTES + length, bytes) {
            return None;
        }
        let mut data = std::mem::take(&mut self.pending);
        data.drain(..HEADER_BYTES);
        Some(Frame::Whole(header, data))
    }

    /// Grows what is pending to `length` bytes; whether there were enough.
    fn fill(&mut self, length: usize, bytes: &mut &[u8]) -> bool {
        let missing = length.saturating_sub(self.pending.len());
        let taken = missing.min(bytes.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        *bytes = &bytes[taken..];
        taken == missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_in_pieces(bytes: &[u8], piece: usize) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while let Some(frame) = decoder.next(&mut piece) {
                frames.push(frame);
            }
        }
        frames
    }

    #[test]
    fn frames_come_back_however_they_are_cut() {
        let mut bytes = Vec::new();
        encode(Kind::Request, 1, b"abc", &mut bytes);
        assert_eq!(bytes, b"\0\0\0\x03\0\0\0\x01\x01\0abc");
        encode(Kind::Response, 3, b"", &mut bytes);
        encode(Kind::Unknown(9), 5, &[7; 300], &mut bytes);
        let whole = decode_in_pieces(&bytes, bytes.len());
        assert_eq!(whole.len(), 3);
        for piece in 1..40 {
            assert_eq!(
                decode_in_pieces(&bytes, piece),
                whole,
                "in pieces of {piece}"
            );
        }
        let Frame::Whole(header, data) = &whole[2] else {
            panic!("{whole:?}")
        };
        assert_eq!((header.kind, header.stream), (Kind::Unknown(9), 5));
        assert_eq!(data, &[7; 300]);
    }

    #[test]
    fn a_frame_that_is_too_large_is_skipped_and_the_next_one_is_read() {
        let length = DATA_BYTES_MAX + 1;
        let mut bytes = Vec::new();
        encode(Kind::Request, 7, &vec![0; length], &mut bytes);
        encode(Kind::Request, 9, b"x", &mut bytes);
        let frames = decode_in_pieces(&bytes, 100_000);
        assert!(matches!(frames[0], Frame::TooLarge(header) if header.stream == 7));
        assert!(
            matches!(&frames[1], Frame::Whole(header, data) if header.stream == 9 && data == b"x")
        );
    }

    #[test]
    fn the_largest_frame_is_read() {
        let mut bytes = Vec::new();
        encode(Kind::Request, 1, &vec![1; DATA_BYTES_MAX], &mut bytes);
        assert!(
            matches!(&decode_in_pieces(&bytes, 65_536)[..], [Frame::Whole(_, data)] if data.len() == DATA_BYTES_MAX)
        );
    }
}
