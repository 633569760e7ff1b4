//! Layers that try to leave their root, to smuggle entries in, or to exhaust us.
//!
//! Each is imported and unpacked on both back-ends beside a sentinel outside.
//! What must hold: the sentinel is as before, and the answer is an error with a
//! message or a correct result, never a panic, a signal or a hang.
//!
//! Known attacks (S1 to S30), verdicts where good peers disagree, and the tests that hold them, each on both back-ends
//! as far as it touches one. Without a suite named: `store/src`.
//!
//! | attack | test |
//! |---|---|
//! | S1 names that climb, writes through links | `names_that_climb_out`, `writes_through_links` here; `hostile_members` in `ingest/tests/hostile.rs` |
//! | S2 hard links to the outside | `hard_links_to_the_outside` here, `hostile_members` |
//! | S3 directories made outside before the error | `writes_through_links` here, `hostile_members` |
//! | S4 mode or owner changed through a link | `writes_through_links` here, `hostile_members` |
//! | S5 links that race with an unpacking | suite `hostile_races`: `links_that_race_with_an_unpacking`, `…_a_packing` |
//! | S6 a root that is a link | `roots_that_are_something_else` here, `hostile_members` |
//! | S7, S8 sizes that disagree, smuggled members | `sizes_that_disagree` here, `pax_size_wins_over_the_header` in `ingest/tests/hostile.rs`, `oracles/` |
//! | S9 malformed records | `records_that_are_no_records` here, `malformed_records_are_errors` in `tar/pax.rs` |
//! | S10, S12 claims and bombs | `a_bomb_of_directories_is_refused`, `a_bomb_is_taken_in_bounded_memory` here; `tree/budget.rs`; suite `store_memory` |
//! | S11 packed streams that lie | `an_archive_that_unpacks_to_nothing_is_refused` here; `packings_of_nothing`, `compressed_blobs_and_their_lies` in `ingest/tests/hostile.rs`; `ingest/blob.rs` (windows) |
//! | S13, S14, S26 documents | `image/document.rs`, `fuzzing.rs`, suite `registry_faults` |
//! | S15 digests that are paths | `digest.rs`, suite `registry_faults` |
//! | S16, S17, S18, S27 registries | `registry/scenes/`, suite `registry_faults` |
//! | S19 layouts with links | `only_regular_files_of_the_layout_are_read` in `archive/place.rs` |
//! | S20 names at their limits | `names_at_their_limits`, `layers_may_lie_as_deep_as_the_limit` here; `deep_paths`, `attributes_that_steer_or_do_not_fit` in `ingest/tests/hostile.rs` |
//! | S21 descriptors that stay open | `malformed_layers_leave_nothing_open` in `ingest/tests/hostile.rs` |
//! | S22 volumes and working directories that climb | `places_of_the_configuration_stay_inside` here |
//! | S23 passwd that is no file | `bundle/user.rs` |
//! | S24 whiteouts of nothing | `whiteouts_of_nothing` here, `tree/stack.rs` |
//! | S25 attributes and devices of overlays | `overlay_attributes_are_not_smuggled` here, `attributes_that_steer_or_do_not_fit`, `identity.rs` |
//! | S28 removal that follows links | suite `hostile_races`: `links_that_race_with_a_removal`; `dirs/remove.rs` |
//! | S29 content that is here opens no door | suite `registry_access`: `what_is_here_already_opens_no_door`; `packed.rs` |
//! | S30 other file systems as layers | `a_layer_of_another_kind_is_refused` here |
//!
//! | verdict | test |
//! |---|---|
//! | of members of one name the last counts | `the_last_of_one_name_counts` here, `hostile_members` |
//! | links are resolved inside the root | `writes_through_links` here, `hostile_members` |
//! | a global PAX header may hold comments alone | `a_global_header_may_comment` here, `hostile_members` |
//! | a size other than the descriptor's is refused | `compressed_blobs_and_their_lies`, suite `registry_faults` |
//! | `.wh.`, `.wh..`, `.wh...` are refused | `whiteouts_of_nothing` here |
//! | ids above 2^32-2 are refused | `unknown_kinds_and_truncated_archives` here |
//! | 2,000 directories deep, 255 bytes, no UTF-8: taken byte by byte, soon | `names_at_their_limits` here, `deep_paths` |
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

use std::path::Path;
use std::time::Duration;
use teu_integration_tests::tar::{Member, archive};
use teu_integration_tests::{Outcome, Scene, tree};

