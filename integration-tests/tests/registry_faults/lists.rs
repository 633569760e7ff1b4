//! Lists of tags, repositories and referrers without end, in circles, or from elsewhere.

use super::{Ends, Fails, Row, Works, World, row};
use teu_integration_tests::faulty::{Faulty, Reply, Request};

fn page(next: &str) -> Reply {
    Reply::new(200)
        .header("Link", format!("<{next}>; rel=\"next\""))
        .body(r#"{"name":"team/app","tags":[],"repositories":[],"schemaVersion":2,"manifests":[]}"#)
}

fn on_list(
    reply: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static {
    move |request| matches!(request.kind, "tags" | "catalog" | "referrers").then(|| reply(request))
}

fn rows(elsewhere: &Faulty) -> Vec<Row> {
    let there = format!("http://{}/v2/team/app/tags/list", elsewhere.host);
    vec![
        row(
            "pages without end",
            Fails(&["without end"]),
            on_list(|request| page(&format!("{}x", request.path))),
        ),
        row(
            "a page that leads to itself",
            Fails(&["in a circle"]),
            on_list(|request| page(&request.path)),
        ),
        row(
            "a page that leads elsewhere",
            Fails(&["elsewhere"]),
            on_list(move |_| page(&there)),
        )
        .requests(|_, elsewhere| assert!(elsewhere.is_empty())),
        row(
            "a page of five megabytes",
            Fails(&["longer than"]),
            on_list(|_| Reply::new(200).body(" ".repeat(5 << 20))),
        ),
        row(
            "a page without end",
            Fails(&["longer than"]),
            on_list(|_| Reply::endless("HTTP/1.1 200 OK\r\n\r\n", " ")),
        ),
        row(
            "no JSON",
            Fails(&["no list"]),
            on_list(|_| Reply::new(200).body("<html>")),
        ),
        row(
            "a list of numbers",
            Fails(&["no list"]),
            on_list(|_| {
                Reply::new(200)
                    .body(r#"{"tags":[1],"repositories":[1],"schemaVersion":2,"manifests":[1]}"#)
            }),
        ),
        row(
            "null",
            Ends,
            on_list(|_| {
                Reply::new(200)
                    .body(r#"{"tags":null,"repositories":null,"schemaVersion":2,"manifests":null}"#)
            }),
        ),
        row("500 twice", Works, |request| {
            let list = matches!(request.kind, "tags" | "catalog" | "referrers");
            (list && request.nth < 2).then(|| Reply::new(500))
        }),
        row(
            "silence",
            Fails(&["time limit"]),
            on_list(|_| Reply::silence()),
        )
        .short(),
        row(
            "a log-in is wanted",
            Fails(&["log-in"]),
            on_list(|_| Reply::new(401)),
        ),
    ]
}

#[test]
fn lists() {
    let world = World::new("faults: lists");
    world.scene.write("nobody.json", "{}");
    let elsewhere = Faulty::start(None, Box::new(|_| None));
    let count = rows(&elsewhere).len();
    for verb in ["list-tags", "search", "referrers"] {
        super::each(count, |number| {
            let mut row = rows(&elsewhere).swap_remove(number);
            // A thousand requests: once is enough.
            if row.name == "pages without end" && verb != "list-tags" {
                return;
            }
            let fault = std::mem::replace(&mut row.fault, Box::new(|_| None));
            let registry = Faulty::start(Some(world.image.clone()), fault);
            let name = match verb {
                "search" => registry.host.clone(),
                _ => format!("{}/team/app:1", registry.host),
            };
            let _ = world.run(&row, verb, &[&name]);
            (row.requests)(&registry.seen(), &elsewhere.seen());
        });
    }
}

/// Names that are no names do not reach the terminal.
#[test]
fn names_with_escapes() {
    let world = World::new("faults: names");
    world.scene.write("nobody.json", "{}");
    let long = "x".repeat(5000);
    let registry = Faulty::start(
        Some(world.image.clone()),
        Box::new(move |request| {
            let body = format!(r#"{{"tags":["good","\u001b[2Jgone","{long}"]}}"#);
            (request.kind == "tags").then(|| Reply::new(200).body(body))
        }),
    );
    let name = format!("{}/team/app", registry.host);
    let listed = world
        .scene
        .run("teu-store", ["list-tags", &name])
        .succeeds();
    assert!(
        listed.contains("good") && !listed.contains('\u{1b}') && !listed.contains("xxxx"),
        "{listed}"
    );
}
