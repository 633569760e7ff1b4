//! Archives and blobs that lie.

use super::*;

// security.md, S1 to S4, S6, S7, S9, S24, S25: refused, or harmless; never outside.
#[test]
fn hostile_members() {
    let refused: [&[Member<'_>]; 14] = [
        &[("../x", b'0', "", b"x")],
        &[("a/../../x", b'0', "", b"x")],
        &[(".", b'2', "/etc", b"")],
        &[("/", b'2', "/etc", b"")],
        &[("a", b'1', "../../etc/passwd", b"")],
        &[("a", b'?', "", b"")],
        &[("c", b'3', "", b"")],
        &[("a", b'2', "x", b"data of a link")],
        &[("x", b'x', "", b"9 path=ab")],
        &[("x", b'x', "", b"10 size=x1\n"), ("a", b'0', "", b"x")],
        &[
            ("x", b'x', "", b"9 path=a\n"),
            ("x", b'x', "", b"9 path=b\n"),
            ("a", b'0', "", b"x"),
        ],
        &[("g", b'g', "", b"9 path=a\n"), ("b", b'0', "", b"x")],
        &[(".wh.", b'0', "", b"")],
        &[("a", b'0', "", b"x"), ("a/b", b'0', "", b"x")],
    ];
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("hostile_members", backend) else {
            continue;
        };
        for members in refused {
            let result = scratch.layer(&archive(members));
            assert!(
                matches!(result, Err(Error::Layer { .. })),
                "{members:?}: {result:?}"
            );
        }
        let outside = scratch.path("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        let before = snapshot(&outside);
        let outside = outside.to_str().unwrap();
        let layer = scratch.layer(&archive(&[
            ("d", b'2', outside, b""),
            ("d/x", b'0', "", b"written through a link"),
            ("d/y/z", b'5', "", b""),
            ("e", b'2', "../../../../..", b""),
            ("e/etc-x", b'0', "", b"x"),
            ("d", b'2', outside, b""),
            ("f", b'0', "", b"1"),
            ("f", b'0', "", b"2"),
        ]));
        let seen = scratch.seen(&[layer.unwrap()]);
        assert_eq!(snapshot(Path::new(outside)), before);
        assert!(seen.contains_key(format!("{}/x", &outside[1..]).as_bytes()));
        assert!(seen.contains_key(&b"etc-x"[..]));
        assert!(seen[&b"f"[..]].contains(&Digest::of(b"2").to_string()));
    }
}

// CVE-2025-62518: what one reader takes for data, another takes for a member.
#[test]
fn pax_size_wins_over_the_header() {
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("pax_size_wins_over_the_header", backend) else {
            continue;
        };
        let hidden = archive(&[("hidden", b'0', "", b"x")]);
        let size = hidden.len();
        let record = format!("size={size}\n");
        let record = format!("{} {record}", record.len() + 3);
        let mut tar = archive(&[("x", b'x', "", record.as_bytes()), ("outer", b'0', "", b"")]);
        tar.truncate(tar.len() - 1024);
        tar.extend_from_slice(&hidden);
        tar.extend_from_slice(&[0; 1024]);
        let path = scratch.path("archive.tar");
        fs::write(&path, &tar).unwrap();
        let seen = scratch.seen(&[scratch.layer(&tar).unwrap()]);
        assert!(!seen.contains_key(&b"hidden"[..]));
        assert!(seen[&b"outer"[..]].contains(&Digest::of(&hidden).to_string()));
        assert!(!unpacked_by_tar(&scratch, &path).contains_key(&b"hidden"[..]));
    }
}

#[test]
fn dirty_padding_is_not_seen_behind_the_end() {
    let Some(scratch) = Scratch::new("dirty_padding_is_not_seen_behind_the_end", Backend::Erofs)
    else {
        return;
    };
    let mut tar = archive(&[("a", b'0', "", b"abc"), ("b", b'0', "", b"def")]);
    tar[512 + 3..512 + 20].fill(b'!');
    let layer = scratch.layer(&tar).unwrap();
    let root = scratch.store.root("test", &[layer]).unwrap();
    assert_eq!(fs::read(root.lowers()[0].join("a")).unwrap(), b"abc");
    let (index, _) = (fs::read(scratch.store.index_path(&layer)).unwrap(), ());
    assert!(
        index.windows(3).any(|bytes| bytes == b"abc")
            && !index.windows(3).any(|bytes| bytes == b"def")
    );
    root.release().unwrap();
}

