use super::*;
use std::io::{IoSliceMut, Read as _, Seek as _};
use std::os::unix::net::UnixDatagram;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// journald's end, and a way to it.
struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    server: UnixDatagram,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let server = UnixDatagram::bind(&path).unwrap();
        server.set_nonblocking(true).unwrap();
        Self {
            _folder: folder,
            path,
            server,
        }
    }

    fn journal(&self) -> Journal {
        let mut fields = Fields::new(true);
        fields.put(b"CONTAINER_ID", b"id");
        Journal::at(&self.path, fields)
    }

    /// The next entry's fields.
    fn entry(&self) -> Option<Vec<(String, Vec<u8>)>> {
        let mut buffer = vec![0; 256 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let got = recvmsg(&self.server, &mut parts, &mut control, RecvFlags::empty()).ok()?;
        let mut bytes = buffer[..got.bytes].to_vec();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut files) = message {
                let mut file = std::fs::File::from(files.next().unwrap());
                file.rewind().unwrap();
                file.read_to_end(&mut bytes).unwrap();
                assert!(file.write_all(b"x").is_err(), "it is sealed");
            }
        }
        Some(decode(&bytes))
    }

    /// All messages that are there, each with whether it is a piece.
    fn messages(&self) -> Vec<(Vec<u8>, bool)> {
        std::iter::from_fn(|| self.entry())
            .map(|entry| {
                let message = entry.iter().find(|(name, _)| name == "MESSAGE").unwrap();
                let piece = entry
                    .iter()
                    .any(|(name, _)| name == "CONTAINER_PARTIAL_MESSAGE");
                (message.1.clone(), piece)
            })
            .collect()
    }
}

/// The fields of an entry, as journald reads them.
fn decode(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let line = &bytes[..end];
        bytes = &bytes[end + 1..];
        if let Some(equal) = line.iter().position(|byte| *byte == b'=') {
            let name = String::from_utf8(line[..equal].to_vec()).unwrap();
            fields.push((name, line[equal + 1..].to_vec()));
        } else {
            let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let name = String::from_utf8(line.to_vec()).unwrap();
            fields.push((name, bytes[8..8 + len].to_vec()));
            assert_eq!(bytes[8 + len], b'\n');
            bytes = &bytes[9 + len..];
        }
    }
    fields
}

#[test]
fn an_entry_has_its_fields() {
    let bench = Bench::new();
    let mut journal = bench.journal();
    journal.append(Stream::Stderr, b"oh\n");
    let field = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    assert_eq!(
        bench.entry().unwrap(),
        [
            field("MESSAGE", b"oh\n"),
            field("PRIORITY", b"3"),
            field("CONTAINER_ID", b"id")
        ]
    );
}

#[test]
fn lines_come_whole_though_they_were_read_in_pieces() {
    let bench = Bench::new();
    let mut journal = bench.journal();
    for piece in [&b"on"[..], b"e\ntwo\nthr", b"ee\n\nlast"] {
        assert_eq!(journal.append(Stream::Stdout, piece), Taken::All);
    }
    journal.append(Stream::Stderr, b"other");
    assert_eq!(journal.close(0), 0);
    let whole = |text: &[u8]| (text.to_vec(), false);
    let piece = |text: &[u8]| (text.to_vec(), true);
    assert_eq!(
        bench.messages(),
        [
            whole(b"one\n"),
            whole(b"two\n"),
            whole(b"three\n"),
            whole(b"\n"),
            piece(b"last"),
            piece(b"other")
        ]
    );
}

#[test]
fn a_long_line_of_any_bytes_comes_back_exactly() {
    let bench = Bench::new();
    let mut journal = bench.journal();
    let mut line: Vec<u8> = (0..=255)
        .filter(|byte| *byte != b'\n')
        .cycle()
        .take(8 << 20)
        .collect();
    line.push(b'\n');
    let (mut seen, mut pieces) = (Vec::new(), 0);
    for block in line.chunks(8192) {
        let mut rest = block;
        while let Taken::Part(taken) = journal.append(Stream::Stdout, rest) {
            rest = &rest[taken..];
            for (message, piece) in bench.messages() {
                seen.extend_from_slice(&message);
                pieces += usize::from(piece);
            }
        }
    }
    journal.close(0);
    for (message, _) in bench.messages() {
        seen.extend_from_slice(&message);
    }
    assert!(seen == line);
    assert!(pieces > 400);
}

#[test]
fn a_busy_journal_is_waited_for_and_loses_nothing() {
    let bench = Bench::new();
    let mut journal = bench.journal();
    let mut sent = 0;
    while journal.append(Stream::Stdout, format!("{sent}\n").as_bytes()) == Taken::All {
        sent += 1;
    }
    assert!(journal.waits_for().is_some());
    assert_eq!(journal.append(Stream::Stdout, b""), Taken::Part(0));
    let mut seen = bench.messages();
    assert_eq!(journal.append(Stream::Stdout, b""), Taken::All);
    assert!(journal.waits_for().is_none());
    seen.extend(bench.messages());
    assert_eq!(seen.len(), sent + 1);
    assert_eq!(seen[sent].0, format!("{sent}\n").as_bytes());
}

#[test]
fn a_large_entry_goes_as_a_file() {
    let bench = Bench::new();
    let mut fields = Fields::new(true);
    let large = vec![b'x'; 1 << 20];
    fields.put(b"LARGE", &large);
    let mut journal = Journal::at(&bench.path, fields);
    assert_eq!(journal.append(Stream::Stdout, b"a\n"), Taken::All);
    let entry = bench.entry().unwrap();
    assert!(
        entry
            .iter()
            .any(|(name, value)| name == "LARGE" && *value == large)
    );
    assert_eq!(entry[0].1, b"a\n");
}

#[test]
fn a_journal_that_was_started_anew_is_found_again() {
    let mut bench = Bench::new();
    let mut journal = bench.journal();
    journal.append(Stream::Stdout, b"one\n");
    assert_eq!(bench.messages().len(), 1);
    std::fs::remove_file(&bench.path).unwrap();
    bench.server = UnixDatagram::bind(&bench.path).unwrap();
    bench.server.set_nonblocking(true).unwrap();
    journal.append(Stream::Stdout, b"two\n");
    assert_eq!(bench.messages(), [(b"two\n".to_vec(), false)]);
}

#[test]
fn without_a_journal_nobody_waits_and_the_loss_is_counted() {
    let mut journal = Journal::at(Path::new("/nonexistent/socket"), Fields::new(true));
    assert_eq!(journal.append(Stream::Stdout, b"one\n"), Taken::All);
    assert_eq!(journal.close(3), 7);
}
