//! The runtime in the hands of an ordinary user, and `--rootless`.

use super::Container;
use serde_json::{Value, json};
use teu_integration_tests::{Scene, binary, skip_unless};

/// A user and a group that own nothing.
const NOBODY: u32 = 65534;

/// A scene in which that user has a folder, a bundle in it, and the runtime.
struct User<'a> {
    scene: &'a Scene,
    folder: String,
}

impl<'a> User<'a> {
    fn new(scene: &'a Scene) -> Self {
        let rootfs = scene.rootfs("user/bundle/rootfs");
        let folder = scene.path("user").display().to_string();
        let runtime = binary("teu-runtime").display().to_string();
        // The scratch folder is root's alone, and so may be where the runtime stands.
        scene.shell(&format!(
            "chmod 711 . && cp \"$(command -v {runtime})\" user/runtime && chown -R {NOBODY}:{NOBODY} user {}",
            rootfs.display()
        ));
        Self { scene, folder }
    }

    /// The command line of the runtime as this user, in the bundle.
    fn line(&self, words: &str) -> String {
        format!(
            "cd {0}/bundle && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups env -u XDG_RUNTIME_DIR {0}/runtime --root {0}/state {words}",
            self.folder
        )
    }

    fn call(&self, words: &str) -> teu_integration_tests::Outcome {
        self.scene.run("sh", ["-c", &self.line(words)])
    }

    /// Changes the bundle's `config.json`.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.scene.path("user/bundle/config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }
}

/// Whether that user may make a user namespace here.
fn user_namespaces(scene: &Scene) -> bool {
    let id = NOBODY.to_string();
    let words = [
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "unshare",
        "-Ur",
        "true",
    ];
    scene.run("setpriv", words).code() == 0
}

#[test]
fn an_ordinary_user_runs_a_container() {
    let scene = Scene::new("ordinary user");
    skip_unless!(
        scene,
        user_namespaces(&scene),
        "no user namespaces for ordinary users"
    );
    let user = User::new(&scene);
    user.call("spec --rootless").succeeds();
    user.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sh", "-c", "id -u; cat /proc/self/uid_map; exit 6"]);
    });
    let out = user.call("run c").exits(6).stdout;
    let words: Vec<_> = out.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "65534", "1"]);
    assert_eq!(user.call("list -q").succeeds(), "");
}

#[test]
fn an_ordinary_user_execs_into_a_container() {
    let scene = Scene::new("exec of an ordinary user");
    skip_unless!(
        scene,
        user_namespaces(&scene),
        "no user namespaces for ordinary users"
    );
    let user = User::new(&scene);
    user.call("spec --rootless").succeeds();
    user.change(|config| {
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["sleep", "1000"]);
        config["root"]["readonly"] = json!(false);
    });
    user.call("run -d c >/dev/null 2>&1").succeeds();
    let out = user
        .call("exec c sh -c 'id -u; hostname; echo x >/made; exit 4'")
        .exits(4)
        .stdout;
    assert_eq!(out.lines().next(), Some("0"));
    let made = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(scene.path("user/bundle/rootfs/made")).unwrap(),
    );
    assert_eq!(made, NOBODY);
    user.call("delete --force c").succeeds();
    assert_eq!(user.call("list -q").succeeds(), "");
}

#[test]
fn rootless_and_no_subreaper_are_runcs_flags() {
    let scene = Scene::new("rootless flag");
    let container = Container::new(&scene, "c", &["/bin/true"], |_| {});
    let bundle = container.bundle.to_str().unwrap();
    for value in ["true", "false", "auto"] {
        let flag = format!("--rootless={value}");
        let words = [&flag, "run", "--no-subreaper", "-b", bundle, &container.id];
        scene.run("teu-runtime", words).succeeds();
    }
    let words = ["--rootless=perhaps", "run", "-b", bundle, &container.id];
    let _ = scene.run("teu-runtime", words).fails(1, &["--rootless"]);
}
