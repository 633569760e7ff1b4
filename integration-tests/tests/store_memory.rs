//! How much memory `teu-store` takes for layers made to need much: its peak, measured by the kernel, against the
//! peak for a layer of one file. What is asked for is 64 MiB more at most.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::io::Write;
use std::process::{Command, Stdio};
use teu_integration_tests::tar::{Member, archive};
use teu_integration_tests::{Scene, binary};

/// What any layer may take over one of a single file, KiB.
const LIMIT_KIB: u64 = 64 * 1024;

/// Runs a command and prints, last, the largest resident set of its processes in KiB.
const MEASURE: &str = "import resource, subprocess, sys\n\
    subprocess.run(sys.argv[1:])\n\
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";

/// The peak of importing the archive that `write` makes, KiB, and what the import said on stderr.
fn peak_of(scene: &Scene, write: impl FnOnce(&mut dyn Write)) -> (u64, String) {
    let mut import = Command::new("python3");
    import.args(["-c", MEASURE]).arg(binary("teu-store"));
    import.arg("--root").arg(scene.store());
    import.args(["import", "-q", "-", "memory:test"]);
    let import = import
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = import.spawn().unwrap();
    let mut input = std::io::BufWriter::with_capacity(1 << 20, child.stdin.take().unwrap());
    write(&mut input);
    drop(input);
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let peak = printed.lines().last().unwrap().parse().unwrap();
    (peak, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What of an archive precedes its end mark.
fn members(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = archive(members);
    bytes.truncate(bytes.len() - 1024);
    bytes
}

/// Writes `bytes`; a store that has given up is no error here.
fn send(out: &mut dyn Write, bytes: &[u8]) {
    let _ = out.write_all(bytes);
}

#[test]
fn a_million_entries_take_less_than_64_mib() {
    const COUNT: u32 = 1_000_000;
    let scene = Scene::new("a million entries");
    let (base, _) = peak_of(&scene, |out| send(out, &archive(&[Member::default()])));
    let (peak, stderr) = peak_of(&scene, |out| {
        // One header, of which only the name's digits and the checksum change.
        let mut header = members(&[Member {
            name: b"folder/0000000",
            ..Member::default()
        }]);
        let checksum = |header: &[u8]| -> u32 {
            let fields = [&header[..148], &[b' '; 8], &header[156..]];
            fields
                .iter()
                .copied()
                .flatten()
                .map(|byte| u32::from(*byte))
                .sum()
        };
        let zeros = checksum(&header);
        for number in 0..COUNT {
            let digits = format!("{number:07}");
            let added: u32 = digits.bytes().map(|digit| u32::from(digit - b'0')).sum();
            header[7..14].copy_from_slice(digits.as_bytes());
            let sum = format!("{:06o}\0 ", zeros + added);
            header[148..156].copy_from_slice(sum.as_bytes());
            send(out, &header);
        }
        send(out, &[0; 1024]);
    });
    assert!(stderr.is_empty(), "{stderr}");
    eprintln!(
        "{COUNT} empty files: {base} KiB and {} KiB more",
        peak - base
    );
    assert!(peak < base + LIMIT_KIB, "{base} KiB, then {peak} KiB");
    let listed = scene.run("teu-store", ["images"]);
    assert!(listed.stdout.contains("memory"), "{listed}");
}

/// Layers whose headers promise more than anybody would keep: refused, with a reason, and without keeping it.
#[test]
fn what_headers_promise_is_not_kept() {
    let scene = Scene::new("promises");
    let (base, _) = peak_of(&scene, |out| send(out, &archive(&[Member::default()])));
    let promise = |kind: u8, claimed: u64| {
        members(&[Member {
            kind,
            claimed: Some(claimed),
            ..Member::default()
        }])
    };
    let sparse = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"1"),
    ];
    let map = members(&[Member {
        content: b"1000000000\n0\n",
        claimed: Some(1 << 30),
        pax: &sparse,
        ..Member::default()
    }]);
    let xattrs: Vec<u8> = (0..40_000)
        .flat_map(|number| {
            teu_integration_tests::tar::record(&format!("SCHILY.xattr.user.{number}"), b"x")
        })
        .collect();
    let attributes = members(&[
        Member {
            kind: b'x',
            content: &xattrs[..1_000_000.min(xattrs.len())],
            ..Member::default()
        },
        Member::default(),
    ]);
    let zeros = vec![0; 1 << 20];
    for (name, header) in [
        ("a PAX header of 1 GiB", promise(b'x', 1 << 30)),
        ("a long name of 1 GiB", promise(b'L', 1 << 30)),
        ("a sparse map of 1 GiB", map),
        ("an inode of a megabyte of attributes", attributes),
    ] {
        let (peak, stderr) = peak_of(&scene, |out| {
            send(out, &header);
            for _ in 0..64 {
                send(out, &zeros);
            }
        });
        assert_eq!(stderr.trim().lines().count(), 1, "{name}: {stderr}");
        assert!(
            peak < base + LIMIT_KIB / 2,
            "{name}: {base} KiB, then {peak} KiB"
        );
    }
}

/// Files of many holes, and a gzip of very many members: taken, at the same price.
#[test]
fn what_is_intricate_is_taken_in_bounded_memory() {
    let scene = Scene::new("intricate");
    let (base, _) = peak_of(&scene, |out| send(out, &archive(&[Member::default()])));
    // As many pieces as one file may have, in each of 20 files.
    let map: String = (0..30_000)
        .map(|piece| format!("{},1,", piece * 2))
        .collect();
    let pax = [
        ("GNU.sparse.map", map.trim_end_matches(',').as_bytes()),
        ("GNU.sparse.size", b"60000"),
    ];
    let content = vec![b'x'; 30_000];
    let (peak, stderr) = peak_of(&scene, |out| {
        for number in 0..20 {
            let name = format!("sparse{number}");
            send(
                out,
                &members(&[Member {
                    name: name.as_bytes(),
                    content: &content,
                    pax: &pax,
                    ..Member::default()
                }]),
            );
        }
        send(out, &[0; 1024]);
    });
    assert!(stderr.is_empty(), "{stderr}");
    assert!(peak < base + LIMIT_KIB, "{base} KiB, then {peak} KiB");

    let mut gzip = Command::new("gzip");
    let gzip = gzip.arg("-c").stdin(Stdio::null()).output().unwrap().stdout;
    let (peak, stderr) = peak_of(&scene, |out| {
        send(out, &gzip.repeat(1_000_000));
    });
    assert!(stderr.lines().count() <= 1, "{stderr}");
    assert!(peak < base + LIMIT_KIB / 2, "{base} KiB, then {peak} KiB");
}
