//! What this process may give away: with all ids at hand an owner is an owner; without, it is written down.
//!
//! An ordinary user, or root of a user namespace that holds a few ids, cannot make files that belong to others, devices,
//! and attributes outside of `user.`. What a layer says of these is then kept in extended attributes of the file:
//!
//! - `user.containers.override_stat`, `UID:GID:MODE[:TYPE]`, as containers-storage and fuse-overlayfs have it: the owner
//!   (where that is not root, which the user is in its own containers), and of a device what it is; the device itself is
//!   an empty file.
//! - `user.teu.<name>`: the value of an attribute `<name>` that may not be set.
//!
//! Nothing of this enters a layer: tars are the store's truth, and what is read back from a directory is translated
//! back. Symbolic links can have no such attributes; a changed one belongs to root.
//!
//! Root of a user namespace to whom a user lent itself and subordinate ids (subuid(5)) may own what these ids reach. Its
//! directories are its own, `owned/` beside `dirs/`: outside of such a namespace nobody could read all of them.
//!
//! The mode that stands in the record is what it was; the file's own mode is the one that counts, because a container
//! changes that one.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::tar::{Attributes, Device, Xattrs};
use crate::tree;

/// Where the owner stands that a file should have.
pub(crate) const OVERRIDE: &[u8] = b"user.containers.override_stat";
/// What comes before the names of attributes that may not be set.
const KEPT: &[u8] = b"user.teu.";
/// Longest record, in bytes: two ids, a mode, and a device have 64 at most.
const RECORD_BYTES_MAX: usize = 128;

/// Who this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Root with all ids there are: of the host, or as good.
    pub(crate) is_whole: bool,
    /// Root of some namespace: may own what its namespace has ids for.
    pub(crate) is_root: bool,
    /// Root of a namespace that an ordinary user made of itself and of subordinate ids.
    pub(crate) is_lent: bool,
    uid: u32,
    gid: u32,
}

/// Who this process is; it does not change while it runs.
pub(crate) fn own() -> Identity {
    static OWN: OnceLock<Identity> = OnceLock::new();
    *OWN.get_or_init(|| {
        let is_root = rustix::process::geteuid().is_root();
        let [users, groups] = ["/proc/self/uid_map", "/proc/self/gid_map"]
            .map(|file| fs::read_to_string(file).unwrap_or_default());
        Identity {
            is_whole: is_root && is_everything(&users) && is_everything(&groups),
            is_root,
            is_lent: is_root && is_lent(&users) && is_lent(&groups),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    })
}

/// Whether an id map (user_namespaces(7)) leaves nothing out.
fn is_everything(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether an id map lends: id 0 is one user from outside, who is not root there, and others follow.
fn is_lent(map: &str) -> bool {
    let mut lines = map.lines().map(str::split_whitespace);
    let first = lines.next().map(Iterator::collect::<Vec<_>>);
    matches!(first.as_deref(), Some(["0", outside, "1"]) if *outside != "0")
        && lines.next().is_some()
}

/// Whether this process may own everything: root outside of any user namespace.
pub fn holds_all_ids() -> bool {
    own().is_whole
}

/// What is written down of a file that it cannot be here: its owner, and the device it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stated {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Whether it is a block device, its major and its minor number.
    pub device: Option<(bool, u32, u32)>,
}

/// What is written down of the file at `path` (links are followed: their own could not have it), which belongs to
/// `owner` here. What a command has given to somebody since is as it is.
pub fn stated(path: &Path, owner: (u32, u32)) -> Option<Stated> {
    let mut text = [0; RECORD_BYTES_MAX];
    let name = std::str::from_utf8(OVERRIDE).ok()?;
    let length = rustix::fs::getxattr(path, name, &mut text[..]).ok()?;
    let record = Override::parse(&text[..length])?;
    let record = record.of_file(owner);
    let device = record
        .device
        .map(|device| (device.block, device.major, device.minor));
    Some(Stated {
        uid: record.uid,
        gid: record.gid,
        device,
    })
}

/// What a layer calls the attribute that is called `name` here; `None` for our own records.
pub fn name_in_layers(name: &[u8]) -> Option<&[u8]> {
    match own().is_whole {
        true => Some(name),
        false if name == OVERRIDE => None,
        false => Some(name.strip_prefix(KEPT).unwrap_or(name)),
    }
}

/// What a file is told to be where it cannot be it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) device: Option<Device>,
}

impl Override {
    /// The record's text, for a file of these attributes.
    pub(crate) fn text(attributes: &tree::Attributes<'_>, device: Option<Device>) -> String {
        let kind = match device {
            None => String::new(),
            Some(Device {
                block,
                major,
                minor,
            }) => format!(":{}-{major}-{minor}", if block { "block" } else { "char" }),
        };
        let tree::Attributes { mode, uid, gid, .. } = attributes;
        format!("{uid}:{gid}:0{mode:o}{kind}")
    }

    /// What the record says of a file that belongs to `owner` now: who has been given it since has it.
    fn of_file(self, owner: (u32, u32)) -> Override {
        match owner {
            (0, 0) => self,
            (uid, gid) => Override { uid, gid, ..self },
        }
    }

