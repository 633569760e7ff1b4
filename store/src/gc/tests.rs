//! What stays and what goes; and the same beside others who use the store at every point of a collector's work.

use super::*;
use std::io::Write as _;

use crate::digest::{ChainId, DiffId};
use crate::image::ImageConfig;
use crate::tar::{Attributes, Writer};
use crate::{Backend, Layer, Reference};

fn layer(work: &Transaction, content: &str) -> Layer {
    let mut tar = Writer::new(work.layer_writer().unwrap());
    tar.file(
        content.as_bytes(),
        &Attributes::default(),
        content.len() as u64,
        content.as_bytes(),
    )
    .unwrap();
    let mut writer = tar.finish().unwrap();
    writer.flush().unwrap();
    writer.finish().unwrap()
}

fn store(dir: &Path) -> Option<Store> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED gc: needs root");
        return None;
    }
    let mut store = Store::open(dir.join("store")).unwrap();
    store.force_backend(Backend::Directory);
    Some(store)
}

fn files(store: &Store) -> usize {
    let folders = FOLDERS
        .iter()
        .flat_map(|folder| fs::read_dir(store.folder(folder).join("sha256")).unwrap());
    folders.count()
}

#[test]
fn only_what_is_named_stays() {
    let dir = tempfile::tempdir().unwrap();
    let Some(store) = store(dir.path()) else {
        return;
    };
    let name: Reference = "a".parse().unwrap();
    let config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        ..ImageConfig::default()
    };
    let (named, rooted, cached);
    {
        let work = store.begin().unwrap();
        named = layer(&work, "named").diff_id;
        let lost = layer(&work, "lost").diff_id;
        rooted = layer(&work, "rooted").diff_id;
        cached = layer(&work, "cached").diff_id;
        work.put_image(config, &[work.layer(&named).unwrap().unwrap()], Some(&name))
            .unwrap();
        store.root("r", &[rooted]).unwrap();
        fs::write(
            store.folder("cache").join("step"),
            format!("{{\"layer\":\"{cached}\"}}"),
        )
        .unwrap();
        // A living transaction keeps what it made.
        store.gc().unwrap();
        assert!(store.has_layer(&lost).unwrap());
    }
    assert!(store.gc().unwrap().files > 0);
    assert!(
        [named, rooted, cached]
            .iter()
            .all(|layer| store.has_layer(layer).unwrap())
    );
    store.image(&name).unwrap();
    store.release_root("r").unwrap();
    store.gc_all().unwrap();
    assert!(store.has_layer(&named).unwrap());
    assert!(!store.has_layer(&rooted).unwrap() && !store.has_layer(&cached).unwrap());
    store.remove_ref(&name).unwrap();
    store.gc().unwrap();
    assert_eq!(files(&store), 0);
    assert_eq!(fs::read_dir(store.folder("tmp")).unwrap().count(), 0);
}

#[test]
fn what_the_dead_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(store) = store(dir.path()) else {
        return;
    };
    let dead = store.folder("tmp").join("work-dead");
    fs::create_dir_all(dead.join("dir/deep")).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    fs::write(dead.join("wants"), format!("{}\n", Digest::of(b"x"))).unwrap();
    store.gc().unwrap();
    assert!(!dead.exists());
}

/// An image of two layers.
struct Put {
    manifest: Digest,
    layers: Vec<DiffId>,
}

impl Put {
    /// Puts it into the store, whatever of it is there.
    fn into(store: &Store, name: Option<&Reference>) -> Put {
        let work = store.begin().unwrap();
        let layers = [layer(&work, "below"), layer(&work, "above")];
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            ..ImageConfig::default()
        };
        Put {
            manifest: work.put_image(config, &layers, name).unwrap(),
            layers: layers.iter().map(|layer| layer.diff_id).collect(),
        }
    }

    fn assert_mountable(&self, store: &Store) {
        for layer in &self.layers {
            assert!(store.has_layer(layer).unwrap(), "{layer}");
        }
        let chain = ChainId::of(&self.layers).unwrap();
        assert!(store.is_settled(&chain).unwrap(), "{chain}");
    }

    fn assert_whole(&self, store: &Store) {
        self.assert_mountable(store);
        let image = store.image_by_manifest(&self.manifest).unwrap();
        let blobs = image.manifest.layers.iter();
        assert!(blobs.into_iter().all(|blob| store.has_blob(&blob.digest)));
    }
}

/// Has `other` act before each single removal of a collector that has marked, in turn, and then looks by `check` what is there when
/// the collector has ended, if `other` succeeded: it says by what is to be held until then. The image is in the store and has no
/// name when the collector begins.
fn beside_a_collector<H>(
    other: impl Fn(&Store, &Put) -> Result<H, Error>,
    check: impl Fn(&Store, &Put),
) {
    let mut succeeded = 0;
    for number in 0.. {
        // In memory where that can be: nothing here is about durability, and syncing is most of the work.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let Some(store) = store(dir.path()) else {
            return;
        };
        let put = Put::into(&store, None);
        let (mut removals, mut held) = (0, None);
        let mut pause = |_| {
            if removals == number {
                held = other(&store, &put).ok();
            }
            removals += 1;
        };
        store.gc_by(1, &mut pause).unwrap();
        if removals <= number {
            break;
        }
        if held.is_some() {
            succeeded += 1;
            check(&store, &put);
        }
        let problems = store.verify().unwrap().problems;
        assert!(problems.is_empty(), "at {number}: {problems:?}");
    }
    assert!(succeeded > 0);
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

