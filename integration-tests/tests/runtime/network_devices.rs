//! Network devices of the host in the container (`linux.netDevices`).

use super::Container;
use serde_json::{Value, json};
use teu_integration_tests::{Scene, skip_unless};

/// Makes a pair of devices, `name` and its peer, in the scene's namespace.
fn device(scene: &Scene, name: &str) -> bool {
    let words = ["link", "add", name, "type", "veth", "peer", "name"];
    let peer = format!("p-{name}");
    let words = words.iter().copied().chain([peer.as_str()]);
    scene.run("ip", words).code() == 0
}

fn ip(scene: &Scene, words: &str) -> String {
    scene.run("ip", words.split(' ')).succeeds()
}

/// Asks for devices: a JSON object of them.
fn with(devices: &Value) -> impl FnOnce(&mut Value) + use<> {
    let devices = devices.clone();
    move |config| config["linux"]["netDevices"] = devices
}

#[test]
fn a_device_is_moved_renamed_and_switched_on_with_its_addresses() {
    let scene = Scene::new("moved device");
    skip_unless!(scene, device(&scene, "d0"), "no veth devices");
    ip(&scene, "link set d0 mtu 1789 address 00:11:22:33:44:55 up");
    ip(&scene, "address add 192.0.2.77/28 dev d0");
    ip(&scene, "address add 2001:db8::5/64 dev d0 nodad");
    ip(&scene, "address add 127.0.0.33/8 scope host dev d0");
    let script = "ip address show dev ctr0; ip link show d0 2>&1";
    let container = Container::script(&scene, "c", script, with(&json!({"d0": {"name": "ctr0"}})));
    let out = container.run().stdout;
    for part in [
        "UP",
        "mtu 1789",
        "00:11:22:33:44:55",
        "192.0.2.77/28",
        "2001:db8::5/64",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    assert!(
        !out.contains("127.0.0.33") && out.contains("can't find device"),
        "{out}"
    );
    // A virtual device ends with its namespace.
    assert_ne!(scene.run("ip", ["link", "show", "d0"]).code(), 0);
}

#[test]
fn a_device_stays_in_a_namespace_that_outlives_the_container() {
    let scene = Scene::new("device in a joined namespace");
    skip_unless!(scene, device(&scene, "d0"), "no veth devices");
    let file = scene.write("netns", "");
    let file = file.to_str().unwrap();
    let bind = format!("mount --bind /proc/self/ns/net {file}");
    scene.run("unshare", ["-n", "sh", "-c", &bind]).succeeds();
    let container = Container::new(
        &scene,
        "c",
        &["/bin/ip", "address", "show", "d0"],
        |config| {
            with(&json!({"d0": {}}))(config);
            for namespace in config["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == "network" {
                    namespace["path"] = json!(file);
                }
            }
        },
    );
    let out = container.run();
    let inside = format!("--net={file}");
    let kept = scene.run("nsenter", [inside.as_str(), "ip", "link", "show", "d0"]);
    scene.run("umount", [file]).succeeds();
    assert!(out.succeeds().contains("d0") && kept.succeeds().contains("UP"));
}

#[test]
fn a_template_lets_the_kernel_choose_a_free_name() {
    let scene = Scene::new("device template");
    skip_unless!(
        scene,
        device(&scene, "d0") && device(&scene, "d1"),
        "no veth devices"
    );
    let devices = json!({"d0": {"name": "eth%d"}, "d1": {"name": "eth%d"}});
    let script = "ip -o link show up | cut -d: -f2 | cut -d@ -f1";
    let out = Container::script(&scene, "c", script, with(&devices))
        .run()
        .succeeds();
    assert!(out.contains("eth0") && out.contains("eth1"), "{out}");
}

#[test]
fn what_cannot_be_moved_is_said_and_the_others_come_back() {
    let scene = Scene::new("devices that cannot be moved");
    skip_unless!(
        scene,
        device(&scene, "d0") && device(&scene, "d1"),
        "no veth devices"
    );
    ip(&scene, "address add 192.0.2.77/28 dev d0");
    ip(&scene, "link set d0 up");
    let fails = |id: &str, devices: Value, parts: &[&str]| {
        let _ = Container::new(&scene, id, &["/bin/true"], with(&devices))
            .run()
            .fails(1, parts);
        let back = ip(&scene, "address show dev d0");
        assert!(
            back.contains("192.0.2.77/28") && back.contains(",UP"),
            "{back}"
        );
    };
    let missing = json!({"d0": {}, "nosuch": {}});
    fails(
        "missing",
        missing,
        &["link not found for interface", "nosuch", "no such device"],
    );
    let clash = json!({"d0": {"name": "same"}, "d1": {"name": "same"}});
    fails("clash", clash, &["move network device", "file exists"]);
    fails(
        "name",
        json!({"d0": {"name": "a/b"}}),
        &["invalid network device name", "a/b"],
    );
    let later = Container::new(
        &scene,
        "later",
        &["/no/such/program"],
        with(&json!({"d0": {}})),
    );
    let _ = later.run().fails(1, &["/no/such/program"]);
    let back = ip(&scene, "address show dev d0");
    assert!(
        back.contains("192.0.2.77/28") && back.contains(",UP"),
        "{back}"
    );
}

#[test]
fn devices_need_a_network_namespace_of_the_container() {
    let scene = Scene::new("devices without a namespace");
    let container = Container::new(&scene, "c", &["/bin/true"], |config| {
        with(&json!({"lo": {}}))(config);
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
    });
    let _ = container.run().fails(
        1,
        &["unable to move network devices without a NET namespace"],
    );
}