    /// Reads a record; one that is none says nothing.
    fn parse(text: &[u8]) -> Option<Override> {
        let mut parts = std::str::from_utf8(text).ok()?.splitn(4, ':');
        let uid = parts.next()?.parse().ok()?;
        let gid = parts.next()?.parse().ok()?;
        let _mode = parts.next()?;
        let device = parts.next().and_then(|kind| {
            let mut words = kind.split('-');
            let block = match words.next()? {
                "block" => true,
                "char" => false,
                _ => return None,
            };
            Some(Device {
                block,
                major: words.next()?.parse().ok()?,
                minor: words.next()?.parse().ok()?,
            })
        });
        Some(Override { uid, gid, device })
    }
}

impl Identity {
    /// Which owner a layer names for a file that belongs to these ids here, where no record says more:
    /// an ordinary user is root in its containers.
    fn owner(self, uid: u32, gid: u32) -> (u32, u32) {
        let own = |id: u32, own: u32| match !self.is_root && id == own {
            true => 0,
            false => id,
        };
        (own(uid, self.uid), own(gid, self.gid))
    }

    /// Whether an attribute of a layer is set as it is; otherwise under another name, or not at all.
    pub(crate) fn name_here(self, name: &[u8]) -> Option<Vec<u8>> {
        if self.is_whole {
            return Some(name.to_vec());
        }
        // What a layer says of our own records would be believed.
        if name == OVERRIDE || name.starts_with(KEPT) {
            return None;
        }
        Some(match name.starts_with(b"user.") {
            true => name.to_vec(),
            false => [KEPT, name].concat(),
        })
    }

    /// Turns what a file here is into what a layer says; the device it stands for, if it stands for one.
    pub(crate) fn translate(self, attributes: &mut Attributes) -> Option<Device> {
        if self.is_whole {
            return None;
        }
        (attributes.uid, attributes.gid) = self.owner(attributes.uid, attributes.gid);
        let record = attributes.xattrs.remove(OVERRIDE);
        let record = record.and_then(|text| Override::parse(&text));
        let record = record.map(|record| record.of_file((attributes.uid, attributes.gid)));
        if let Some(record) = record {
            (attributes.uid, attributes.gid) = (record.uid, record.gid);
        }
        attributes.xattrs = std::mem::take(&mut attributes.xattrs)
            .into_iter()
            .map(|(name, value)| {
                (
                    name.strip_prefix(KEPT).map_or(name.clone(), Into::into),
                    value,
                )
            })
            .collect::<Xattrs>();
        record.and_then(|record| record.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Identity = Identity {
        is_whole: false,
        is_root: false,
        is_lent: false,
        uid: 1000,
        gid: 100,
    };

    #[test]
    fn what_is_written_down_is_read_back() {
        let device = Device {
            block: true,
            major: 8,
            minor: 1,
        };
        let owner = tree::Attributes {
            mode: 0o4755,
            uid: 5,
            gid: 6,
            ..tree::Attributes::default()
        };
        assert_eq!(Override::text(&owner, None), "5:6:04755");
        assert_eq!(Override::text(&owner, Some(device)), "5:6:04755:block-8-1");
        let mut here = Attributes {
            mode: 0o755,
            uid: 1000,
            gid: 100,
            ..Attributes::default()
        };
        here.xattrs
            .insert(OVERRIDE.into(), (*b"5:6:04755:block-8-1").into());
        let kept = USER.name_here(b"security.capability").unwrap();
        here.xattrs.insert(kept.into(), (*b"c").into());
        assert_eq!(USER.translate(&mut here), Some(device));
        assert_eq!((here.uid, here.gid, here.mode), (5, 6, 0o755));
        let names: Vec<&[u8]> = here.xattrs.keys().map(AsRef::as_ref).collect();
        assert_eq!(names, [b"security.capability"]);
    }

    #[test]
    fn the_user_is_root_in_its_containers() {
        let mut here = Attributes {
            uid: 1000,
            gid: 7,
            ..Attributes::default()
        };
        assert_eq!(USER.translate(&mut here), None);
        assert_eq!((here.uid, here.gid), (0, 7));
    }

    #[test]
    fn layers_cannot_speak_of_our_records() {
        assert_eq!(USER.name_here(OVERRIDE), None);
        assert_eq!(USER.name_here(b"user.teu.security.x"), None);
        assert_eq!(USER.name_here(b"user.x"), Some(b"user.x".to_vec()));
        assert!(is_everything("         0          0 4294967295\n"));
        assert!(!is_everything("0 1000 1\n"));
        assert!(is_lent(
            "         0       1000          1\n         1     100000      65536\n"
        ));
        for map in [
            "0 1000 1\n",
            "0 0 4294967295\n",
            "0 0 1\n1 1 5\n",
            "0 100000 65536\n",
        ] {
            assert!(!is_lent(map), "{map}");
        }
    }

    #[test]
    fn who_was_given_a_file_has_it() {
        let record = Override::parse(b"5:6:0644").unwrap();
        assert_eq!(record.of_file((0, 0)), record);
        let given = record.of_file((7, 0));
        assert_eq!((given.uid, given.gid), (7, 0));
    }
}