#[test]
fn compressed_blobs_and_their_lies() {
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("compressed_blobs_and_their_lies", backend) else {
            continue;
        };
        let tar = archive(&[("a", b'0', "", &b"content".repeat(100_000))]);
        let half = tar.len() / 2;
        let mut gzip = Vec::new();
        for part in [&tar[..half], &tar[half..]] {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            gzip.extend(encoder.finish().unwrap());
        }
        let zstd = zstd::encode_all(&tar[..], 3).unwrap();
        let work = scratch.store.begin().unwrap();
        let diff_id = DiffId(Digest::of(&tar));
        for (kind, blob) in [("+gzip", &gzip), ("+zstd", &zstd), ("", &tar)] {
            let kind = format!("application/vnd.oci.image.layer.v1.tar{kind}");
            let descriptor =
                crate::image::Descriptor::new(kind, Digest::of(blob), blob.len() as u64);
            let ingest = |bytes: &[u8], expected: &DiffId| {
                work.ingest_layer(bytes, &descriptor, Some(expected), &mut |_| {})
            };
            let mut flipped = blob.clone();
            flipped[blob.len() / 3] ^= 1;
            assert!(matches!(
                ingest(&flipped, &diff_id),
                Err(Error::DigestMismatch { .. })
            ));
            assert!(matches!(
                ingest(&blob[..blob.len() - 1], &diff_id),
                Err(Error::SizeMismatch { .. })
            ));
            assert!(matches!(
                ingest(&[&blob[..], b"x"].concat(), &diff_id),
                Err(Error::SizeMismatch { .. })
            ));
            assert!(matches!(
                ingest(blob, &DiffId(Digest::of(b"other"))),
                Err(Error::DigestMismatch { .. })
            ));
            assert!(!scratch.store.has_blob(&descriptor.digest));
            let layer = ingest(blob, &diff_id).unwrap();
            assert_eq!((layer.diff_id, layer.size), (diff_id, tar.len() as u64));
            assert_eq!(
                scratch
                    .store
                    .read_blob(&descriptor.digest, descriptor.size)
                    .unwrap(),
                **blob
            );
            assert!(work.has_layer(&diff_id).unwrap());
        }
    }
}

// security.md, S11: a million gzip members with nothing in them, alone and before a layer; frames of zstd to skip.
#[test]
fn packings_of_nothing() {
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("packings_of_nothing", backend) else {
            continue;
        };
        let gzip = |content: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        };
        let tar = archive(&[("a", b'0', "", b"x")]);
        let skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip".repeat(1000);
        let members = gzip(b"").repeat(1_000_000);
        let rows = [
            ("gzip", members.clone(), false),
            ("gzip", [&members[..], &gzip(&tar)].concat(), true),
            ("zstd", skipped.clone(), false),
            ("zstd", zstd::encode_all(&b""[..], 3).unwrap(), false),
            (
                "zstd",
                [skipped, zstd::encode_all(&tar[..], 3).unwrap()].concat(),
                true,
            ),
        ];
        let work = scratch.store.begin().unwrap();
        for (number, (kind, blob, is_good)) in rows.into_iter().enumerate() {
            let kind = format!("application/vnd.oci.image.layer.v1.tar+{kind}");
            let descriptor =
                crate::image::Descriptor::new(kind, Digest::of(&blob), blob.len() as u64);
            let begin = std::time::Instant::now();
            let taken = work.ingest_layer(&blob[..], &descriptor, None, &mut |_| {});
            assert_eq!(taken.is_ok(), is_good, "row {number}: {taken:?}");
            assert_eq!(scratch.store.has_blob(&descriptor.digest), is_good);
            // Unoptimized, and beside other tests.
            assert!(begin.elapsed().as_secs() < 30, "row {number}");
        }
    }
}

