//! Blobs on their way up.

use super::*;

struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&self.0[offset as usize..]))
    }
}

/// A session that takes what comes, told by `patch` how.
fn upload_server(patch: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Server {
    Server::new(move |request, number| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("Location", "/v2/a/b/blobs/uploads/1?state=x"),
        "PUT" => Reply::new(201),
        _ => patch(request, number),
    })
}

#[test]
fn a_blob_goes_up_in_one_piece() {
    let bytes = content(70_000);
    let last = bytes.len() - 1;
    let server = upload_server(move |_, _| {
        Reply::new(202)
            .header("Location", "/v2/a/b/blobs/uploads/2")
            .header("Range", format!("0-{last}"))
    });
    let digest = Digest::of(&bytes);
    let client = server.client(Access::Push, None);
    assert_eq!(
        client
            .upload(&digest, bytes.len() as u64, &Bytes(bytes.clone()), None)
            .unwrap(),
        Uploaded::Sent
    );
    let seen = server.seen();
    assert_eq!(seen[2].path, "/v2/a/b/blobs/uploads/1?state=x");
    assert!(seen[2].body == bytes);
    assert_eq!(
        seen[3].path,
        format!("/v2/a/b/blobs/uploads/2?digest=sha256%3A{}", digest.hex())
    );
}

#[test]
fn a_registry_that_takes_less_at_once_gets_pieces() {
    let bytes = content(20 << 20);
    let got = Mutex::new(0);
    let server = upload_server(move |request, _| {
        let mut got = got.lock().unwrap();
        if request.body.len() > 10 << 20 {
            return Reply::new(413);
        }
        *got += request.body.len();
        Reply::new(if request.method == "GET" { 204 } else { 202 })
            .header("Location", "/v2/a/b/blobs/uploads/1")
            .header("Range", format!("0-{}", got.saturating_sub(1)))
    });
    let digest = Digest::of(&bytes);
    server
        .client(Access::Push, None)
        .upload(&digest, bytes.len() as u64, &Bytes(bytes), None)
        .unwrap();
    let pieces: Vec<_> = server
        .seen()
        .iter()
        .filter(|request| request.method == "PATCH")
        .map(|request| request.header("content-range").map(str::to_owned))
        .collect();
    assert_eq!(
        pieces,
        [
            None,
            Some("0-8388607".into()),
            Some("8388608-16777215".into()),
            Some("16777216-20971519".into())
        ]
    );
}

#[test]
fn an_upload_that_was_cut_goes_on_where_it_was() {
    let bytes = content(70_000);
    let server = upload_server(|request, number| match (request.method.as_str(), number) {
        ("PATCH", 2) => Reply::new(503),
        ("GET", _) => Reply::new(204)
            .header("Location", "/v2/a/b/blobs/uploads/1")
            .header("Range", "0-29999"),
        _ => Reply::new(202)
            .header("Location", "/v2/a/b/blobs/uploads/1")
            .header("Range", "0-69999"),
    });
    let digest = Digest::of(&bytes);
    server
        .client(Access::Push, None)
        .upload(&digest, bytes.len() as u64, &Bytes(bytes.clone()), None)
        .unwrap();
    let second = server
        .seen()
        .into_iter()
        .filter(|request| request.method == "PATCH")
        .nth(1)
        .unwrap();
    assert_eq!(second.header("content-range"), Some("30000-69999"));
    assert!(second.body == bytes[30_000..]);
}

#[test]
fn a_lost_session_begins_anew() {
    let bytes = content(1000);
    let server = upload_server(|request, number| match (request.method.as_str(), number) {
        ("PATCH", 2) => Reply::new(500),
        ("GET", _) => Reply::new(404),
        _ => Reply::new(202)
            .header("Location", "/v2/a/b/blobs/uploads/1")
            .header("Range", "0-999"),
    });
    let digest = Digest::of(&bytes);
    let how = server
        .client(Access::Push, None)
        .upload(&digest, 1000, &Bytes(bytes), None)
        .unwrap();
    assert_eq!(how, Uploaded::Sent);
    assert_eq!(
        server
            .seen()
            .iter()
            .filter(|request| request.method == "POST")
            .count(),
        2
    );
}

#[test]
fn a_mount_that_is_refused_is_a_session() {
    for (status, how) in [(201, Uploaded::Mounted), (202, Uploaded::Sent)] {
        let server = Server::new(move |request, _| match request.method.as_str() {
            "HEAD" => Reply::new(404),
            "POST" => Reply::new(status).header("Location", "/v2/a/b/blobs/uploads/1"),
            "PUT" => Reply::new(201),
            _ => Reply::new(202).header("Location", "/v2/a/b/blobs/uploads/1"),
        });
        let client = server.client(Access::Push, None);
        let digest = Digest::of(b"x");
        assert_eq!(
            client
                .upload(&digest, 1, &Bytes(b"x".to_vec()), Some("base/image"))
                .unwrap(),
            how
        );
        assert!(server.seen()[1].path.ends_with(&format!(
            "?mount=sha256%3A{}&from=base%2Fimage",
            digest.hex()
        )));
    }
}

#[test]
fn a_registry_that_stores_something_else_is_noticed() {
    let server = Server::new(|_, _| {
        Reply::new(201).header("Docker-Content-Digest", Digest::of(b"other").to_string())
    });
    let error = server
        .client(Access::Push, None)
        .put_manifest("1", "x/y", MANIFEST)
        .unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    // Debian's registry answers with sha256 whatever was asked for.
    let server = Server::new(|_, _| {
        Reply::new(201).header("Docker-Content-Digest", Digest::of(MANIFEST).to_string())
    });
    server
        .client(Access::Push, None)
        .put_manifest("1", "x/y", MANIFEST)
        .unwrap();
}
