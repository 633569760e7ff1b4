//! Several layers, and many users at once.

use super::*;

// image-spec, layer.md: what several layers mean, through the kernel's overlay.
#[test]
fn stacks_of_layers() {
    for backend in BACKENDS {
        let Some(scratch) = Scratch::new("stacks_of_layers", backend) else {
            continue;
        };
        let below = archive(&[
            ("tmp/", b'5', "", b""),
            ("usr/lib/y", b'0', "", b"y"),
            ("lib", b'2', "usr/lib", b""),
            ("gone", b'0', "", b"x"),
            ("dir/old", b'0', "", b"x"),
            ("target", b'0', "", b"linked"),
        ]);
        let above = archive(&[
            ("lib/x", b'0', "", b"through the link"),
            (".wh.gone", b'0', "", b""),
            ("dir/.wh..wh..opq", b'0', "", b""),
            ("dir/new", b'0', "", b"x"),
            ("linked", b'1', "target", b""),
        ]);
        let layers = [
            scratch.layer(&below).unwrap(),
            scratch.layer(&above).unwrap(),
        ];
        let seen = scratch.seen(&layers);
        scratch
            .store
            .unpack(&layers, &scratch.path("unpacked"))
            .unwrap();
        assert_eq!(
            snapshot(&scratch.path("unpacked"))
                .keys()
                .collect::<Vec<_>>(),
            seen.keys().collect::<Vec<_>>()
        );
        let names: Vec<String> = seen
            .keys()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        assert_eq!(
            names,
            [
                "",
                "dir",
                "dir/new",
                "lib",
                "linked",
                "target",
                "tmp",
                "usr",
                "usr/lib",
                "usr/lib/x",
                "usr/lib/y"
            ]
        );
        assert!(seen[&b"linked"[..]].contains(&Digest::of(b"linked").to_string()));
        assert!(seen[&b"lib"[..]].contains("usr/lib"));
    }
}

// What gc, bundles and builds do beside each other, from many threads.
#[test]
fn many_at_once() {
    let Some(scratch) = Scratch::new("many_at_once", Backend::Erofs) else {
        return;
    };
    let tars: Vec<Vec<u8>> = (0..4)
        .map(|n: u8| {
            archive(&[
                ("f", b'0', "", &[n; 100_000]),
                ("tmp/x", b'0', "", &[n; 10]),
            ])
        })
        .collect();
    std::thread::scope(|scope| {
        for (n, tar) in tars.iter().enumerate() {
            let store = &scratch.store;
            let base = &tars[0];
            scope.spawn(move || {
                for round in 0..6 {
                    let work = store.begin().unwrap();
                    let mut layers = Vec::new();
                    for tar in [base, tar] {
                        let mut writer = work.layer_writer().unwrap();
                        writer.write_all(tar).unwrap();
                        layers.push(writer.finish().unwrap().diff_id);
                    }
                    let id = format!("c{n}-{round}");
                    let root = store.root(&id, &layers).unwrap();
                    drop(work);
                    let view = store.view(&layers).unwrap();
                    let path =
                        format!("/proc/self/fd/{}/f", std::os::fd::AsRawFd::as_raw_fd(&view));
                    assert_eq!(fs::read(path).unwrap()[0], u8::try_from(n).unwrap());
                    root.release().unwrap();
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| (0..20).for_each(|_| assert!(scratch.store.gc().is_ok())));
        }
    });
    scratch.store.gc().unwrap();
    assert_eq!(
        fs::read_dir(scratch.store.folder("mounts"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(
        fs::read_dir(scratch.store.folder("tars").join("sha256"))
            .unwrap()
            .count(),
        0
    );
}
