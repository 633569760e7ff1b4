use super::super::parse;
use super::*;
use rustix::mount::MountFlags;

/// What the log gives back of `stream`, byte for byte.
fn replay(path: &Path, stream: Stream) -> Vec<u8> {
    let mut output = Vec::new();
    let text = std::fs::read(path).unwrap();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let entry = parse(line.strip_suffix(b"\n").unwrap()).unwrap();
        if entry.stream == stream {
            output.extend_from_slice(entry.text);
            if entry.full {
                output.push(b'\n');
            }
        }
    }
    output
}

fn limited(path: &Path, limits: Limits) -> Log {
    Log::with(Settings {
        path: path.to_owned(),
        form: Form::Local,
        limits,
        full: LogFull::Block,
        mode: 0o640,
        sync: true,
    })
    .unwrap()
}

#[test]
fn any_bytes_in_any_blocks_come_back_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = Log::open(&path, LogFull::Block).unwrap();
    let mut output: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    output.extend_from_slice(b"\n\n\r\nx".as_slice());
    output.extend(std::iter::repeat_n(b'y', 60_000));
    for (block, chunk) in output.chunks(7_919).enumerate() {
        assert!(matches!(log.append(Stream::Stdout, chunk), Taken::All));
        if block % 3 == 0 {
            log.append(Stream::Stderr, b"between\n");
        }
    }
    assert_eq!(log.close(0), 0);
    assert_eq!(replay(&path, Stream::Stdout), output);
    assert_eq!(replay(&path, Stream::Stderr).len(), b"between\n".len() * 7);
}

#[test]
fn the_format_is_cri() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    Log::open(&path, LogFull::Block)
        .unwrap()
        .append(Stream::Stdout, b"one\ntwo");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().map(|line| &line[clock::BYTES..]).collect();
    assert_eq!(lines, [" stdout F one", " stdout P two"]);
}

/// /dev/full refuses every write with ENOSPC. `full(4)`.
fn on_full_disk(policy: LogFull) -> Log {
    Log::open(Path::new("/dev/full"), policy).unwrap()
}

#[test]
fn a_full_disk_blocks_and_takes_each_byte_once() {
    let mut log = on_full_disk(LogFull::Block);
    let data = vec![b'\n'; 1000]; // frames overflow the buffer within the block
    let Taken::Part(taken) = log.append(Stream::Stdout, &data) else {
        panic!("a full disk took all")
    };
    let entry = clock::BYTES + " stdout F \n".len();
    assert_eq!(taken, (OUT_BYTES - ROOM_BYTES) / entry + 1);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    log.file = File::create(&path).unwrap();
    assert!(matches!(
        log.append(Stream::Stdout, &data[taken..]),
        Taken::All
    ));
    assert_eq!(replay(&path, Stream::Stdout), data);
}

#[test]
fn dropped_output_is_counted_and_said() {
    let mut log = on_full_disk(LogFull::Drop);
    let data = vec![b'x'; 3 * OUT_BYTES];
    assert!(matches!(log.append(Stream::Stdout, &data), Taken::All));
    assert!(matches!(log.append(Stream::Stdout, b"more\n"), Taken::All));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    log.file = File::create(&path).unwrap();
    log.append(Stream::Stdout, b"again\n");
    let dropped = data.len() - TEXT_BYTES_MAX + 5;
    assert!(
        String::from_utf8(replay(&path, Stream::Stderr))
            .unwrap()
            .contains(&format!("{dropped} bytes"))
    );
    assert!(replay(&path, Stream::Stdout).ends_with(b"again\n"));
    assert_eq!(log.close(0), dropped as u64);
}

#[test]
fn full_files_are_kept_and_nothing_is_lost_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let limits = Limits {
        file_bytes: Some(1000),
        kept_files: 1000,
        ..Limits::default()
    };
    let mut log = limited(&path, limits);
    let mut output = Vec::new();
    for number in 0..500 {
        let line = format!("line {number}\n");
        log.append(Stream::Stdout, line.as_bytes());
        output.extend_from_slice(line.as_bytes());
    }
    log.close(0);
    let mut files: Vec<PathBuf> = (1..1000)
        .map(|number| numbered(&path, &number.to_string()))
        .take_while(|path| path.exists())
        .collect();
    assert!(files.len() > 20, "{}", files.len());
    files.reverse();
    files.push(path);
    for file in &files {
        assert!(std::fs::metadata(file).unwrap().len() <= 1000);
    }
    let seen: Vec<u8> = files
        .iter()
        .flat_map(|file| replay(file, Stream::Stdout))
        .collect();
    assert_eq!(seen, output);
}

#[test]
fn only_so_many_files_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let limits = Limits {
        file_bytes: Some(60),
        kept_files: 2,
        ..Limits::default()
    };
    let mut log = limited(&path, limits);
    for text in [b"a\n", b"b\n", b"c\n", b"d\n", b"e\n"] {
        log.append(Stream::Stdout, text);
    }
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["log", "log.1", "log.2"]);
    assert_eq!(replay(&numbered(&path, "2"), Stream::Stdout), b"c\n");
}

