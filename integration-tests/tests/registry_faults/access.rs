//! Tokens, passwords, redirects: who gets to hear what.

use super::{Fails, Row, Works, World, always, no_password, row};
use teu_integration_tests::faulty::{Faulty, Reply, Request};

const CREDS: [&str; 2] = ["--creds", "alice:secret"];

pub(super) fn rows(world: &World, elsewhere: &Faulty) -> Vec<Row> {
    let mut rows = realms(elsewhere);
    rows.extend(tokens());
    rows.extend(passwords());
    rows.extend(redirects(world, elsewhere));
    rows
}

fn challenge(realm: &str) -> Reply {
    Reply::new(401).header(
        "WWW-Authenticate",
        format!(r#"Bearer realm="{realm}",service="s""#),
    )
}

/// Asks everyone for a token from `realm`.
fn asks(realm: impl Into<String>) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    let realm = realm.into();
    move |request| (request.kind != "token").then(|| challenge(&realm))
}

fn realms(elsewhere: &Faulty) -> Vec<Row> {
    let refused = || Fails(&["which is not followed"]);
    vec![
        row(
            "a token from the cloud's metadata",
            refused(),
            asks("http://169.254.169.254/latest/meta-data"),
        ),
        row("a token from a file", refused(), asks("file:///etc/shadow")),
        row(
            "a token from another site",
            refused(),
            asks("https://evil.test/token"),
        ),
        row(
            "a token from an address with a password",
            refused(),
            asks(format!("http://x@{}/token", elsewhere.host)),
        )
        .requests(|_, elsewhere| assert!(elsewhere.is_empty())),
        row("a token from no address", refused(), asks("token")),
        row(
            "a token from an address of five thousand bytes",
            refused(),
            asks(format!("http://127.0.0.1/{}", "x".repeat(5000))),
        ),
        row(
            "a token from a name with escapes",
            refused(),
            asks("http://evil\\u001b[2J.test/"),
        ),
        row(
            "a challenge of a thousand parameters",
            Fails(&["log-in"]),
            |_| {
                Some(Reply::new(401).header(
                    "WWW-Authenticate",
                    format!("Bearer {}", "a=b,".repeat(1000)),
                ))
            },
        ),
        row(
            "a challenge that is too long for a head",
            Fails(&["manifest"]),
            |_| Some(Reply::new(401).header("WWW-Authenticate", "x".repeat(200_000))),
        ),
        row(
            "a challenge of a kind that nobody knows",
            Fails(&["log-in"]),
            |_| Some(Reply::new(401).header("WWW-Authenticate", "Negotiate")),
        ),
        row("401 without a challenge", Fails(&["log-in"]), |_| {
            Some(Reply::new(401))
        }),
    ]
}

/// A registry that wants a token, and what its token server answers.
fn with_token(
    answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    move |request| {
        if request.kind == "token" {
            return Some(answer(request));
        }
        if request.header("authorization") == Some("Bearer good") {
            return None;
        }
        let host = request.header("host").unwrap_or_default();
        Some(challenge(&format!("http://{host}/token")))
    }
}

