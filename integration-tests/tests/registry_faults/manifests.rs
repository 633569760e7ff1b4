//! The first answer: statuses, heads and bodies that are not what they should be.

use super::{Ends, Fails, Row, Works, World, always, first, row};
use std::time::Duration;
use teu_integration_tests::faulty::{Faulty, Reply, manifest};

/// An empty manifest of another image.
const OTHER: &str = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;

pub(super) fn rows(world: &World, _: &Faulty) -> Vec<Row> {
    let mut rows = statuses();
    rows.extend(connections(world));
    rows.extend(bodies(world));
    rows.extend(heads(world));
    rows
}

fn statuses() -> Vec<Row> {
    let said = |status: u16| move || Reply::new(status);
    let wait = |value: &'static str| move || Reply::new(429).header("Retry-After", value);
    vec![
        row("500 once", Works, first("manifest", 1, said(500))),
        row("500 three times", Works, first("manifest", 3, said(500))),
        row(
            "500 for ever",
            Fails(&["answers 500"]),
            always("manifest", said(500)),
        )
        .requests(|seen, _| {
            assert_eq!(seen.iter().filter(|one| one.kind == "manifest").count(), 6)
        }),
        row("502 once", Works, first("manifest", 1, said(502))),
        row("503 twice", Works, first("manifest", 2, said(503))),
        row("504 once", Works, first("manifest", 1, said(504))),
        row("408 once", Works, first("manifest", 1, said(408))),
        row("425 once", Works, first("manifest", 1, said(425))),
        row(
            "520 of a balancer once",
            Works,
            first("manifest", 1, said(520)),
        ),
        row(
            "429 without Retry-After",
            Works,
            first("manifest", 2, said(429)),
        ),
        row(
            "429 with Retry-After of no time",
            Works,
            first("manifest", 2, wait("0")),
        ),
        row(
            "429 with Retry-After of a second",
            Works,
            first("manifest", 1, wait("1")),
        ),
        row(
            "429 with Retry-After of a date that has passed",
            Works,
            first("manifest", 1, wait("Wed, 21 Oct 2015 07:28:00 GMT")),
        ),
        row(
            "429 with Retry-After of nonsense",
            Works,
            first("manifest", 1, wait("soon")),
        ),
        row(
            "429 with Retry-After of hours",
            Fails(&["429", "pull rate limit"]),
            always("manifest", || {
                Reply::new(429)
                    .header("Retry-After", "21600")
                    .body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#)
            }),
        )
        .requests(|seen, _| {
            assert_eq!(seen.iter().filter(|one| one.kind == "manifest").count(), 1)
        }),
        row(
            "404",
            Fails(&["has no team/app:1", "check the name"]),
            always("manifest", said(404)),
        ),
        row(
            "403",
            Fails(&["does not permit"]),
            always("manifest", said(403)),
        ),
        row(
            "400 is not tried again",
            Fails(&["400"]),
            always("manifest", said(400)),
        )
        .requests(|seen, _| {
            assert_eq!(seen.iter().filter(|one| one.kind == "manifest").count(), 1)
        }),
        row("405", Fails(&["405"]), always("manifest", said(405))),
        row(
            "an error with escapes for a terminal",
            Fails(&["gone"]),
            always("manifest", || {
                Reply::new(400).body("{\"errors\":[{\"message\":\"\\u001b[2Jgone\"}]}")
            }),
        ),
        row(
            "an error page of megabytes",
            Fails(&["400"]),
            always("manifest", || {
                Reply::new(400).body("<html>".repeat(1 << 20))
            }),
        ),
        row(
            "204 without content",
            Fails(&["204"]),
            always("manifest", said(204)),
        ),
        row(
            "206 that nobody asked for",
            Fails(&["206"]),
            always("manifest", said(206)),
        ),
    ]
}

