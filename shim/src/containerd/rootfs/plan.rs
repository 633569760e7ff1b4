//! What a mount of a request means, out of its options: those of fstab, as
//! containerd's own mount package reads them.

use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::containerd::proto::Mount;

/// One mount as system calls take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) how: How,
    pub(super) source: String,
    pub(super) flags: MountFlags,
    /// What the file system itself is told.
    pub(super) data: Vec<String>,
    /// Set on the mount when it is there.
    pub(super) propagation: Option<MountPropagationFlags>,
}

/// Which kind of mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// A file system of this type.
    New(String),
    /// The same, in a file that takes a loop device where the file system cannot read files itself.
    Loop {
        fstype: String,
        /// Past the page cache of the file.
        direct_io: bool,
    },
    /// A tree that is there already.
    Bind { recursive: bool },
    /// Other options for what is mounted there.
    Remount,
}

/// Options that ask for what is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    /// Owners of files are to be shifted.
    #[error(
        "mount option {0:?}: id-mapped layers are not offered; use a snapshotter that changes owners"
    )]
    IdMap(String),
    /// A NUL byte.
    #[error("a mount option or path holds a NUL byte")]
    Nul,
}

impl Plan {
    /// What `mount` means.
    ///
    /// # Errors
    /// [`BadOption`].
    pub(super) fn of(mount: &Mount) -> Result<Self, BadOption> {
        let texts = [&mount.r#type, &mount.source, &mount.target];
        if texts
            .into_iter()
            .chain(&mount.options)
            .any(|text| text.contains('\0'))
        {
            return Err(BadOption::Nul);
        }
        let mut plan = Self {
            how: How::New(mount.r#type.clone()),
            source: mount.source.clone(),
            flags: MountFlags::empty(),
            data: Vec::new(),
            propagation: None,
        };
        let mut loops = false;
        for option in &mount.options {
            match option.as_str() {
                "bind" => plan.how = How::Bind { recursive: false },
                "rbind" => plan.how = How::Bind { recursive: true },
                "remount" => plan.how = How::Remount,
                "loop" => loops = true,
                text if text.starts_with("uidmap=") || text.starts_with("gidmap=") => {
                    return Err(BadOption::IdMap(option.clone()));
                }
                text => plan.option(text),
            }
        }
        if let How::New(fstype) = &plan.how
            && loops
        {
            let all = plan.data.len();
            plan.data.retain(|option| option != "direct-io");
            plan.how = How::Loop {
                fstype: fstype.clone(),
                direct_io: plan.data.len() < all,
            };
        }
        Ok(plan)
    }

    fn option(&mut self, text: &str) {
        if let Some((set, flags)) = flag(text) {
            self.flags.set(flags, set);
        } else if let Some(propagation) = propagation(text) {
            self.propagation = Some(propagation);
        } else if text != "defaults" && text != "rw" {
            self.data.push(text.to_owned());
        }
    }
}

/// Whether an option sets or clears a flag, and which. `mount(8)`.
fn flag(text: &str) -> Option<(bool, MountFlags)> {
    Some(match text {
        "async" => (false, MountFlags::SYNCHRONOUS),
        "atime" => (false, MountFlags::NOATIME),
        "dev" => (false, MountFlags::NODEV),
        "diratime" => (false, MountFlags::NODIRATIME),
        "dirsync" => (true, MountFlags::DIRSYNC),
        "exec" => (false, MountFlags::NOEXEC),
        "mand" => (true, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        "noatime" => (true, MountFlags::NOATIME),
        "nodev" => (true, MountFlags::NODEV),
        "nodiratime" => (true, MountFlags::NODIRATIME),
        "noexec" => (true, MountFlags::NOEXEC),
        "nomand" => (false, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        "norelatime" => (false, MountFlags::RELATIME),
        "nostrictatime" => (false, MountFlags::STRICTATIME),
        "nosuid" => (true, MountFlags::NOSUID),
        "relatime" => (true, MountFlags::RELATIME),
        "ro" => (true, MountFlags::RDONLY),
        "rw" => (false, MountFlags::RDONLY),
        "strictatime" => (true, MountFlags::STRICTATIME),
        "suid" => (false, MountFlags::NOSUID),
        "sync" => (true, MountFlags::SYNCHRONOUS),
        _ => return None,
    })
}

fn propagation(text: &str) -> Option<MountPropagationFlags> {
    let (recursive, name) = match text.strip_prefix('r') {
        Some(name) if text != "rw" => (MountPropagationFlags::REC, name),
        _ => (MountPropagationFlags::empty(), text),
    };
    let kind = match name {
        "shared" => MountPropagationFlags::SHARED,
        "private" => MountPropagationFlags::PRIVATE,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

/// An overlay's options that are too long, with its lower directories named from
/// the folder that they have in common. `None`: that makes nothing shorter.
pub(super) fn shorten(data: &[String]) -> Option<(String, Vec<String>)> {
    let lower = data
        .iter()
        .find_map(|option| option.strip_prefix("lowerdir="))?;
    let folders = split_layers(lower);
    let first = folders.first()?;
    let mut common = &first[..=first.rfind('/')?];
    while !folders
        .iter()
        .all(|folder| folder.len() > common.len() && folder.starts_with(common))
    {
        let above = common.strip_suffix('/')?.rfind('/')?;
        common = &common[..=above];
    }
    // A backslash quotes in options, but not in a path that is changed to.
    if common == "/" || common.contains('\\') {
        return None;
    }
    let short: Vec<&str> = folders
        .iter()
        .map(|folder| &folder[common.len()..])
        .collect();
    let mut options = vec![format!("lowerdir={}", short.join(":"))];
    let others = data
        .iter()
        .filter(|option| !option.starts_with("lowerdir="));
    options.extend(others.cloned());
    Some((common.to_owned(), options))
}

/// The layers of a `lowerdir` option; a colon after a backslash belongs to a name.
fn split_layers(text: &str) -> Vec<&str> {
    let mut layers = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b':' && !quoted {
            layers.push(&text[start..at]);
            start = at + 1;
        }
        quoted = byte == b'\\' && !quoted;
    }
    layers.push(&text[start..]);
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fstype: &str, options: &[&str]) -> Result<Plan, BadOption> {
        Plan::of(&Mount {
            r#type: fstype.into(),
            source: "/source".into(),
            target: String::new(),
            options: options.iter().map(|text| (*text).to_owned()).collect(),
        })
    }

    #[test]
    fn flags_are_told_from_data() {
        let plan = of(
            "tmpfs",
            &["ro", "nosuid", "size=64k", "defaults", "mode=755"],
        )
        .unwrap();
        assert_eq!(plan.how, How::New("tmpfs".into()));
        assert_eq!(plan.flags, MountFlags::RDONLY | MountFlags::NOSUID);
        assert_eq!(plan.data, ["size=64k", "mode=755"]);
        assert_eq!(plan.propagation, None);
        let plan = of("tmpfs", &["ro", "noexec", "exec", "rw"]).unwrap();
        assert_eq!(plan.flags, MountFlags::empty());
        assert!(plan.data.is_empty());
    }

    #[test]
    fn binds_and_propagation() {
        let plan = of("bind", &["rbind", "ro", "rslave"]).unwrap();
        assert_eq!(plan.how, How::Bind { recursive: true });
        assert_eq!(
            plan.propagation,
            Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        );
        let plan = of("bind", &["bind", "private"]).unwrap();
        assert_eq!(plan.how, How::Bind { recursive: false });
        assert_eq!(plan.propagation, Some(MountPropagationFlags::PRIVATE));
        assert_eq!(of("", &["remount", "ro"]).unwrap().how, How::Remount);
        assert_eq!(
            of("x", &["relatime", "redirect_dir=on"]).unwrap().data,
            ["redirect_dir=on"]
        );
    }

    #[test]
    fn files_may_be_mounted() {
        let plan = of("ext4", &["loop", "direct-io", "ro"]).unwrap();
        let how = How::Loop {
            fstype: "ext4".into(),
            direct_io: true,
        };
        assert_eq!((plan.how, plan.data), (how, Vec::new()));
    }

    #[test]
    fn what_is_not_offered_is_said() {
        let error = of("overlay", &["uidmap=0:1000:1"]).unwrap_err();
        assert!(error.to_string().contains("id-mapped"));
        assert_eq!(of("over\0lay", &[]), Err(BadOption::Nul));
    }

    fn shortened(lower: &str) -> Option<(String, Vec<String>)> {
        shorten(&[
            "index=off".into(),
            format!("lowerdir={lower}"),
            "upperdir=/u".into(),
        ])
    }

    #[test]
    fn layers_in_one_folder_are_named_from_there() {
        let (folder, options) = shortened("/var/s/12/fs:/var/s/1/fs:/var/s/123/fs").unwrap();
        assert_eq!(folder, "/var/s/");
        assert_eq!(
            options,
            ["lowerdir=12/fs:1/fs:123/fs", "index=off", "upperdir=/u"]
        );
        // The longest common text is no folder.
        assert_eq!(shortened("/var/s/12:/var/s/13").unwrap().0, "/var/s/");
        assert_eq!(shortened("/var/s/12:/var/s/12/3").unwrap().0, "/var/s/");
        let (_, options) = shortened(r"/s/a\:b:/s/c\\:/s/d").unwrap();
        assert_eq!(options[0], r"lowerdir=a\:b:c\\:d");
    }

    #[test]
    fn layers_that_have_nothing_in_common_stay_long() {
        for lower in ["/a/b:/c/d", "", "/a:/b", "a:b", r"/s\:s/a:/s\:s/b"] {
            assert_eq!(shortened(lower), None, "{lower}");
        }
        assert_eq!(shorten(&["upperdir=/u".into()]), None);
    }
}
