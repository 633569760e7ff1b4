//! Mount options: from mount(8)'s words to what the kernel's mount calls take
//! (config.md, "Linux mount options").

use libc::{
    MS_NOATIME, MS_NODEV, MS_NODIRATIME, MS_NOEXEC, MS_NOSUID, MS_NOSYMFOLLOW, MS_PRIVATE,
    MS_RDONLY, MS_RELATIME, MS_SHARED, MS_SLAVE, MS_STRICTATIME, MS_UNBINDABLE,
};

use super::flags::Flags;
use crate::sys::MountAttr;

/// The options of one mount, sorted by who carries them out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Flags of the mount itself.
    pub flags: Flags,
    /// Attributes of the mount and of all below it.
    pub recursive_attr: MountAttr,
    /// Changes of propagation, in order; true: all below too.
    pub propagation: Vec<(u64, bool)>,
    /// Whether it is a bind mount, and a recursive one.
    pub bind: Option<Recursive>,
    /// Whether it changes a mount that is there.
    pub remount: bool,
    /// Whether a tmpfs starts with a copy of what it covers.
    pub copy_up: bool,
    /// Whether ids are mapped, and below it too.
    pub idmap: Option<Recursive>,
    /// Flags and options of the file system: a key, and a value or not.
    pub filesystem: Vec<(String, Option<String>)>,
}

/// Whether mounts below are meant too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recursive {
    /// Only this one.
    No,
    /// Those below too.
    Yes,
}

/// Words about a flag, each also with a leading `r`: the flag, and whether the
/// word sets it.
const FLAGS: &[(&str, u64, bool)] = &[
    ("ro", MS_RDONLY, true),
    ("rw", MS_RDONLY, false),
    ("nosuid", MS_NOSUID, true),
    ("suid", MS_NOSUID, false),
    ("nodev", MS_NODEV, true),
    ("dev", MS_NODEV, false),
    ("noexec", MS_NOEXEC, true),
    ("exec", MS_NOEXEC, false),
    ("noatime", MS_NOATIME, true),
    ("atime", MS_NOATIME, false),
    ("relatime", MS_RELATIME, true),
    ("norelatime", MS_RELATIME, false),
    ("strictatime", MS_STRICTATIME, true),
    ("nostrictatime", MS_STRICTATIME, false),
    ("nodiratime", MS_NODIRATIME, true),
    ("diratime", MS_NODIRATIME, false),
    ("nosymfollow", MS_NOSYMFOLLOW, true),
    ("symfollow", MS_NOSYMFOLLOW, false),
];

/// Words for propagation, each also with a leading `r`.
const PROPAGATION: &[(&str, u64)] = &[
    ("private", MS_PRIVATE),
    ("shared", MS_SHARED),
    ("slave", MS_SLAVE),
    ("unbindable", MS_UNBINDABLE),
];

/// Flags of a file system as a whole that the kernel takes by these names.
const FILESYSTEM_FLAGS: &[&str] = &[
    "sync",
    "async",
    "dirsync",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "silent",
];

/// Words that change nothing: the default, or obsolete.
const IGNORED: &[&str] = &[
    "defaults",
    "loud",
    "iversion",
    "noiversion",
    "auto",
    "noauto",
    "user",
    "nouser",
    "_netdev",
];

/// Every word with a meaning of its own, for `features`.
pub(crate) fn known() -> Vec<String> {
    let mut words: Vec<String> = [
        "bind",
        "rbind",
        "remount",
        "tmpcopyup",
        "idmap",
        "ridmap",
        "defaults",
        "loud",
        "iversion",
        "noiversion",
    ]
    .iter()
    .chain(FILESYSTEM_FLAGS)
    .map(|word| (*word).to_owned())
    .collect();
    for (word, ..) in FLAGS {
        words.push((*word).to_owned());
        words.push(format!("r{word}"));
    }
    for (word, _) in PROPAGATION {
        words.push((*word).to_owned());
        words.push(format!("r{word}"));
    }
    words.sort_unstable();
    words.dedup();
    words
}

fn flag(word: &str) -> Option<(u64, bool)> {
    FLAGS
        .iter()
        .find(|(name, ..)| *name == word)
        .map(|&(_, flag, sets)| (flag, sets))
}

fn propagation(word: &str) -> Option<u64> {
    PROPAGATION
        .iter()
        .find(|(name, _)| *name == word)
        .map(|&(_, flag)| flag)
}

/// Propagation named by `linux.rootfsPropagation`: the flag, and whether all
/// mounts below are meant.
pub(crate) fn root_propagation(word: &str) -> Option<(u64, bool)> {
    match propagation(word) {
        Some(flag) => Some((flag, false)),
        None => word
            .strip_prefix('r')
            .and_then(propagation)
            .map(|flag| (flag, true)),
    }
}

impl Options {
    /// Sorts the words of one mount. Unknown ones belong to the file system.
    pub(crate) fn parse(words: &[String]) -> Options {
        let mut options = Options::default();
        for word in words {
            options.word(word);
        }
        options
    }

    fn word(&mut self, word: &str) {
        match word {
            "" => (),
            "bind" => self.bind = self.bind.or(Some(Recursive::No)),
            "rbind" => self.bind = Some(Recursive::Yes),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(Recursive::No),
            "ridmap" => self.idmap = Some(Recursive::Yes),
            _ if IGNORED.contains(&word) => (),
            _ if FILESYSTEM_FLAGS.contains(&word) => self.filesystem.push((word.to_owned(), None)),
            _ => self.flag_or_data(word),
        }
    }

    fn flag_or_data(&mut self, word: &str) {
        let recursive = word.strip_prefix('r');
        if let Some((flag, sets)) = flag(word) {
            self.flags.word(flag, sets);
        } else if let Some(flag) = propagation(word) {
            self.propagation.push((flag, false));
        } else if let Some((flag, sets)) = recursive.and_then(flag) {
            self.recursive_attr.word(flag, sets);
        } else if let Some(flag) = recursive.and_then(propagation) {
            self.propagation.push((flag, true));
        } else {
            // One word may hold several options of the file system.
            for option in word.split(',').filter(|option| !option.is_empty()) {
                let (key, value) = match option.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (option, None),
                };
                self.filesystem.push((key.to_owned(), value));
            }
        }
    }

    /// Whether the file system itself was given `key`.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.filesystem.iter().any(|(name, _)| name == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_go_where_they_belong() {
        let options = parse("rbind ro nosuid rprivate rnodev mode=755 size=64k");
        assert_eq!(options.bind, Some(Recursive::Yes));
        assert_eq!(options.flags.set, MS_RDONLY | MS_NOSUID);
        assert_eq!(options.recursive_attr.set, libc::MOUNT_ATTR_NODEV);
        assert_eq!(options.propagation, [(MS_PRIVATE, true)]);
        assert_eq!(options.filesystem[0], ("mode".into(), Some("755".into())));
    }

    #[test]
    fn the_last_word_wins() {
        let flags = |words| {
            let flags = parse(words).flags;
            (flags.set, flags.cleared)
        };
        assert_eq!(flags("ro rw"), (0, MS_RDONLY));
        assert_eq!(flags("rw ro"), (MS_RDONLY, 0));
    }

    #[test]
    fn recursive_words_are_not_taken_for_plain_ones() {
        assert_eq!(parse("relatime").recursive_attr, MountAttr::default());
        assert_eq!(parse("rro").flags, Flags::default());
        let attr = parse("rnoatime rrelatime").recursive_attr;
        assert_eq!((attr.set, attr.clear), (0, libc::MOUNT_ATTR__ATIME));
    }
}
