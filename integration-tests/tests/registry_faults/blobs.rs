//! Layers on their way.

use super::{Ends, Fails, Row, Works, World, always, first, row};
use std::time::Duration;
use teu_integration_tests::faulty::{Faulty, Reply, Request, blob};

pub(super) fn rows(world: &World, _: &Faulty) -> Vec<Row> {
    let mut rows = connections(world);
    rows.extend(ranges(world));
    rows.extend(lies(world));
    rows
}

/// The layer with something done to its answer.
fn layer(
    world: &World,
    done: impl Fn(&Request, Reply, usize) -> Option<Reply> + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    let bytes = world.image.layer.clone();
    move |request| {
        if request.kind != "layer" {
            return None;
        }
        let left = bytes.len() - request.range_start();
        done(request, blob(&bytes, request), left)
    }
}

fn connections(world: &World) -> Vec<Row> {
    let said = |status: u16| move || Reply::new(status);
    vec![
        row(
            "RST at every 64 KiB",
            Works,
            layer(world, |_, reply, left| {
                Some(if left > 65536 {
                    reply.reset_after(65536)
                } else {
                    reply
                })
            }),
        )
        .requests(|seen, _| assert!(seen.iter().any(|one| one.header("range").is_some()))),
        row(
            "end at every 100,000 bytes",
            Works,
            layer(world, |_, reply, left| {
                Some(if left > 100_000 {
                    reply.cut(100_000)
                } else {
                    reply
                })
            }),
        ),
        row(
            "RST before any byte, for ever",
            Fails(&["cut"]),
            always("layer", Reply::reset),
        )
        .requests(|seen, _| assert_eq!(seen.iter().filter(|one| one.kind == "layer").count(), 6)),
        row(
            "one byte and then RST, for ever",
            Fails(&["layer"]),
            layer(world, |_, reply, _| Some(reply.reset_after(1))),
        )
        .requests(|seen, _| assert!(seen.iter().filter(|one| one.kind == "layer").count() <= 14)),
        row(
            "silence in the middle, once",
            Works,
            layer(world, |request, reply, left| {
                (request.nth == 0).then(|| reply.stall(left / 2))
            }),
        )
        .brisk(),
        row(
            "silence in the middle, for ever",
            Fails(&["layer"]),
            layer(world, |_, reply, _| Some(reply.stall(10))),
        )
        .short(),
        row(
            "silence instead of an answer",
            Fails(&["time limit"]),
            always("layer", Reply::silence),
        )
        .short(),
        row(
            "byte by byte",
            Fails(&["only"]),
            layer(world, |_, reply, _| {
                Some(reply.drip(10, Duration::from_millis(100)))
            }),
        )
        .short(),
        row("500 three times", Works, first("layer", 3, said(500))),
        row("500 for ever", Fails(&["500"]), always("layer", said(500))),
        row(
            "503 where it should go on",
            Works,
            layer(world, |request, reply, _| match request.nth {
                0 => Some(reply.cut(70_000)),
                1 | 2 => Some(Reply::new(503)),
                _ => None,
            }),
        ),
        row(
            "429 where it should go on",
            Works,
            layer(world, |request, reply, _| match request.nth {
                0 => Some(reply.cut(70_000)),
                1 => Some(Reply::new(429).header("Retry-After", "0")),
                _ => None,
            }),
        ),
        row("404", Fails(&["has no blob"]), always("layer", said(404))),
        row(
            "404 where it should go on",
            Fails(&["has no blob"]),
            layer(world, |request, reply, _| {
                Some(if request.nth == 0 {
                    reply.cut(70_000)
                } else {
                    Reply::new(404)
                })
            }),
        ),
        row(
            "403",
            Fails(&["does not permit"]),
            always("layer", said(403)),
        ),
        row(
            "keep-alive that is none",
            Works,
            layer(world, |_, reply, _| {
                Some(reply.header("Connection", "keep-alive").uncounted())
            }),
        ),
        row("every connection ends after its answer", Works, |request| {
            (request.kind == "config" && request.nth == 0).then(Reply::nothing)
        }),
        row(
            "in chunks",
            Works,
            layer(world, |_, reply, _| Some(reply.chunked())),
        ),
        row(
            "in chunks that are cut, once",
            Works,
            layer(world, |request, reply, _| {
                (request.nth == 0).then(|| reply.chunked().cut(50_500))
            }),
        ),
        row(
            "no length, the end is the end",
            Works,
            layer(world, |_, reply, _| Some(reply.uncounted())),
        ),
        row(
            "no length, and cut once",
            Works,
            layer(world, |request, reply, _| {
                (request.nth == 0).then(|| reply.uncounted().cut(90_000))
            }),
        ),
    ]
}