// security.md, section 1.6: 2,000 directories of 255 bytes that are no UTF-8, in bounded time, on every thread's stack.
#[test]
fn deep_paths() {
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("deep_paths", backend) else {
            continue;
        };
        let name = [0xff_u8; 255];
        let deep = vec![&name[..]; 2000].join(&b'/');
        let attributes = crate::tar::Attributes {
            mode: 0o755,
            ..Default::default()
        };
        let layer = |file: &[u8], explicit: bool| {
            let mut tar = crate::tar::Writer::new(Vec::new());
            if explicit {
                let special = crate::tar::Attributes {
                    mode: 0o700,
                    ..attributes.clone()
                };
                tar.directory(&deep, &special).unwrap();
            }
            tar.file(&[&deep[..], b"/", file].concat(), &attributes, 1, &b"x"[..])
                .unwrap();
            scratch.layer(&tar.finish().unwrap()).unwrap()
        };
        let layers = [layer(b"a", true), layer(b"b", false)];
        let root = scratch.store.root("test", &layers).unwrap();
        assert_eq!(root.lowers().len(), 3, "two layers and what corrects them");
        let mut here =
            rustix::fs::open(&root.lowers()[1], rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
        for _ in 0..2000 {
            here = rustix::fs::openat(&here, &name[..], rustix::fs::OFlags::PATH, Mode::empty())
                .unwrap();
        }
        assert_eq!(
            rustix::fs::statat(&here, c"b", rustix::fs::AtFlags::empty())
                .unwrap()
                .st_size,
            1
        );
        let target = scratch.path("unpacked");
        scratch.store.unpack(&layers, &target).unwrap();
        crate::dirs::remove(&target).unwrap();
        root.release().unwrap();
    }
}

// security.md, S20 and S25.
#[test]
fn attributes_that_steer_or_do_not_fit() {
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("attributes_that_steer_or_do_not_fit", backend) else {
            continue;
        };
        let tar = |names: &[(&str, usize)]| {
            let mut attributes = crate::tar::Attributes {
                mode: 0o755,
                ..Default::default()
            };
            for (name, size) in names {
                attributes
                    .xattrs
                    .insert(name.as_bytes().into(), vec![b'y'; *size].into());
            }
            let mut tar = crate::tar::Writer::new(Vec::new());
            tar.directory(b"d", &attributes).unwrap();
            tar.finish().unwrap()
        };
        let steering = [
            ("trusted.overlay.opaque", 1),
            ("trusted.overlay.redirect", 2),
            ("user.overlay.opaque", 1),
            ("com.apple.provenance", 3),
            ("user.kept", 1),
        ];
        let layer = scratch.layer(&tar(&steering)).unwrap();
        let root = scratch.store.root("test", &[layer]).unwrap();
        assert_eq!(
            xattrs(&root.lowers()[0].join("d")),
            [("user.kept".to_owned(), b"y".to_vec())]
        );
        root.release().unwrap();
        let long = format!("user.{}", "n".repeat(251));
        for refused in [(long.as_str(), 1), ("user.large", 70_000)] {
            assert!(matches!(
                scratch.layer(&tar(&[refused])),
                Err(Error::Layer { .. })
            ));
        }
    }
}

// security.md, S21: who takes in many malformed layers has no more open than before, and nothing left on disk.
#[test]
fn malformed_layers_leave_nothing_open() {
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("malformed_layers_leave_nothing_open", backend) else {
            continue;
        };
        for round in 0..500_usize {
            let name = format!("../{round}");
            let members: &[Member<'_>] = &[("a", b'0', "", b"x"), (&name, b'0', "", b"x")];
            assert!(scratch.layer(&archive(members)).is_err());
        }
        // Other tests run in this process: what counts is what lies in this store.
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
        let own = open.filter(|target| target.starts_with(scratch.dir.path()));
        assert_eq!(own.collect::<Vec<_>>(), Vec::<PathBuf>::new());
        let left = fs::read_dir(scratch.store.folder("tmp")).unwrap().count();
        assert_eq!(left, 0);
    }
}
