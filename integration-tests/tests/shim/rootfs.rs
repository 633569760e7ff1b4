//! Root file systems that a request asks to be mounted.

use teu_integration_tests::Scene;
use teu_integration_tests::shim::messages::Mount;
use teu_integration_tests::shim::{Shim, Streams};

fn mount(fstype: &str, source: &str, options: &[String]) -> Mount {
    Mount {
        r#type: fstype.into(),
        source: source.into(),
        target: String::new(),
        options: options.to_vec(),
    }
}

fn mounts_below(path: &std::path::Path) -> usize {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = format!(" {}", path.display());
    text.lines().filter(|line| line.contains(&path)).count()
}

/// A bundle whose rootfs is somewhere else, and that place.
fn bundle(scene: &Scene, name: &str, args: &[&str]) -> (std::path::PathBuf, std::path::PathBuf) {
    let bundle = scene.bundle(name, args, |config| {
        config["root"]["readonly"] = false.into();
    });
    let lower = scene.path(format!("{name}-lower"));
    std::fs::rename(bundle.join("rootfs"), &lower).unwrap();
    std::fs::create_dir(bundle.join("rootfs")).unwrap();
    (bundle, lower)
}

#[test]
fn an_overlay_of_many_layers_is_mounted_and_goes_with_the_container() {
    let scene = Scene::new("shim: overlay");
    let (bundle, lower) = bundle(&scene, "over", &["sh", "-c", "cat /f7 >/new"]);
    let folder = |name: &str| {
        let path = scene.path(format!("io.containerd.snapshotter.v1.overlayfs/{name}"));
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let layers: Vec<_> = (0..100)
        .map(|n| folder(&format!("snapshots/{n}/fs")))
        .collect();
    for (n, layer) in layers.iter().enumerate() {
        std::fs::write(layer.join(format!("f{n}")), n.to_string()).unwrap();
    }
    let bottom = folder("snapshots/bottom");
    std::fs::remove_dir(&bottom).unwrap();
    std::fs::rename(&lower, &bottom).unwrap();
    let names = layers
        .iter()
        .chain([&bottom])
        .map(|path| path.display().to_string());
    let names: Vec<String> = names.collect();
    let options = [
        format!("lowerdir={}", names.join(":")),
        format!("upperdir={}", folder("upper").display()),
        format!("workdir={}", folder("work").display()),
    ];
    assert!(options[0].len() > 4096, "more than a page");
    let rootfs = bundle.join("rootfs");
    let mut shim = Shim::start_at(&scene, "over", bundle);
    shim.mounts(vec![mount("overlay", "overlay", &options)]);
    let pid = shim.pid();
    shim.create(&Streams::default()).unwrap();
    assert_eq!(mounts_below(&rootfs), 1);
    shim.start_process("").unwrap();
    assert_eq!(shim.wait(""), Ok(0));
    shim.delete("").unwrap();
    assert_eq!(mounts_below(&rootfs), 0);
    let new = scene.path("io.containerd.snapshotter.v1.overlayfs/upper/new");
    assert_eq!(std::fs::read_to_string(new).unwrap(), "7");
    shim.shut_down(pid);
}

#[test]
fn nothing_stays_mounted_when_a_container_does_not_come_to_be() {
    let scene = Scene::new("shim: failed mounts");
    let (bundle, lower) = bundle(&scene, "bad", &["/absent"]);
    let rootfs = bundle.join("rootfs");
    let bind = mount(
        "bind",
        &lower.display().to_string(),
        &["rbind".into(), "ro".into()],
    );
    let mut shim = Shim::start_at(&scene, "bad", bundle);
    let pid = shim.pid();
    shim.mounts(vec![bind.clone(), mount("nosuchfs", "x", &[])]);
    let error = shim.create(&Streams::default()).unwrap_err();
    assert!(error.message.contains("mount nosuchfs \"x\""), "{error:?}");
    assert_eq!(mounts_below(&rootfs), 0);
    // The runtime fails: there is no such program.
    shim.mounts(vec![bind.clone(), bind]);
    let error = shim.create(&Streams::default()).unwrap_err();
    assert!(
        error.message.contains("OCI runtime create failed"),
        "{error:?}"
    );
    assert_eq!(mounts_below(&rootfs), 0);
    let _ = shim.delete("");
    shim.shut_down(pid);
}