fn ranges(world: &World) -> Vec<Row> {
    let whole = world.image.layer.clone();
    let (one, two, three) = (whole.clone(), whole.clone(), whole);
    let cut_first = |then: fn(&Request, Reply, usize) -> Reply| {
        layer(world, move |request, reply, left| {
            Some(if request.nth == 0 {
                reply.cut(70_000)
            } else {
                then(request, reply, left)
            })
        })
    };
    let range = |value: &'static str| {
        let bytes = one.clone();
        layer(world, move |request, reply, _| {
            if request.nth == 0 {
                return Some(reply.cut(70_000));
            }
            Some(
                Reply::new(206)
                    .header("Content-Range", value)
                    .body(&bytes[70_000..]),
            )
        })
    };
    vec![
        row("a range that is ignored", Works, move |request| {
            let all = Reply::new(200).body(two.clone());
            (request.kind == "layer").then(|| {
                if request.nth == 0 {
                    all.cut(70_000)
                } else {
                    all
                }
            })
        }),
        row("416 for a range", Works, move |request| {
            let all = Reply::new(200).body(three.clone());
            match (request.kind, request.nth) {
                ("layer", 0) => Some(all.cut(70_000)),
                ("layer", _) if request.header("range").is_some() => Some(Reply::new(416)),
                _ => None,
            }
        }),
        row(
            "416 for everything",
            Fails(&["416"]),
            always("layer", || Reply::new(416)),
        ),
        row(
            "a range that begins elsewhere",
            Fails(&["instead of the one asked for"]),
            range("bytes 7-99/100"),
        ),
        row(
            "a range of another unit",
            Fails(&["instead of the one asked for"]),
            range("items 1-2/3"),
        ),
        row(
            "a range that is not said",
            Fails(&["instead of the one asked for"]),
            cut_first(|_, _, left| Reply::new(206).body(vec![0; left])),
        ),
        row(
            "a range that is too short",
            Fails(&["instead of"]),
            cut_first(|request, _, left| {
                let start = request.range_start();
                Reply::new(206)
                    .header(
                        "Content-Range",
                        format!("bytes {start}-{}/{}", start + left - 2, start + left),
                    )
                    .body(vec![0; left - 1])
            }),
        ),
        row(
            "the rest is other bytes",
            Fails(&["corrupt"]),
            cut_first(|request, _, left| {
                let start = request.range_start();
                Reply::new(206)
                    .header(
                        "Content-Range",
                        format!("bytes {start}-{}/{}", start + left - 1, start + left),
                    )
                    .body(vec![0; left])
            }),
        ),
    ]
}

fn lies(world: &World) -> Vec<Row> {
    let bytes = world.image.layer.clone();
    let length = bytes.len();
    let as_body = move |change: fn(&mut Vec<u8>), counted: bool| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        move |request: &Request| {
            let reply = Reply::new(200).body(bytes.clone());
            (request.kind == "layer").then(|| if counted { reply } else { reply.uncounted() })
        }
    };
    vec![
        row(
            "one bit is another",
            Fails(&["corrupt"]),
            as_body(|bytes| bytes[5000] ^= 1, true),
        ),
        row(
            "the last byte is another",
            Fails(&["corrupt"]),
            as_body(|bytes| *bytes.last_mut().unwrap() ^= 1, true),
        ),
        row(
            "the first byte is another",
            Fails(&["corrupt"]),
            as_body(|bytes| bytes[0] ^= 1, true),
        ),
        row(
            "all bytes are zero",
            Fails(&["corrupt"]),
            as_body(|bytes| bytes.fill(0), true),
        ),
        row(
            "one byte too many",
            Fails(&["instead of"]),
            as_body(|bytes| bytes.push(0), true),
        ),
        row(
            "one byte too many, length not said",
            Fails(&["corrupt"]),
            as_body(|bytes| bytes.push(0), false),
        ),
        row(
            "a byte too few",
            Fails(&["instead of"]),
            as_body(|bytes| bytes.truncate(bytes.len() - 1), true),
        ),
        row(
            "nothing",
            Fails(&["end of file"]),
            as_body(Vec::clear, true),
        ),
        row(
            "bytes without end",
            Fails(&["corrupt"]),
            always("layer", || Reply::endless("HTTP/1.1 200 OK\r\n\r\n", "x")),
        ),
        row(
            "a length that is too large",
            Fails(&["instead of"]),
            layer(world, move |_, reply, _| {
                Some(reply.header("Content-Length", (length + 1).to_string()))
            }),
        ),
        row(
            "said to be packed by gzip, and the bytes are right",
            Works,
            layer(world, |_, reply, _| {
                Some(reply.header("Content-Encoding", "gzip"))
            }),
        ),
        row(
            "another digest in the head",
            Works,
            layer(world, |_, reply, _| {
                Some(reply.header(
                    "Docker-Content-Digest",
                    format!("sha256:{}", "0".repeat(64)),
                ))
            }),
        ),
        row(
            "bytes behind the answer",
            Ends,
            layer(world, |_, reply, left| {
                Some(reply.header("Content-Length", left.to_string()))
            }),
        ),
        row(
            "a page for browsers",
            Fails(&["instead of"]),
            always("layer", || {
                Reply::new(200).body("<html>log in to the hotel's network</html>")
            }),
        ),
    ]
}