/// More than a shared machine needs for any of these.
const LIMIT: Duration = Duration::from_secs(20);

const BACKENDS: [&str; 2] = ["erofs", "directory"];

/// What must come of a layer.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    /// An error that says why.
    Refused,
    /// It is imported and unpacked.
    Accepted,
    /// Either is right, as long as the sentinel stands.
    Harmless,
}

fn file<'a>(name: &'a [u8], content: &'a [u8]) -> Member<'a> {
    Member {
        name,
        content,
        ..Member::default()
    }
}

fn link<'a>(kind: u8, name: &'a [u8], target: &'a [u8]) -> Member<'a> {
    Member {
        kind,
        name,
        link: target,
        ..Member::default()
    }
}

fn folder(name: &[u8]) -> Member<'_> {
    Member {
        kind: b'5',
        name,
        mode: 0o755,
        ..Member::default()
    }
}

/// Imports and unpacks `layer` on both back-ends and checks the verdict and the sentinel.
fn judge(name: &str, verdict: Verdict, layer: impl Fn(&Path) -> Vec<u8>) {
    for backend in BACKENDS {
        let scene = Scene::new(&format!("{name} on {backend}"));
        let outside = scene.path("outside");
        scene.write("outside/secret", "untouched");
        scene.shell("chmod 600 outside/secret && chmod 700 outside");
        let before = tree::describe(&outside);
        scene.write("layer.tar", layer(&outside));
        let import = scene.run_within(
            LIMIT,
            "teu-store",
            ["--backend", backend, "import", "layer.tar", "hostile"],
        );
        check_message(&import);
        let mut refused = !import.status.success();
        if !refused {
            let unpack = scene.run_within(
                LIMIT,
                "teu-store",
                ["--backend", backend, "unpack", "hostile", "bundle"],
            );
            check_message(&unpack);
            refused = !unpack.status.success();
            let leaked = scene.run("grep", ["-rqs", "untouched", "bundle", "data"]);
            assert!(
                !leaked.status.success(),
                "{name}: the sentinel's content is in the image"
            );
        }
        assert_eq!(tree::describe(&outside), before, "{name} on {backend}");
        match verdict {
            Verdict::Refused => assert!(refused, "{name} was accepted on {backend}"),
            Verdict::Accepted => assert!(!refused, "{name} was refused on {backend}"),
            Verdict::Harmless => {}
        }
    }
}

/// A failure is one line that speaks of the layer, not of what an image lacks to be run.
fn check_message(outcome: &Outcome) {
    assert!(
        outcome.code() < 100 && !outcome.stderr.contains("panicked"),
        "{outcome}"
    );
    if !outcome.status.success() {
        let message = outcome.stderr.trim();
        assert!(
            !message.is_empty() && message.lines().count() == 1,
            "{outcome}"
        );
        assert!(!message.contains("command to run"), "{outcome}");
    }
}

fn path(folder: &Path, name: &str) -> Vec<u8> {
    folder.join(name).into_os_string().into_encoded_bytes()
}

#[test]
fn names_that_climb_out() {
    judge("dotdot", Verdict::Harmless, |_| {
        archive(&[
            file(b"../../../../../outside/new", b"x"),
            file(b"a/../../outside/new", b"x"),
        ])
    });
    judge("absolute", Verdict::Harmless, |outside| {
        archive(&[file(&path(outside, "new"), b"x")])
    });
}

#[test]
fn writes_through_links() {
    judge("through a symlink", Verdict::Harmless, |outside| {
        archive(&[
            link(b'2', b"d", outside.as_os_str().as_encoded_bytes()),
            file(b"d/new", b"x"),
        ])
    });
    judge("through a relative symlink", Verdict::Harmless, |_| {
        archive(&[link(b'2', b"d", b"../../outside"), file(b"d/new", b"x")])
    });
    judge("onto a symlink", Verdict::Harmless, |outside| {
        archive(&[link(b'2', b"f", &path(outside, "secret")), file(b"f", b"x")])
    });
    judge("folders through a symlink", Verdict::Harmless, |outside| {
        archive(&[
            link(b'2', b"d", outside.as_os_str().as_encoded_bytes()),
            folder(b"d/a/b/c"),
        ])
    });
    judge("mode through a symlink", Verdict::Harmless, |outside| {
        archive(&[
            link(b'2', b"d", outside.as_os_str().as_encoded_bytes()),
            Member {
                mode: 0o777,
                owner: (7, 7),
                ..folder(b"d")
            },
        ])
    });
}

