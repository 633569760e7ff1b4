//! Many at one store: pulls of images that share layers, imports, new configurations, bundles, gc. Nobody notices
//! the others.
//!
//! `TEU_BESIDE=HANDS,SECONDS` says how many hands work for how long: 64,60 is the long run; the gate's is short.

use crate::peers::Registry;
use std::time::{Duration, Instant};
use teu_integration_tests::{Scene, needs_root};

/// Hands and seconds in the gate.
const SHORT: (usize, u64) = (12, 6);

fn how_much() -> (usize, u64) {
    let Ok(text) = std::env::var("TEU_BESIDE") else {
        return SHORT;
    };
    let (hands, seconds) = text.split_once(',').unwrap();
    (hands.parse().unwrap(), seconds.parse().unwrap())
}

/// What one hand does, again and again, with names of its own. Every command must succeed.
fn work(scene: &Scene, hand: usize, names: &[String], until: Instant) -> usize {
    let own = format!("own{hand}");
    let id = format!("bundle{hand}");
    let run = |words: &[&str]| drop(scene.run("teu-store", words).succeeds());
    let mut rounds = 0;
    while Instant::now() < until {
        match (hand + rounds) % 4 {
            0 => {
                run(&["pull", "-q", &names[hand % names.len()]]);
                run(&["df"]);
            }
            1 => {
                run(&["import", "-q", "shared.tar", &own]);
                run(&["config", &own, &own, "-e", &format!("ROUND={rounds}")]);
                run(&[
                    "bundle",
                    "create",
                    "--id",
                    &id,
                    "--request",
                    "request.json",
                    &own,
                    &id,
                ]);
                run(&["bundle", "release", &id]);
                run(&["untag", &own]);
            }
            2 => {
                run(&["import", "-q", &format!("oci{}", hand % names.len()), &own]);
                run(&["history", &own]);
                run(&["rmi", &own]);
            }
            _ => run(&["gc"]),
        }
        rounds += 1;
    }
    rounds
}

#[test]
fn many_hands_at_one_store() {
    let scene = Scene::new("many hands");
    needs_root!(scene, "a registry of its own needs a network of its own");
    let registry = Registry::http(&scene);
    scene.write("request.json", r#"{"args": ["true"]}"#);
    scene.shell(
        "mkdir base && head -c 300K /dev/urandom > base/base && tar -C base -cf shared.tar .",
    );
    let mut names = Vec::new();
    for number in 0..3 {
        let name = registry.name(&format!("team/image{number}:1"));
        scene.shell(&format!(
            "mkdir d{number} && head -c 100K /dev/urandom > d{number}/own{number} && tar -C d{number} -cf {number}.tar .
            umoci init --layout oci{number} && umoci new --image oci{number}:x && umoci raw add-layer --image oci{number}:x shared.tar && umoci raw add-layer --image oci{number}:x {number}.tar
            skopeo copy -q --dest-tls-verify=false oci:oci{number}:x docker://{name}"
        ));
        names.push(name);
    }
    let (hands, seconds) = how_much();
    let until = Instant::now() + Duration::from_secs(seconds);
    let rounds: usize = std::thread::scope(|threads| {
        let (scene, names) = (&scene, &names);
        let hands: Vec<_> = (0..hands)
            .map(|hand| threads.spawn(move || work(scene, hand, names, until)))
            .collect();
        hands.into_iter().map(|hand| hand.join().unwrap()).sum()
    });
    eprintln!("{hands} hands, {rounds} rounds in {seconds} s");
    assert!(rounds > hands);
    for name in &names {
        scene.run("teu-store", ["pull", "-q", name]).succeeds();
    }
    scene.run("teu-store", ["verify", "-q"]).succeeds();
    scene.run("teu-store", ["prune", "--all"]).succeeds();
    let left = scene.shell("cd data/store && find blobs tars index dirs images layers packed refs roots tmp -mindepth 2 ! -type d");
    assert_eq!(left, "");
}