fn connections(world: &World) -> Vec<Row> {
    let bytes = world.image.manifest.clone();
    let good = move || manifest(bytes.clone());
    let (one, two, three, four, five, six) = (
        good.clone(),
        good.clone(),
        good.clone(),
        good.clone(),
        good.clone(),
        good,
    );
    vec![
        row(
            "RST instead of an answer, once",
            Works,
            first("manifest", 1, Reply::reset),
        ),
        row(
            "RST instead of an answer, for ever",
            Fails(&["cut"]),
            always("manifest", Reply::reset),
        ),
        row(
            "end instead of an answer, once",
            Works,
            first("manifest", 1, Reply::nothing),
        ),
        row(
            "end instead of an answer, for ever",
            Fails(&["manifest"]),
            always("manifest", Reply::nothing),
        ),
        row(
            "RST in the body, once",
            Works,
            first("manifest", 1, move || one().reset_after(20)),
        ),
        row(
            "end in the body, once",
            Works,
            first("manifest", 1, move || two().cut(20)),
        ),
        row(
            "end in the body, for ever",
            Fails(&["manifest"]),
            always("manifest", move || three().cut(20)),
        ),
        row(
            "end in the head, once",
            Works,
            first("manifest", 1, || {
                Reply::raw("HTTP/1.1 200 OK\r\nContent-Le")
            }),
        ),
        row(
            "silence instead of an answer",
            Fails(&["nothing came within the time limit"]),
            always("manifest", Reply::silence),
        )
        .short(),
        row(
            "silence in the body, once",
            Works,
            first("manifest", 1, move || four().stall(20)),
        )
        .brisk(),
        row(
            "silence in the body, for ever",
            Fails(&["time limit"]),
            always("manifest", move || five().stall(20)),
        )
        .short(),
        row(
            "a body byte by byte",
            Fails(&["only"]),
            always("manifest", move || {
                six().drip(5, Duration::from_millis(300))
            }),
        )
        .short(),
        row(
            "a head byte by byte",
            Fails(&["manifest"]),
            always("manifest", || {
                Reply::dripping(
                    "HTTP/1.1 200 OK\r\n".repeat(100),
                    Duration::from_millis(300),
                )
            }),
        )
        .short(),
    ]
}