#[test]
fn hard_links_to_the_outside() {
    judge("absolute hard link", Verdict::Harmless, |outside| {
        archive(&[link(b'1', b"h", &path(outside, "secret")), file(b"h", b"x")])
    });
    judge(
        "hard link through a symlink",
        Verdict::Harmless,
        |outside| {
            archive(&[
                link(b'2', b"d", outside.as_os_str().as_encoded_bytes()),
                link(b'1', b"h", b"d/secret"),
                file(b"h", b"x"),
            ])
        },
    );
}

#[test]
fn roots_that_are_something_else() {
    for name in [&b"."[..], b"/", b"./", b"a/.."] {
        judge("root replaced", Verdict::Refused, |outside| {
            archive(&[
                link(b'2', name, outside.as_os_str().as_encoded_bytes()),
                file(b"new", b"x"),
            ])
        });
    }
}

#[test]
fn whiteouts_of_nothing() {
    for name in [&b".wh."[..], b".wh..", b".wh...", b"a/.wh.."] {
        judge("odd whiteout", Verdict::Refused, |_| {
            archive(&[folder(b"a"), file(b"a/kept", b"x"), file(name, b"")])
        });
    }
}

#[test]
fn sizes_that_disagree() {
    // What stands in the content looks like a member to a reader that believes the wrong size.
    let inner = archive(&[file(b"smuggled", b"x")]);
    judge("PAX size over header size", Verdict::Harmless, |_| {
        let size = inner.len().to_string();
        archive(&[Member {
            content: &inner,
            claimed: Some(0),
            pax: &[("size", size.as_bytes())],
            ..file(b"outer", b"")
        }])
    });
    judge("a claim beyond the end", Verdict::Refused, |_| {
        archive(&[Member {
            claimed: Some(1 << 32),
            ..file(b"short", b"x")
        }])
    });
}

#[test]
fn records_that_are_no_records() {
    for content in [
        &b"notanumber path=x\n"[..],
        b"9 path=x",
        b"999999 path=x\n",
        b"\n",
        b"5 =\n",
    ] {
        judge("bad PAX record", Verdict::Refused, |_| {
            archive(&[
                Member {
                    kind: b'x',
                    ..file(b"p", content)
                },
                file(b"f", b"x"),
            ])
        });
    }
    judge("a zero byte in a PAX path", Verdict::Refused, |_| {
        archive(&[Member {
            pax: &[("path", b"a\0b")],
            ..file(b"f", b"x")
        }])
    });
    judge("a header that claims to be huge", Verdict::Refused, |_| {
        archive(&[Member {
            kind: b'x',
            claimed: Some(7 << 30),
            ..file(b"p", b"")
        }])
    });
    judge(
        "a long name that claims to be huge",
        Verdict::Refused,
        |_| {
            archive(&[Member {
                kind: b'L',
                claimed: Some(7 << 30),
                ..file(b"p", b"")
            }])
        },
    );
}

#[test]
fn unknown_kinds_and_truncated_archives() {
    judge("unknown type", Verdict::Refused, |_| {
        archive(&[Member {
            kind: b'9',
            ..file(b"f", b"x")
        }])
    });
    judge("cut in the middle", Verdict::Refused, |_| {
        let mut bytes = archive(&[file(b"f", &[7; 5000])]);
        bytes.truncate(2000);
        bytes
    });
    for (key, id) in [("uid", "4294967296"), ("gid", "4294967295"), ("uid", "-1")] {
        judge("owners that are none", Verdict::Refused, |_| {
            archive(&[Member {
                pax: &[(key, id.as_bytes())],
                ..file(b"f", b"x")
            }])
        });
    }
    judge("the last owner", Verdict::Accepted, |_| {
        archive(&[Member {
            pax: &[("uid", b"4294967294"), ("gid", b"4294967294")],
            ..file(b"f", b"x")
        }])
    });
}

#[test]
fn names_at_their_limits() {
    let long = vec![b'n'; 256];
    judge("a name of 256 bytes", Verdict::Refused, |_| {
        archive(&[Member {
            pax: &[("path", &long)],
            ..file(b"f", b"x")
        }])
    });
    let deep: Vec<u8> = (0..2000).flat_map(|_| *b"d/").chain(*b"f").collect();
    judge("a name of 255 bytes", Verdict::Accepted, |_| {
        archive(&[Member {
            pax: &[("path", &long[..255])],
            ..file(b"f", b"x")
        }])
    });
    judge("2000 folders deep", Verdict::Accepted, |_| {
        archive(&[Member {
            pax: &[("path", &deep)],
            ..file(b"f", b"x")
        }])
    });
    judge("bytes that are no text", Verdict::Accepted, |_| {
        archive(&[file(b"\xff\xfe\n\\\"\x1b[31m", b"x")])
    });
}

