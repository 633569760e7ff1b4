//! R44: images that would mount more than the bundle says.

use super::privileges::{accepted, bundle, refused};
use super::{Fake, no_python, scene_with_fake};
use serde_json::{Value, json};
use teu_integration_tests::{Scene, needs_root, skip_unless};

/// `MS_BIND` of `mount(2)`.
const BIND: u32 = 4096;

fn bind(source: &str, place: &str) -> Value {
    json!([source, place, null, BIND, null])
}

fn new(kind: &str, place: &str, options: &str) -> Value {
    json!(["none", place, kind, 0, options])
}

/// What is the host's, whoever the container is.
fn of_the_host(scene: &Scene) -> Vec<(Value, &'static str)> {
    let secret = scene.path("secret");
    std::fs::create_dir_all(&secret).unwrap();
    let secret = secret.to_str().unwrap();
    let layers = format!("lowerdir={secret}:/etc");
    vec![
        (new("overlay", "/tmp", &layers), "(overlay from"),
        (bind(secret, "/tmp"), "/tmp"),
        (bind("/", "/tmp"), "/tmp"),
        (bind(secret, "/dev"), "/dev"),
        (bind(secret, "/ran"), "/ran"),
    ]
}

#[test]
fn r44_nothing_is_mounted_but_what_the_bundle_says() {
    scene_with_fake!(scene, fake, "R44 mounts", {});
    needs_root!(scene, "only root may restore");
    let container = bundle(&scene, "c", |_| ());
    let mut all = of_the_host(&scene);
    all.push((new("tmpfs", "/tmp", ""), "(tmpfs from"));
    all.push((new("proc", "/tmp", ""), "(proc from"));
    for (mount, words) in all {
        let behaviour = json!({ "mounts": [mount] });
        refused(&fake, &container, behaviour, &[words]);
    }
    let planned = json!({"mounts": [new("tmpfs", "/dev", "")]});
    let _ = accepted(&fake, &container, planned);
}

#[test]
fn r44_who_may_mount_has_nothing_of_the_hosts() {
    scene_with_fake!(scene, fake, "R44 admin", {});
    needs_root!(scene, "only root may restore");
    let container = bundle(&scene, "c", |config| {
        let bounding = &mut config["process"]["capabilities"]["bounding"];
        let bounding = bounding.as_array_mut().unwrap();
        bounding.push(json!("CAP_SYS_ADMIN"));
    });
    for (mount, words) in of_the_host(&scene) {
        let behaviour = json!({ "mounts": [mount] });
        refused(&fake, &container, behaviour, &[words]);
    }
    let own = scene.path("ran");
    for mount in [
        new("tmpfs", "/tmp", ""),
        new("proc", "/tmp", ""),
        bind(own.to_str().unwrap(), "/tmp"),
    ] {
        let _ = accepted(&fake, &container, json!({ "mounts": [mount] }));
    }
}
