//! R44 with CRIU itself: images whose mounts were edited.

use super::edited::refused;
use super::image::{self, Message, Value};
use super::real::{COUNT, checkpoint, counted, detached, gone, obstacle, running, scene_with_criu};
use crate::Container;
use serde_json::json;
use std::path::{Path, PathBuf};
use teu_integration_tests::{Scene, skip_unless};

/// Fields of CRIU's `mnt_entry`.
const FSTYPE: u64 = 1;
const ID: u64 = 2;
const DEVICE: u64 = 3;
const PARENT: u64 = 4;
const FLAGS: u64 = 5;
const ROOT: u64 = 6;
const POINT: u64 = 7;
const SOURCE: u64 = 8;
const OPTIONS: u64 = 9;
const MASTER: u64 = 11;
const KEY: u64 = 18;

/// Of CRIU's `fstype`.
const DEVTMPFS: u64 = 3;
const TMPFS: u64 = 5;
const OVERLAY: u64 = 17;

/// A number that no mount has, and no device.
const UNUSED: u64 = 1_000_000;

/// A place that the bundle has nothing for.
const EXTRA: &str = "/extra";

/// Before CRIU has mounted it, and after.
const SAVED: &str = "is in the images";
const RESTORED: &str = "was restored from the images";

/// A checkpoint that is edited, again and again.
struct Attacked<'a> {
    container: Container<'a>,
    images: PathBuf,
    kept: PathBuf,
}

impl<'a> Attacked<'a> {
    /// Of a container with one mount of the host's, on `/data`.
    fn new(scene: &'a Scene) -> (Self, u64) {
        let data = scene.path("data");
        std::fs::create_dir(&data).unwrap();
        let container = running(scene, COUNT, |config| {
            let bind = json!({"destination": "/data", "source": data, "options": ["bind"]});
            config["mounts"].as_array_mut().unwrap().push(bind);
        });
        std::fs::create_dir(container.bundle.join("rootfs/extra")).unwrap();
        let reached = counted(&container, 1);
        checkpoint(&container, &["--image-path", "images"]);
        let (images, kept) = (scene.path("images"), scene.path("kept"));
        std::fs::rename(&images, &kept).unwrap();
        let attacked = Self {
            container,
            images,
            kept,
        };
        attacked.fresh();
        (attacked, reached)
    }

    fn fresh(&self) {
        let (images, kept) = (self.images.display(), self.kept.display());
        // What a new file system has in it has an image of its own.
        let content = format!("{images}/tmpfs-dev-{UNUSED}.tar.gz.img");
        let mark = self.container.scene.mark();
        self.container.scene.shell(&format!(
            "rm -rf {images} && cp -a {kept} {images} && touch {mark} && tar -czf {content} {mark}"
        ));
    }

    fn edit(&self, change: impl FnOnce(&mut Vec<Message>)) {
        image::edit(&image::named(&self.images, "mountpoints-")[0], change);
    }

    /// The mount on `point`, with `change`, in its own place.
    fn instead(&self, point: &str, change: &dyn Fn(&mut Message)) -> &Self {
        self.edit(|mounts| change(on(mounts, point)));
        self
    }

    /// The mount on `point`, with `change`, another time, on another place.
    fn besides(&self, point: &str, change: &dyn Fn(&mut Message)) -> &Self {
        self.edit(|mounts| {
            let root = *on(mounts, "/").number(ID);
            let mut copy = on(mounts, point).clone();
            *copy.number(ID) = UNUSED;
            *copy.number(PARENT) = root;
            *copy.number(MASTER) = 0;
            copy.set_text(POINT, EXTRA);
            change(&mut copy);
            mounts.push(copy);
        });
        self
    }

    fn refused(&self, words: &[&str]) {
        refused(&self.container, words);
        self.fresh();
    }
}

fn on<'a>(mounts: &'a mut [Message], point: &str) -> &'a mut Message {
    let is_there = |mount: &mut Message| mount.text(POINT) == point;
    let index = mounts.iter_mut().position(is_there).unwrap();
    &mut mounts[index]
}

/// Another file system in place of what was there.
fn new(mount: &mut Message, kind: u64, options: &str) {
    mount.remove(KEY);
    mount.set(FSTYPE, Value::Number(kind));
    *mount.number(DEVICE) = UNUSED;
    *mount.number(FLAGS) = 0;
    *mount.number(MASTER) = 0;
    mount.set_text(ROOT, "/");
    mount.set_text(SOURCE, "none");
    mount.set_text(OPTIONS, options);
}

#[test]
fn r44_edited_mounts_are_refused() {
    scene_with_criu!(scene, "criu edited mounts");
    let (attacked, reached) = Attacked::new(&scene);
    let secret = scene.path("secret");
    std::fs::create_dir(&secret).unwrap();
    let layers = format!("lowerdir={}:/etc", secret.display());
    let overlay = |mount: &mut Message| new(mount, OVERLAY, &layers);
    let devices = |mount: &mut Message| new(mount, DEVTMPFS, "");
    // What CRIU would have filled before anybody could look at it.
    for change in [&devices as &dyn Fn(&mut Message), &overlay] {
        attacked.besides("/data", change).refused(&[EXTRA, SAVED]);
        attacked.instead("/data", change).refused(&["/data", SAVED]);
    }
    assert!(!Path::new("/dev").join(scene.mark()).exists());
    attacked
        .besides("/data", &|_| ())
        .refused(&[EXTRA, RESTORED]);
    attacked
        .instead("/data", &|mount| mount.set_text(POINT, EXTRA))
        .refused(&[EXTRA, RESTORED]);
    let memory = |mount: &mut Message| new(mount, TMPFS, "");
    attacked
        .besides("/data", &memory)
        .refused(&[EXTRA, "tmpfs", RESTORED]);
    gone(&attacked.container);
    detached(&attacked.container, "restore --detach --image-path images");
    counted(&attacked.container, reached);
}

/// CRIU makes a mount that shows one part of a file system from one that shows
/// another: here from that of the root, to parts outside of it.
#[test]
fn r44_an_edited_mount_leads_nowhere_else() {
    scene_with_criu!(scene, "criu edited parts");
    let (attacked, _) = Attacked::new(&scene);
    let data = format!("/../../..{}", scene.path("data").display());
    for (way, why) in [("/../../..", SAVED), (&data, SAVED), ("/bin", RESTORED)] {
        let part = |mount: &mut Message| {
            let root = mount.text(ROOT) + way;
            mount.set_text(ROOT, &root);
        };
        attacked.besides("/", &part).refused(&[EXTRA, why]);
    }
}