#[test]
fn a_global_header_may_comment() {
    let global = |content: &'static [u8]| {
        archive(&[
            Member {
                kind: b'g',
                ..file(b"pax_global_header", content)
            },
            file(b"f", b"x"),
        ])
    };
    judge("a comment for all", Verdict::Accepted, |_| {
        global(b"13 comment=x\n")
    });
    for content in [&b"9 path=a\n"[..], b"9 size=1\n", b"8 uid=7\n"] {
        judge("a name for all", Verdict::Refused, |_| global(content));
    }
}

/// As an overlay would show it: what comes later replaces what came before, whatever its kind.
#[test]
fn the_last_of_one_name_counts() {
    for backend in BACKENDS {
        let scene = Scene::new(&format!("one name twice on {backend}"));
        let layer = archive(&[
            file(b"a", b"first"),
            file(b"a", b"second"),
            file(b"b", b"a file"),
            link(b'2', b"b", b"a"),
            link(b'2', b"c", b"a"),
            file(b"c", b"a file"),
        ]);
        scene.write("layer.tar", layer);
        let run = |words: &[&str]| {
            let words = [&["--backend", backend], words].concat();
            scene.run("teu-store", words).succeeds()
        };
        run(&["import", "-q", "layer.tar", "twice"]);
        run(&["unpack", "twice", "bundle"]);
        let said =
            scene.shell("cd bundle/rootfs && cat a && echo && readlink b && cat c && test ! -L c");
        assert_eq!(said, "second\na\na file", "{backend}");
        // What it is mounted as, is the same.
        let mounted = scene.run(
            "teu-store",
            ["--backend", backend, "mount", "twice", "view"],
        );
        if mounted.status.success() {
            let said = scene.shell("cd view && cat a && echo && readlink b && cat c");
            run(&["umount", "view"]);
            assert_eq!(said, "second\na\na file", "{backend}");
        }
    }
}

/// Overlay attributes and the whiteout device of a layer never reach a lower directory.
#[test]
fn overlay_attributes_are_not_smuggled() {
    for backend in BACKENDS {
        let scene = Scene::new(&format!("overlay attributes on {backend}"));
        let layer = archive(&[
            Member {
                pax: &[
                    ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ],
                ..folder(b"d")
            },
            Member {
                kind: b'3',
                ..file(b"whiteout", b"")
            },
            file(b"kept", b"x"),
        ]);
        scene.write("layer.tar", layer);
        let import = scene.run(
            "teu-store",
            ["--backend", backend, "import", "layer.tar", "hostile"],
        );
        if import.status.success() {
            scene
                .run(
                    "teu-store",
                    ["--backend", backend, "unpack", "hostile", "bundle"],
                )
                .succeeds();
            let attributes = scene.run("getfattr", ["-d", "-m", "-", "bundle/rootfs/d"]);
            assert!(!attributes.stdout.contains("overlay"), "{attributes}");
            assert!(!scene.path("bundle/rootfs/whiteout").exists());
        } else {
            assert!(!import.stderr.contains("panicked"), "{import}");
        }
    }
}

/// Some members of a few kilobytes each stand for millions of directories.
#[test]
fn a_bomb_of_directories_is_refused() {
    let paths: Vec<Vec<u8>> = (0..600)
        .map(|number| [format!("{number}").into_bytes(), b"/d".repeat(4000)].concat())
        .collect();
    judge("millions of directories", Verdict::Refused, |_| {
        let pax: Vec<_> = paths
            .iter()
            .map(|path| [("path", path.as_slice())])
            .collect();
        let members: Vec<Member> = pax
            .iter()
            .map(|pax| Member {
                pax,
                ..folder(b"d")
            })
            .collect();
        archive(&members)
    });
}

