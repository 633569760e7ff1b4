//! Pushing to registries that fail.

use super::{Expect, Fails, Row, Works, World, row};
use teu_integration_tests::faulty::{Faulty, Reply, Request, digest};

fn on(
    kind: &'static str,
    method: &'static str,
    times: usize,
    reply: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    move |request| {
        let meant = request.kind == kind && request.method == method && request.nth < times;
        meant.then(|| reply(request))
    }
}

fn rows(elsewhere: &Faulty) -> Vec<Row> {
    let said = |status: u16| move |_: &Request| Reply::new(status);
    let ever = usize::MAX;
    let there = format!("http://{}/upload", elsewhere.host);
    vec![
        row("nothing is wrong", Works, |_| None),
        row(
            "HEAD fails three times",
            Works,
            on("blob", "HEAD", 3, said(500)),
        ),
        row(
            "POST fails three times",
            Works,
            on("upload", "POST", 3, said(503)),
        ),
        row(
            "POST fails for ever",
            Fails(&["503"]),
            on("upload", "POST", ever, said(503)),
        ),
        row(
            "POST is reset, once",
            Works,
            on("upload", "POST", 1, |_| Reply::reset()),
        ),
        row(
            "POST is not permitted",
            Fails(&["does not permit"]),
            on("upload", "POST", ever, said(403)),
        ),
        row(
            "POST wants a log-in",
            Fails(&["log-in"]),
            on("upload", "POST", ever, said(401)),
        ),
        row(
            "POST says no place",
            Fails(&["where to write to"]),
            on("upload", "POST", ever, said(202)),
        ),
        row(
            "POST says a place that is none",
            Fails(&["write"]),
            on("upload", "POST", ever, |_| {
                Reply::new(202).header("Location", "http://[::")
            }),
        ),
        row(
            "PATCH fails once",
            Works,
            on("upload", "PATCH", 1, said(500)),
        ),
        row(
            "PATCH fails for ever",
            Fails(&["500"]),
            on("upload", "PATCH", ever, said(500)),
        ),
        row(
            "PATCH is reset, twice",
            Works,
            on("upload", "PATCH", 2, |_| Reply::reset()),
        ),
        row(
            "PATCH is too much, once",
            Works,
            on("upload", "PATCH", 1, said(413)),
        ),
        row(
            "PATCH is always too much",
            Fails(&["413"]),
            on("upload", "PATCH", ever, said(413)),
        ),
        row("PATCH loses the session", Works, |request| {
            match (request.kind, &*request.method, request.nth) {
                ("upload", "PATCH", 0) => Some(Reply::new(500)),
                ("upload", "GET", 0) => Some(Reply::new(404)),
                _ => None,
            }
        }),
        row(
            "PATCH says it has more than was sent",
            Fails(&["bytes after"]),
            on("upload", "PATCH", ever, |_| {
                Reply::new(202)
                    .header("Location", "/v2/team/app/blobs/uploads/s0")
                    .header("Range", "0-99999999999")
            }),
        ),
        row("PATCH says nonsense", Works, |request| {
            let meant = request.kind == "upload" && request.method == "PATCH" && request.nth == 0;
            meant.then(|| Reply::new(500).header("Range", "all of it"))
        }),
        row("PUT is reset after it was done", Works, |_| None),
        row("PUT fails once", Works, on("upload", "PUT", 1, said(502))),
        row(
            "PUT fails for ever",
            Fails(&["502"]),
            on("upload", "PUT", ever, said(502)),
        ),
        row(
            "PUT says the digest is wrong",
            Fails(&["DIGEST_INVALID"]),
            on("upload", "PUT", ever, |_| {
                Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#)
            }),
        ),
        row(
            "the manifest fails three times",
            Works,
            on("manifest", "PUT", 3, said(500)),
        ),
        row(
            "the manifest is refused",
            Fails(&["MANIFEST_INVALID"]),
            on("manifest", "PUT", ever, |_| {
                Reply::new(400).body(r#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#)
            }),
        ),
        row(
            "the manifest is stored as another",
            Fails(&["stored it as"]),
            on("manifest", "PUT", ever, |_| {
                Reply::new(201).header("Docker-Content-Digest", digest(b"other"))
            }),
        ),
        row(
            "blobs go to another host, which hears no password",
            Works,
            move |request| {
                if request.header("authorization").is_none() {
                    return Some(Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#));
                }
                (request.kind == "upload" && request.method == "POST")
                    .then(|| Reply::new(202).header("Location", there.clone()))
            },
        )
        .with(&["--creds", "alice:secret"])
        .elsewhere(|request| {
            let status = if request.method == "PUT" { 201 } else { 202 };
            let host = request.header("host").unwrap_or_default();
            Some(Reply::new(status).header("Location", format!("http://{host}/upload")))
        })
        .requests(|_, elsewhere| {
            assert!(!elsewhere.is_empty());
            super::no_password(elsewhere);
        }),
    ]
}

#[test]
fn uploads() {
    let world = World::new("faults: uploads");
    world.scene.write("nobody.json", "{}");
    let count = rows(&Faulty::start(None, Box::new(|_| None))).len();
    assert!(count >= 24);
    super::each(count, |number| push(&world, number));
}

fn push(world: &World, number: usize) {
    let script: std::sync::Arc<std::sync::OnceLock<super::Fault>> = std::sync::Arc::default();
    let other = std::sync::Arc::clone(&script);
    let elsewhere = Faulty::start(
        None,
        Box::new(move |request| other.get().and_then(|fault| fault(request))),
    );
    let mut row = rows(&elsewhere).swap_remove(number);
    let _ = script.set(std::mem::replace(&mut row.elsewhere, Box::new(|_| None)));
    let fault = std::mem::replace(&mut row.fault, Box::new(|_| None));
    let registry = Faulty::start(None, fault);
    let name = format!("{}/team/app:1", registry.host);
    let outcome = world.run(&row, "push", &["-q", "busybox", &name]);
    (row.requests)(&registry.seen(), &elsewhere.seen());
    if outcome.code() == 0 && elsewhere.seen().is_empty() {
        // What arrived is the image.
        let back = row_of("pulled back");
        let pulled = world.run(
            &back,
            "copy",
            &["-q", &format!("docker://{name}"), "oci:back"],
        );
        assert_eq!(pulled.code(), 0, "{}: {pulled}", row.name);
        world.scene.shell("rm -rf back");
    }
    if matches!(row.expect, Expect::Fails(_)) {
        let manifests = registry
            .seen()
            .into_iter()
            .filter(|one| one.kind == "manifest" && one.method == "PUT");
        let about_blobs = !row.name.contains("manifest");
        assert!(
            !about_blobs || manifests.count() == 0,
            "{}: the name was changed",
            row.name
        );
    }
}

fn row_of(name: &'static str) -> Row {
    row(name, Works, |_| None)
}
