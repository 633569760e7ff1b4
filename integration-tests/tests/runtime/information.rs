//! What the runtime says of itself.

use serde_json::{Value, json};
use teu_integration_tests::{Scene, skip_unless};

#[test]
fn version_help_features_and_spec() {
    let scene = Scene::new("information");
    let version = scene.run("teu-runtime", ["--version"]).succeeds();
    assert!(version.contains("spec: 1."), "{version}");
    for args in [
        &["--help"][..],
        &["-h"],
        &["run", "--help"],
        &["exec", "-h"],
    ] {
        let help = scene.run("teu-runtime", args).succeeds();
        assert!(help.to_lowercase().contains("usage"), "{help}");
    }
    let spec = scene.path("spec");
    std::fs::create_dir(&spec).unwrap();
    scene
        .run("teu-runtime", ["spec", "-b", spec.to_str().unwrap()])
        .succeeds();
    let config: Value =
        serde_json::from_slice(&std::fs::read(spec.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["process"]["args"], json!(["sh"]));
    scene
        .run("teu-runtime", ["spec", "-b", spec.to_str().unwrap()])
        .fails(1, &["config.json"]);
    let output = scene.run("teu-runtime", ["features"]);
    skip_unless!(
        scene,
        !output.stderr.contains("No help topic"),
        "this runtime has no features command"
    );
    let features: Value = serde_json::from_str(&output.succeeds()).unwrap();
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert!(
        namespaces.contains(&json!("time")) && namespaces.contains(&json!("user")),
        "{features}"
    );
    assert!(features["hooks"].as_array().unwrap().len() == 6);
    assert_eq!(features["linux"]["netDevices"]["enabled"], json!(true));
    let rdt = json!({"enabled": true, "schemata": true, "monitoring": true});
    assert_eq!(features["linux"]["intelRdt"], rdt);
    let archs = features["linux"]["seccomp"]["archs"].as_array().unwrap();
    for known in [
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_S390",
        "SCMP_ARCH_LOONGARCH64",
    ] {
        assert!(archs.contains(&json!(known)), "{known}: {archs:?}");
    }
    let modes = features["linux"]["memoryPolicy"]["modes"].as_array();
    assert_eq!(modes.map(Vec::len), Some(7));
}