/// A million packed members with nothing in them are an error, and soon.
#[test]
fn an_archive_that_unpacks_to_nothing_is_refused() {
    let scene = Scene::new("nothing");
    scene.shell(
        "gzip -n </dev/null >one && for _ in $(seq 1000); do cat one; done >many && for _ in $(seq 1000); do cat many; done >all.tar.gz",
    );
    let refused = scene.run_within(LIMIT, "teu-store", ["import", "all.tar.gz", "nothing"]);
    let _ = refused.fails(1, &["unpacks to nothing"]);
    let piped = scene.run(
        "sh",
        [
            "-c",
            &format!(
                "{} --root data/store import - nothing < all.tar.gz",
                teu_integration_tests::binary("teu-store").display()
            ),
        ],
    );
    let _ = piped.fails(1, &["unpacks to nothing"]);
}

/// Whatever walks a tree does not run out of stack on its deepest one.
#[test]
fn layers_may_lie_as_deep_as_the_limit() {
    let deepest: Vec<u8> = [&b"d/".repeat(4095)[..], b"f"].concat();
    judge("4095 folders deep", Verdict::Accepted, |_| {
        archive(&[Member {
            pax: &[("path", &deepest)],
            ..file(b"f", b"x")
        }])
    });
}

/// A small archive that unpacks to much is taken in bounded memory.
#[test]
fn a_bomb_is_taken_in_bounded_memory() {
    let scene = Scene::new("bomb");
    scene.shell(
        "head -c 600M /dev/zero > zeros && tar -cf - zeros | gzip -1 > bomb.tar.gz && rm zeros",
    );
    let line = format!(
        "ulimit -v 400000; exec {} --root {} import bomb.tar.gz bomb",
        teu_integration_tests::binary("teu-store").display(),
        scene.store().display()
    );
    let outcome = scene.run("sh", ["-c", &line]);
    assert!(
        outcome.code() < 100 && !outcome.stderr.contains("memory"),
        "{outcome}"
    );
}

/// S22: what an image says of volumes and of its working directory makes nothing outside, and changes nothing there.
#[test]
fn places_of_the_configuration_stay_inside() {
    for backend in BACKENDS {
        let scene = Scene::new(&format!("places of the configuration on {backend}"));
        let outside = scene.path("outside");
        scene.shell("mkdir outside && echo 1 > outside/file && chmod 700 outside && mkdir root && ln -s ../../../../../../../.. root/up && tar -C root -cf root.tar .");
        let before = tree::describe(&outside);
        let climbing = format!("/../../../../../../..{}", outside.display());
        let linked = format!("/up{}", outside.display());
        let run = |words: &[&str]| {
            let words = [&["--backend", backend], words].concat();
            scene.run("teu-store", words).succeeds()
        };
        run(&["import", "-q", "root.tar", "plain"]);
        for place in [&climbing, &linked] {
            let (volume, bundle) = (format!("{place}/new"), "bundle");
            run(&[
                "config",
                "plain",
                "hostile",
                "--volume",
                &volume,
                "--workdir",
                place,
            ]);
            run(&["unpack", "hostile", bundle]);
            scene.write("request.json", r#"{"args": ["true"]}"#);
            run(&[
                "bundle",
                "create",
                "--id",
                "it",
                "--request",
                "request.json",
                "hostile",
                "held",
            ]);
            run(&["bundle", "release", "it"]);
            assert_eq!(tree::describe(&outside), before, "{backend} {place}");
            scene.shell("rm -r bundle held");
        }
    }
}

/// S30: only what we wrote ourselves is ever mounted.
#[test]
fn a_layer_of_another_kind_is_refused() {
    let scene = Scene::new("layer of another kind");
    scene.shell(
        "echo x > x && tar -cf x.tar x && umoci init --layout oci && umoci new --image oci:x && umoci raw add-layer --image oci:x x.tar",
    );
    for kind in [
        "application/vnd.oci.image.layer.v1.erofs",
        "application/vnd.oci.image.layer.v1.squashfs",
        "text/plain",
    ] {
        let script = format!(
            "rm -rf bad && cp -r oci bad && cd bad && old=$(jq -r .manifests[0].digest index.json) && jq -c '.layers[0].mediaType = \"{kind}\"' blobs/sha256/${{old#sha256:}} > new && new=$(sha256sum new | cut -d' ' -f1) && size=$(stat -c %s new) && mv new blobs/sha256/$new && jq -c \".manifests[0].digest = \\\"sha256:$new\\\" | .manifests[0].size = $size\" index.json > i && mv i index.json"
        );
        scene.shell(&script);
        let _ = scene
            .run("teu-store", ["import", "bad", "bad"])
            .fails(1, &[kind]);
    }
}