// The root is made when the collector has marked, so that it never sees it.
#[test]
fn what_is_pinned_beside_a_collector_stays() {
    let check = |store: &Store, put: &Put| put.assert_mountable(store);
    beside_a_collector(|store, put| store.root("r", &put.layers), check);
    beside_a_collector(
        |store, put| {
            let image = store.image_by_manifest(&put.manifest)?;
            store.pin("r", &put.layers, Some(&image))
        },
        check,
    );
}

// Where the views are mounted nothing else is looked at but whether the stack is settled.
#[test]
fn what_is_pinned_by_its_views_stays_settled() {
    let dir = tempfile::tempdir().unwrap();
    let Some(store) = store(dir.path()) else {
        return;
    };
    let mut store = store;
    store.force_backend(Backend::Erofs);
    let put = Put::into(&store, None);
    let mut pinned = Vec::new();
    let mut pause = |_| {
        // As somebody leaves them who is killed before they are unmounted.
        let views = store.make_views(&put.layers);
        pinned.push(views.and_then(|_| store.root("r", &put.layers)));
    };
    store.gc_by(usize::MAX, &mut pause).unwrap();
    if let Err(error) = &pinned[0] {
        eprintln!("SKIPPED views: {}", crate::error::chain(error));
        return;
    }
    store.release_root("r").unwrap();
    put.assert_mountable(&store);
}

#[test]
fn a_stack_that_is_settled_beside_a_collector_stays_so() {
    beside_a_collector(
        |store, put| {
            let work = store.begin()?;
            for layer in &put.layers {
                work.layer(layer)?.ok_or(Error::NoSuchLayer(*layer))?;
            }
            work.settle(&put.layers, &[])?;
            Ok(work)
        },
        |store, put| put.assert_mountable(store),
    );
}

// Whoever gives the image its first name has announced it; the second name stands on that, and then alone.
#[test]
fn what_is_tagged_beside_a_collector_stays() {
    beside_a_collector(
        |store, _| {
            Put::into(store, Some(&name("first")));
            store.tag("first", &name("second"))?;
            store.remove_ref(&name("first"))
        },
        |store, put| put.assert_whole(store),
    );
    beside_a_collector(
        |store, _| {
            Put::into(store, Some(&name("first")));
            store.create_index(&name("index"), &["first".into()], Default::default())?;
            store.remove_ref(&name("first"))
        },
        |store, put| put.assert_whole(store),
    );
}

// A collector that begins when the name is gone already.
#[test]
fn what_is_held_stays_though_its_name_goes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(store) = store(dir.path()) else {
        return;
    };
    let put = Put::into(&store, Some(&name("a")));
    let work = store.begin().unwrap();
    let (_, target) = work.hold("a").unwrap();
    store.remove_ref(&name("a")).unwrap();
    store.gc().unwrap();
    put.assert_whole(&store);
    store.set_ref(&name("b"), &target).unwrap();
    drop(work);
    store.gc().unwrap();
    put.assert_whole(&store);
    // What was found by a name that went before it was announced is not held.
    let (_, target) = store.begin().unwrap().hold("b").unwrap();
    store.remove_ref(&name("b")).unwrap();
    let late = store.begin().unwrap().hold_target("b", &target);
    assert!(matches!(late, Err(Error::NoSuchImage(_))));
}

// A full disk cuts an announcement off in the middle of a line; the next one is read all the same.
#[test]
fn an_announcement_that_was_cut_off_spoils_no_other() {
    let append = |path: &Path| {
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"sha256:0123").unwrap();
    };
    beside_a_collector(
        |store, put| {
            append(&store.lock_path("announced"));
            store.root("r", &put.layers)
        },
        |store, put| put.assert_mountable(store),
    );
    let dir = tempfile::tempdir().unwrap();
    let Some(store) = store(dir.path()) else {
        return;
    };
    let put = Put::into(&store, None);
    let work = store.begin().unwrap();
    append(&work.scratch().join("wants"));
    assert!(work.has_layer(&put.layers[0]).unwrap());
    store.gc().unwrap();
    assert!(store.has_layer(&put.layers[0]).unwrap());
    assert!(!store.has_layer(&put.layers[1]).unwrap());
}

// What is read of an image that another took the name of, and that was then collected, is read of the other.
#[test]
fn a_name_that_changes_hands_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let Some(store) = store(dir.path()) else {
        return;
    };
    let put = Put::into(&store, Some(&name("a")));
    let mut other = None;
    let found = store.with_image("a", |image| {
        if other.is_none() {
            let work = store.begin().unwrap();
            let layers = [layer(&work, "other")];
            let config = ImageConfig::default();
            other = Some(work.put_image(config, &layers, Some(&name("a"))).unwrap());
            store.gc().unwrap();
        }
        let root = store.pin("r", &image.config.rootfs.diff_ids, Some(image))?;
        Ok((image.manifest_digest(), root.lowers().len()))
    });
    assert_eq!(found.unwrap(), (other.unwrap(), 1));
    assert_ne!(put.manifest, other.unwrap());
}
