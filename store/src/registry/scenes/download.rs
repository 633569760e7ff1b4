//! Blobs and manifests on their way down.

use super::*;

#[test]
fn a_cut_blob_is_resumed_by_range() {
    let bytes = content(300_000);
    let body = bytes.clone();
    let server = Server::new(move |request, _| {
        let start: usize = request
            .header("range")
            .and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let reply = if start == 0 {
            Reply::new(200)
        } else {
            Reply::new(206)
        };
        let last = body.len() - 1;
        let reply = reply.header(
            "Content-Range",
            format!("bytes {start}-{last}/{}", body.len()),
        );
        let rest = body[start..].to_vec();
        if rest.len() > 100_000 {
            reply.body(rest).cut(100_000)
        } else {
            reply.body(rest)
        }
    });
    assert!(read_all(&server.client(Access::Pull, None), &bytes).unwrap() == bytes);
    let ranges: Vec<_> = server
        .seen()
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=100000-".into()),
            Some("bytes=200000-".into())
        ]
    );
}

#[test]
fn a_server_that_ignores_ranges_is_read_past() {
    let bytes = content(200_000);
    let body = bytes.clone();
    let server = Server::new(move |_, number| {
        let reply = Reply::new(200).body(body.clone());
        if number == 0 {
            reply.cut(150_000)
        } else {
            reply
        }
    });
    assert!(read_all(&server.client(Access::Pull, None), &bytes).unwrap() == bytes);
}

#[test]
fn a_server_that_cuts_without_end_is_given_up() {
    let server = Server::new(|_, _| Reply::new(200).body(content(5000)).cut(0));
    let error = read_all(&server.client(Access::Pull, None), &content(5000)).unwrap_err();
    assert_eq!(server.seen().len(), 6, "{error}");
}

#[test]
fn a_wrong_range_or_length_is_refused_at_once() {
    let server = Server::new(|request, _| match request.header("range") {
        None => Reply::new(200).body(content(5000)).cut(1000),
        Some(_) => Reply::new(206)
            .header("Content-Range", "bytes 7-4999/5000")
            .body(content(4993)),
    });
    assert!(read_all(&server.client(Access::Pull, None), &content(5000)).is_err());
    assert_eq!(server.seen().len(), 2);
    let server = Server::new(|_, _| Reply::new(200).body(content(5001)));
    let error = read_all(&server.client(Access::Pull, None), &content(5000)).unwrap_err();
    assert!(
        error.to_string().contains("5001 bytes instead of 5000"),
        "{error}"
    );
}

#[test]
fn passing_trouble_is_waited_out() {
    let server = Server::new(|_, number| match number {
        0 => Reply::new(503),
        1 => Reply::new(429).header("Retry-After", "0"),
        2 => Reply::new(200).body(MANIFEST).cut(3),
        _ => Reply::new(200).body(MANIFEST),
    });
    assert_eq!(
        server
            .client(Access::Pull, None)
            .manifest("1")
            .unwrap()
            .bytes,
        MANIFEST
    );
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_limit_of_hours_is_an_error_at_once() {
    let server = Server::new(|_, _| {
        Reply::new(429)
            .header("Retry-After", "21600")
            .body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#)
    });
    let error = server.client(Access::Pull, None).manifest("1").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("429 (TOOMANYREQUESTS: pull rate limit)"),
        "{error}"
    );
    assert_eq!(server.seen().len(), 1);
}

// security.md, S16 and S27.
#[test]
fn a_manifest_is_what_was_asked_for_and_no_longer_than_it_may_be() {
    let server = Server::new(|_, _| Reply::new(200).body(MANIFEST));
    let client = server.client(Access::Pull, None);
    assert!(client.manifest(&Digest::of(MANIFEST).to_string()).is_ok());
    let error = client
        .manifest(&Digest::of(b"other").to_string())
        .unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    let server = Server::new(|_, _| Reply::new(200).length(1 << 40).body(vec![b' '; 5 << 20]));
    let error = server.client(Access::Pull, None).manifest("1").unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn a_head_without_end_is_refused() {
    let server = Server::new(|_, _| {
        Reply::new(200)
            .header("X", "x".repeat(200_000))
            .body(MANIFEST)
    });
    let error = server.client(Access::Pull, None).manifest("1").unwrap_err();
    assert!(
        matches!(
            error,
            Error::Transport {
                source: Transport::Other(_),
                ..
            }
        ),
        "{error}"
    );
}
