//! Bundles of a real store.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use super::{Request, write_for};
use crate::image::{ContainerConfig, ImageConfig};
use crate::tar::{Attributes, Writer};
use crate::{Backend, Error, Reference, Store};

fn store_with_image(dir: &Path) -> (Store, Reference) {
    store_with_labels(dir, &["io.containerd.log-uri"])
}

fn store_with_labels(dir: &Path, labels: &[&str]) -> (Store, Reference) {
    let mut store = Store::open(dir.join("store")).unwrap();
    store.force_backend(Backend::Directory);
    let name: Reference = "test".parse().unwrap();
    let work = store.begin().unwrap();
    let mut tar = Writer::new(work.layer_writer().unwrap());
    let attributes = Attributes {
        mode: 0o755,
        ..Attributes::default()
    };
    tar.directory(b"etc", &attributes).unwrap();
    tar.file(
        b"etc/passwd",
        &attributes,
        29,
        &b"web:x:1000:1001::/srv:/bin/sh"[..],
    )
    .unwrap();
    let mut writer = tar.finish().unwrap();
    writer.flush().unwrap();
    let layer = writer.finish().unwrap();
    let config = ContainerConfig {
        user: "web".into(),
        cmd: Some(vec!["/bin/true".into()]),
        labels: labels
            .iter()
            .map(|name| ((*name).to_owned(), "binary:///bin/evil".to_owned()))
            .collect::<BTreeMap<_, _>>(),
        ..ContainerConfig::default()
    };
    let config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        config,
        ..ImageConfig::default()
    };
    work.put_image(config, &[layer], Some(&name)).unwrap();
    (store, name)
}

#[test]
fn a_bundle_pins_its_image_and_ignores_its_labels() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a_bundle_pins_its_image_and_ignores_its_labels: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, name) = store_with_image(dir.path());
    let image = store.image(&name).unwrap();
    let folder = dir.path().join("bundle");
    let bundle = write_for(&store, "c1", &image, &Request::default(), &folder).unwrap();
    assert_eq!(
        bundle.lower,
        [store.dir_path(&image.config.rootfs.diff_ids[0])]
    );
    assert_eq!(bundle.stop_signal, "SIGTERM");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    assert!(!text.contains("evil"));
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["process"]["user"]["uid"], 1000);
    assert_eq!(config["process"]["args"][0], "/bin/true");
    assert!(
        config["process"]["env"]
            .as_array()
            .unwrap()
            .contains(&"HOME=/srv".into())
    );
    assert_eq!(store.root_records().unwrap().len(), 1);
    store.release_root("c1").unwrap();
    store.release_root("c1").unwrap();
    assert_eq!(store.root_records().unwrap().len(), 0);
}

// CVE-2026-94603, CVE-2026-53488, CVE-2023-6476.
#[test]
fn labels_change_no_byte_of_the_configuration() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED labels_change_no_byte_of_the_configuration: needs root");
        return;
    }
    let configuration = |labels: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = store_with_labels(dir.path(), labels);
        let image = store.image(&name).unwrap();
        let folder = dir.path().join("bundle");
        write_for(&store, "c1", &image, &Request::default(), &folder).unwrap();
        std::fs::read_to_string(folder.join("config.json")).unwrap()
    };
    let loud = [
        "io.containerd.log-uri",
        "io.podman.annotations.privileged",
        "io.podman.annotations.seccomp",
        "io.kubernetes.cri-o.userns-mode",
        "com.docker.security.unconfined",
        "org.systemd.property.ExecStopPost",
        "run.oci.keep_original_groups",
        "run.oci.seccomp.receiver",
        "org.criu.config",
        "module.wasm.image/variant",
    ];
    assert_eq!(configuration(&[]), configuration(&loud));
}

// GHSA-7ww5-4wqc-m92c; moby, oci/defaults.go.
#[test]
fn what_moby_hides_is_hidden() {
    let masked = super::defaults::MASKED_PATHS;
    for path in [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ] {
        assert!(masked.contains(&path), "{path} is not masked");
    }
    let readonly = super::defaults::READONLY_PATHS;
    for path in [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ] {
        assert!(readonly.contains(&path), "{path} is not read-only");
    }
}

#[test]
fn a_failed_bundle_pins_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED a_failed_bundle_pins_nothing: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, name) = store_with_image(dir.path());
    let image = store.image(&name).unwrap();
    let request = Request {
        user: Some("nobody".into()),
        ..Request::default()
    };
    let result = write_for(&store, "c1", &image, &request, &dir.path().join("bundle"));
    assert!(matches!(result, Err(Error::Bundle { .. })));
    assert_eq!(store.root_records().unwrap().len(), 0);
    assert!(matches!(
        store.find_image("nosuch"),
        Err(Error::NoSuchImage(_))
    ));
}
