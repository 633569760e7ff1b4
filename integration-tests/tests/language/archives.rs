//! What a tar may try (security.md, B7 and B18).

use teu_integration_tests::tar::{Member, archive};

/// Archives that try to leave the place where they are unpacked.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn evil_archives(outside: &str) -> Vec<(&'static str, Vec<u8>)> {
    let file = |name: &'static [u8]| Member {
        name,
        content: b"evil",
        ..Member::default()
    };
    let inside = format!("{outside}/new");
    let link = |kind, name: &'static [u8], target: &[u8]| {
        archive(&[
            Member {
                kind,
                name,
                link: target,
                ..Member::default()
            },
            Member {
                name: b"d/new",
                content: b"evil",
                ..Member::default()
            },
        ])
    };
    vec![
        (
            "dots",
            archive(&[
                file(b"../../../../../../outside/new"),
                file(b"a/../../../outside/new"),
            ]),
        ),
        (
            "absolute",
            archive(&[Member {
                name: inside.as_bytes(),
                content: b"evil",
                ..Member::default()
            }]),
        ),
        ("through a link", link(b'2', b"d", outside.as_bytes())),
        (
            "through a relative link",
            link(b'2', b"d", b"../../../../outside"),
        ),
        (
            "through a hard link",
            link(b'1', b"d", format!("{outside}/secret").as_bytes()),
        ),
        (
            "hard link out",
            archive(&[Member {
                kind: b'1',
                name: b"h",
                link: b"../../outside/secret",
                ..Member::default()
            }]),
        ),
        (
            "whiteouts",
            archive(&[
                file(b".wh.bin"),
                file(b".wh..wh..opq"),
                file(b"etc/.wh.passwd"),
            ]),
        ),
        (
            "attributes",
            archive(&[Member {
                pax: &[
                    ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                    ("SCHILY.xattr.security.capability", b"x"),
                ],
                ..file(b"f")
            }]),
        ),
        (
            "device",
            archive(&[Member {
                kind: b'4',
                name: b"disk",
                device: (8, 0),
                ..Member::default()
            }]),
        ),
        (
            "claims too much",
            archive(&[Member {
                claimed: Some(0o7_777_777_777),
                ..file(b"f")
            }]),
        ),
    ]
}