#[test]
fn a_full_file_without_successors_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let limits = Limits {
        file_bytes: Some(10),
        ..Limits::default()
    };
    let mut log = limited(&path, limits);
    log.append(Stream::Stdout, b"one\ntwo\nthree\n");
    assert_eq!(replay(&path, Stream::Stdout), b"three\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn the_whole_life_has_a_limit_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let limits = Limits {
        total_bytes: Some(100),
        ..Limits::default()
    };
    let mut log = limited(&path, limits);
    log.append(Stream::Stdout, b"one\ntwo\nthree\nfour\n");
    assert_eq!(
        log.append(Stream::Stdout, b"five\n"),
        Taken::All,
        "nobody waits"
    );
    assert_eq!(replay(&path, Stream::Stdout), b"one\ntwo\nthree\n");
}

#[test]
fn a_renamed_file_is_left_and_one_that_is_still_there_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = limited(&path, Limits::default());
    log.append(Stream::Stdout, b"one\n");
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    log.append(Stream::Stdout, b"two\n");
    log.reopen().unwrap();
    log.append(Stream::Stdout, b"three\n");
    log.reopen().unwrap();
    log.append(Stream::Stdout, b"four\n");
    assert_eq!(
        replay(&dir.path().join("old"), Stream::Stdout),
        b"one\ntwo\n"
    );
    assert_eq!(replay(&path, Stream::Stdout), b"three\nfour\n");
}

#[test]
fn docker_reads_its_own_format_and_characters_come_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut log = Log::with(Settings {
        path: path.clone(),
        form: Form::Json,
        limits: Limits::default(),
        full: LogFull::Block,
        mode: 0o640,
        sync: false,
    })
    .unwrap();
    let text = "äöü 😀 €\nmore 😀".repeat(500) + "\u{1}\n";
    for block in text.as_bytes().chunks(7) {
        assert_eq!(log.append(Stream::Stdout, block), Taken::All);
    }
    log.append(Stream::Stderr, &"€".as_bytes()[..2]);
    log.close(0);
    let lines = std::fs::read_to_string(&path).unwrap();
    let entries = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let (mut out, mut err) = (String::new(), String::new());
    for entry in entries {
        let log = entry["log"].as_str().unwrap();
        if entry["stream"] == "stdout" {
            out.push_str(log);
        } else {
            err.push_str(log);
        }
    }
    assert!(out == text);
    assert_eq!(err, "\u{fffd}", "what never became a character");
}

/// Four pages.
const DISK_BYTES: usize = 16 << 10;

/// A file system in memory of so many bytes, gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (flags, size) = (MountFlags::empty(), Some(c"size=16k"));
        match rustix::mount::mount("tmpfs", folder.path(), "tmpfs", flags, size) {
            Ok(()) => Some(Self(folder)),
            Err(_) => None,
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.0.path(), flags).unwrap();
    }
}

/// A full disk may take the beginning of a note and refuse its end. The end follows; what
/// it says is not said again.
#[test]
fn a_loss_is_said_once_though_its_note_comes_in_pieces() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!(
            "SKIPPED a_loss_is_said_once_though_its_note_comes_in_pieces: a file system cannot be mounted"
        );
        return;
    };
    let (path, filler) = (disk.0.path().join("log"), disk.0.path().join("filler"));
    let mut log = Log::open(&path, LogFull::Drop).unwrap();
    let entry = clock::BYTES + " stdout F \n".len();
    let block = vec![b'2'; 9_999];
    // With the entry that waits, the log leaves room for the beginning of a note.
    let first = vec![b'1'; DISK_BYTES - 60 - (block.len() + entry) - entry];
    log.append(Stream::Stdout, &[&first[..], b"\n"].concat());
    assert!(std::fs::write(&filler, vec![0; DISK_BYTES]).is_err());
    for _ in 0..3 {
        log.append(Stream::Stdout, &block);
    }
    std::fs::remove_file(&filler).unwrap();
    log.append(Stream::Stdout, b"lost\n");
    let size = std::fs::metadata(&path).unwrap().len();
    assert_eq!(size, DISK_BYTES as u64, "the note was begun");
    rustix::mount::mount_remount(disk.0.path(), MountFlags::empty(), c"size=64k").unwrap();
    log.append(Stream::Stdout, b"kept\n");
    let lost = 2 * block.len() as u64 + 5;
    assert_eq!((log.close(0), said(&path)), (lost, lost));
    assert!(replay(&path, Stream::Stdout).ends_with(b"2kept\n"));
}

/// How many bytes a log says it lacks.
fn said(path: &Path) -> u64 {
    let notes = String::from_utf8(replay(path, Stream::Stderr)).unwrap();
    let number = |note: &str| note.split(' ').nth(1)?.parse::<u64>().ok();
    notes.lines().map(|note| number(note).unwrap()).sum()
}