fn bodies(world: &World) -> Vec<Row> {
    let json = |text: &'static str| always("manifest", move || manifest(text));
    let bytes = world.image.manifest.clone();
    let length = bytes.len();
    let (one, two, three, four, five, six) = (
        bytes.clone(),
        bytes.clone(),
        bytes.clone(),
        bytes.clone(),
        bytes.clone(),
        bytes,
    );
    vec![
        row("an empty body", Fails(&["manifest"]), json("")),
        row("no JSON", Fails(&["parse the manifest"]), json("hello")),
        row(
            "a page for browsers",
            Fails(&["parse the manifest"]),
            json("<html></html>"),
        ),
        row("a list", Fails(&["manifest"]), json("[]")),
        row("null", Fails(&["manifest"]), json("null")),
        row(
            "JSON that nests ten thousand times",
            Fails(&["manifest"]),
            always("manifest", || manifest("[".repeat(10_000))),
        ),
        row(
            "schema 1",
            Fails(&["schema 1"]),
            json(r#"{"schemaVersion":1,"fsLayers":[]}"#),
        ),
        row(
            "schema 3",
            Fails(&["schema version 3"]),
            json(r#"{"schemaVersion":3}"#),
        ),
        row(
            "neither manifest nor index",
            Fails(&["missing field"]),
            json(r#"{"schemaVersion":2}"#),
        ),
        row(
            "both manifest and index",
            Fails(&["two things"]),
            json(r#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#),
        ),
        row(
            "called otherwise than it calls itself",
            Fails(&["calls itself"]),
            move |request| {
                let reply = Reply::new(200)
                    .header("Content-Type", "application/vnd.oci.image.index.v1+json");
                (request.kind == "manifest").then(|| reply.body(one.clone()))
            },
        ),
        row(
            "five megabytes",
            Fails(&["longer than"]),
            always("manifest", || manifest(" ".repeat(5 << 20))),
        ),
        row(
            "a body without end",
            Fails(&["longer than"]),
            always("manifest", || {
                Reply::endless("HTTP/1.1 200 OK\r\n\r\n", " ")
            }),
        ),
        row(
            "a length that is too small",
            Fails(&["parse the manifest"]),
            move |request| {
                (request.kind == "manifest").then(|| manifest(two[..length / 2].to_vec()))
            },
        ),
        row(
            "other bytes, by digest",
            Fails(&["instead of the one asked for"]),
            json(OTHER),
        ),
        row(
            "a digest in the head that is not true",
            Works,
            move |request| {
                let reply = manifest(three.clone()).header(
                    "Docker-Content-Digest",
                    format!("sha256:{}", "0".repeat(64)),
                );
                (request.kind == "manifest").then_some(reply)
            },
        ),
        row(
            "packed by gzip though nobody asked",
            Fails(&["manifest"]),
            always("manifest", || {
                manifest([0x1f, 0x8b, 8, 0, 0, 0, 0, 0].as_slice())
                    .header("Content-Encoding", "gzip")
            }),
        ),
        row("in chunks", Works, move |request| {
            (request.kind == "manifest").then(|| manifest(four.clone()).chunked())
        }),
        row("in chunks that are cut, once", Works, move |request| {
            (request.kind == "manifest" && request.nth == 0)
                .then(|| manifest(five.clone()).chunked().cut(30))
        }),
        row(
            "a tag that changes with each request",
            Works,
            move |request| {
                (request.kind == "manifest" && request.nth > 0)
                    .then(|| manifest(OTHER).body(six[..9].to_vec()))
            },
        )
        .requests(|seen, _| {
            assert_eq!(seen.iter().filter(|one| one.kind == "manifest").count(), 1)
        }),
    ]
}

fn heads(world: &World) -> Vec<Row> {
    let good = |head: &str| {
        let text = String::from_utf8(world.image.manifest.clone()).unwrap();
        let head = head.replace("LENGTH", &text.len().to_string());
        let whole = format!("{head}\r\n\r\n{text}");
        always("manifest", move || Reply::raw(whole.clone()))
    };
    vec![
        row(
            "no reason behind the status",
            Works,
            good("HTTP/1.1 200\r\nContent-Length: LENGTH"),
        ),
        row(
            "names of headers in small letters",
            Works,
            good("HTTP/1.1 200 OK\r\ncontent-length: LENGTH"),
        ),
        row(
            "no length, the end is the end",
            Works,
            good("HTTP/1.1 200 OK\r\nX: y"),
        ),
        row(
            "HTTP/1.0",
            Works,
            good("HTTP/1.0 200 OK\r\nContent-Length: LENGTH"),
        ),
        row(
            "two lengths",
            Ends,
            good("HTTP/1.1 200 OK\r\nContent-Length: LENGTH\r\nContent-Length: 5"),
        ),
        row(
            "a negative length",
            Ends,
            good("HTTP/1.1 200 OK\r\nContent-Length: -1"),
        ),
        row(
            "a length of 2^64",
            Ends,
            good("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616"),
        ),
        row(
            "a length and chunks",
            Ends,
            good("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: LENGTH"),
        ),
        row(
            "chunks of no length",
            Fails(&["manifest"]),
            good("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"),
        ),
        row(
            "a chunk of 2^70 bytes",
            Fails(&["manifest"]),
            always("manifest", || {
                Reply::raw(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400000000000000000\r\nx",
                )
            }),
        ),
        row(
            "a version that nobody knows",
            Fails(&["manifest"]),
            good("HTTP/7.3 200 OK\r\nContent-Length: LENGTH"),
        ),
        row(
            "another protocol",
            Fails(&["manifest"]),
            always("manifest", || Reply::raw("SSH-2.0-OpenSSH_9.2\r\n")),
        ),
        row(
            "zero bytes",
            Fails(&["manifest"]),
            always("manifest", || Reply::raw(vec![0; 4096])),
        ),
        row(
            "a status of four digits",
            Fails(&["manifest"]),
            always("manifest", || Reply::raw("HTTP/1.1 2000 OK\r\n\r\n")),
        ),
        row(
            "headers without end",
            Fails(&["manifest"]),
            always("manifest", || {
                Reply::endless("HTTP/1.1 200 OK\r\n", "X-Header: y\r\n")
            }),
        ),
        row(
            "a header without end",
            Fails(&["manifest"]),
            always("manifest", || Reply::endless("HTTP/1.1 200 OK\r\nX: ", "y")),
        ),
        row(
            "a status line without end",
            Fails(&["manifest"]),
            always("manifest", || Reply::endless("HTTP/1.1 200 ", "y")),
        ),
        row(
            "100 before the answer",
            Ends,
            good("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: LENGTH"),
        ),
        row(
            "a header of bytes that are no text",
            Ends,
            always("manifest", || {
                Reply::raw(
                    b"HTTP/1.1 200 OK\r\nX: \xff\xfe\x00\r\nContent-Length: 2\r\n\r\n{}".as_slice(),
                )
            }),
        ),
    ]
}