fn tokens() -> Vec<Row> {
    let text = |body: &'static str| with_token(move |_| Reply::new(200).body(body));
    vec![
        row("a token", Works, text(r#"{"token":"good"}"#)),
        row(
            "a token in the other field",
            Works,
            text(r#"{"access_token":"good","expires_in":3600}"#),
        ),
        row(
            "a token that has ended already",
            Works,
            text(r#"{"token":"good","expires_in":0}"#),
        ),
        row(
            "a token that lasts for ever",
            Works,
            text(r#"{"token":"good","expires_in":18446744073709551615}"#),
        ),
        row("no token", Fails(&["no token"]), text("{}")),
        row(
            "an empty token",
            Fails(&["no token"]),
            text(r#"{"token":""}"#),
        ),
        row(
            "a token that would be a header of its own",
            Fails(&["no token"]),
            text(r#"{"token":"a\r\nX: y"}"#),
        ),
        row(
            "a token that is no JSON",
            Fails(&["no token"]),
            text("<html>"),
        ),
        row(
            "a token of a megabyte",
            Fails(&["token"]),
            with_token(|_| Reply::new(200).body("x".repeat(1 << 20))),
        ),
        row(
            "a token without end",
            Fails(&["token"]),
            with_token(|_| Reply::endless("HTTP/1.1 200 OK\r\n\r\n", "x")),
        ),
        row(
            "a token server that fails three times",
            Works,
            with_token(|request| {
                if request.nth < 3 {
                    Reply::new(500)
                } else {
                    Reply::new(200).body(r#"{"token":"good"}"#)
                }
            }),
        ),
        row(
            "a token server that fails for ever",
            Fails(&["get a token", "500"]),
            with_token(|_| Reply::new(500)),
        ),
        row(
            "a token server that is silent",
            Fails(&["get a token", "time limit"]),
            with_token(|_| Reply::silence()),
        )
        .short(),
        row(
            "a token server that cuts, once",
            Works,
            with_token(|request| {
                let reply = Reply::new(200).body(r#"{"token":"good"}"#);
                if request.nth == 0 {
                    reply.cut(4)
                } else {
                    reply
                }
            }),
        ),
        row(
            "a token server that refuses",
            Fails(&["refuses the credentials"]),
            with_token(|_| Reply::new(401)),
        )
        .with(&CREDS),
        row(
            "a token server that refuses everybody",
            Fails(&["log-in"]),
            with_token(|_| Reply::new(403)),
        ),
        row(
            "a token that nobody takes",
            Fails(&["log-in"]),
            text(r#"{"token":"bad"}"#),
        )
        .requests(|seen, _| assert!(seen.len() < 12, "{} requests", seen.len())),
        row("a token that ends in the middle", Works, {
            let renewed = std::sync::atomic::AtomicUsize::new(0);
            move |request: &Request| {
                use std::sync::atomic::Ordering::SeqCst;
                let host = request.header("host").unwrap_or_default();
                if request.kind == "token" {
                    let number = renewed.fetch_add(1, SeqCst);
                    return Some(Reply::new(200).body(format!(r#"{{"token":"t{number}"}}"#)));
                }
                // For blobs only the second token is good.
                let wanted = if request.kind == "manifest" {
                    "Bearer t0"
                } else {
                    "Bearer t1"
                };
                (request.header("authorization") != Some(wanted))
                    .then(|| challenge(&format!("http://{host}/token")))
            }
        }),
    ]
}

fn passwords() -> Vec<Row> {
    let basic = |password: &'static str| {
        move |request: &Request| {
            let good = request.header("authorization") == Some(password);
            (!good).then(|| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#))
        }
    };
    vec![
        row("a password", Works, basic("Basic YWxpY2U6c2VjcmV0")).with(&CREDS),
        row(
            "a password that is wrong",
            Fails(&["refuses the credentials of user \"alice\""]),
            basic("Basic other"),
        )
        .with(&CREDS)
        .requests(|seen, _| assert!(seen.len() <= 4)),
        row(
            "a password that nobody gave",
            Fails(&["log-in", "teu-store login"]),
            basic("Basic x"),
        ),
        row("a password only for blobs", Works, |request| {
            let blob = matches!(request.kind, "config" | "layer");
            (blob && request.header("authorization").is_none())
                .then(|| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#))
        })
        .with(&CREDS),
    ]
}

/// Blobs, or all, are elsewhere; who is there hears no password (security.md, S17).
fn redirects(world: &World, elsewhere: &Faulty) -> Vec<Row> {
    let to = |kind: &'static str, place: String| {
        move |request: &Request| {
            if request.header("authorization").is_none() {
                return Some(Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#));
            }
            (request.kind == kind).then(|| Reply::new(307).header("Location", place.clone()))
        }
    };
    let host = elsewhere.host.clone();
    let bytes = world.image.layer.clone();
    let manifest = world.image.manifest.clone();
    let there = format!("http://{host}/signed?x=y");
    vec![
        row("a layer elsewhere", Works, to("layer", there.clone()))
            .with(&CREDS)
            .elsewhere(move |_| Some(Reply::new(200).body(bytes.clone())))
            .requests(|_, elsewhere| {
                assert_eq!(elsewhere.len(), 1);
                no_password(elsewhere);
            }),
        row("a manifest elsewhere", Works, to("manifest", there.clone()))
            .with(&CREDS)
            .elsewhere(move |_| Some(teu_integration_tests::faulty::manifest(manifest.clone())))
            .requests(|_, elsewhere| no_password(elsewhere)),
        row(
            "a layer elsewhere, where a password is wanted",
            Fails(&["answers 401"]),
            to("layer", there.clone()),
        )
        .with(&CREDS)
        .elsewhere(|_| Some(Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#)))
        .requests(|_, elsewhere| no_password(elsewhere)),
        row(
            "a layer elsewhere that is other bytes",
            Fails(&["instead of"]),
            to("layer", there.clone()),
        )
        .with(&CREDS)
        .elsewhere(|_| Some(Reply::new(200).body("x"))),
        row(
            "a layer elsewhere that fails",
            Fails(&["500"]),
            to("layer", there),
        )
        .with(&CREDS)
        .elsewhere(|_| Some(Reply::new(500))),
        row(
            "a redirect to what is not there",
            Fails(&["has no blob"]),
            to("layer", "/v2/team/app/blobs/sha256:0".into()),
        )
        .with(&CREDS)
        .requests(|seen, _| assert!(seen.len() < 40)),
        row("a redirect for ever", Fails(&["redirects"]), |_| {
            Some(Reply::new(302).header("Location", "/again"))
        }),
        row(
            "a redirect to a file",
            Fails(&["307"]),
            to("layer", "file:///etc/shadow".into()),
        )
        .with(&CREDS),
        row(
            "a redirect with a password in it",
            Fails(&["not followed"]),
            to("layer", format!("http://a:b@{host}/")),
        )
        .with(&CREDS)
        .requests(|_, elsewhere| assert!(elsewhere.is_empty())),
        row(
            "a redirect to nowhere",
            Fails(&["307"]),
            always("layer", || Reply::new(307)),
        ),
        row(
            "a redirect to nonsense",
            Fails(&["307"]),
            always("layer", || Reply::new(307).header("Location", "http://[::")),
        ),
    ]
}
