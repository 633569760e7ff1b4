//! CRIU's requests and answers: the part of its `images/rpc.proto` that is
//! needed here. Numbers are the fields' there.

use std::os::fd::RawFd;
use std::path::PathBuf;

use super::wire::{Fields, Malformed, Message};

/// `criu_req_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Save and end, or leave running.
    Dump,
    /// Bring back.
    Restore,
    /// Save the memory only.
    PreDump,
    /// News on the way, and its acknowledgement.
    Notify,
    /// What kernel and CRIU can do.
    FeatureCheck,
    /// Which CRIU it is.
    Version,
    /// Any other.
    Other(i32),
}

impl Kind {
    fn number(self) -> i32 {
        match self {
            Kind::Dump => 1,
            Kind::Restore => 2,
            Kind::PreDump => 4,
            Kind::Notify => 6,
            Kind::FeatureCheck => 9,
            Kind::Version => 10,
            Kind::Other(number) => number,
        }
    }

    fn from_number(number: i32) -> Self {
        [
            Kind::Dump,
            Kind::Restore,
            Kind::PreDump,
            Kind::Notify,
            Kind::FeatureCheck,
            Kind::Version,
        ]
        .into_iter()
        .find(|kind| kind.number() == number)
        .unwrap_or(Kind::Other(number))
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Dump => "DUMP",
            Kind::Restore => "RESTORE",
            Kind::PreDump => "PRE_DUMP",
            Kind::Notify => "NOTIFY",
            Kind::FeatureCheck => "FEATURE_CHECK",
            Kind::Version => "VERSION",
            Kind::Other(0) => "EMPTY",
            Kind::Other(number) => return write!(f, "{number}"),
        })
    }
}

/// `criu_cg_mode`: what CRIU does about cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CgroupMode {
    /// Nothing.
    Ignore,
    /// Make those that are missing.
    Soft,
    /// Make them and restore all their files.
    Full,
    /// The same, and fail where one is there already.
    Strict,
    /// What CRIU takes for the best.
    #[default]
    Default,
}

impl CgroupMode {
    fn number(self) -> i32 {
        match self {
            CgroupMode::Ignore => 0,
            CgroupMode::Soft => 3,
            CgroupMode::Full => 4,
            CgroupMode::Strict => 5,
            CgroupMode::Default => 6,
        }
    }
}

/// `ext_mount_map`: a mount that comes from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExternalMount {
    /// At a dump the mount point, at a restore the name in the images.
    pub key: PathBuf,
    /// At a dump the name in the images, at a restore the source.
    pub value: PathBuf,
}

/// `inherit_fd`: a descriptor of CRIU's that takes the place of a saved one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InheritFd {
    /// The name of the saved one.
    pub key: String,
    /// The number in CRIU's process.
    pub fd: RawFd,
}

/// `join_namespace`: a namespace that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JoinNamespace {
    /// Its kind, as below `/proc/PID/ns`.
    pub kind: &'static str,
    /// Its file.
    pub file: PathBuf,
}

/// `cgroup_root`: where a restored tree of cgroups begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CgroupRoot {
    /// The controller, empty for cgroup2.
    pub controller: String,
    /// Seen from the root of its hierarchy.
    pub path: String,
}

/// `criu_page_server_info`: who gets the memory, over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageServer {
    /// Address.
    pub address: String,
    /// Port.
    pub port: u16,
}

/// `criu_opts`. What is `None` or empty is not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub images_dir_fd: RawFd,
    pub work_dir_fd: Option<RawFd>,
    pub pid: Option<i32>,
    pub log_file: &'static str,
    pub root: PathBuf,
    pub parent_img: Option<String>,
    pub config_file: Option<PathBuf>,
    pub freeze_cgroup: Option<PathBuf>,
    pub manage_cgroups_mode: CgroupMode,
    pub empty_ns: u32,
    pub status_fd: Option<RawFd>,
    pub page_server: Option<PageServer>,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
    pub leave_running: Option<bool>,
    pub link_remap: Option<bool>,
    pub tcp_skip_in_flight: Option<bool>,
    pub track_mem: Option<bool>,
    pub evasive_devices: Option<bool>,
    pub rst_sibling: Option<bool>,
    pub ext_unix_sk: bool,
    pub tcp_established: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    pub ext_mnt: Vec<ExternalMount>,
    pub external: Vec<String>,
    pub inherit_fd: Vec<InheritFd>,
    pub join_ns: Vec<JoinNamespace>,
    pub cg_root: Vec<CgroupRoot>,
}

/// `log_level`: CRIU's debug level, as runc asks for: its log is the only
/// account of what failed.
const LOG_LEVEL: i32 = 4;

impl Options {
    fn encode(&self) -> Message {
        let mut message = Message::default();
        message.int(1, self.images_dir_fd);
        self.encode_numbers(&mut message);
        self.encode_flags(&mut message);
        self.encode_texts(&mut message);
        self.encode_lists(&mut message);
        message
    }

    fn encode_numbers(&self, message: &mut Message) {
        for (field, value) in [
            (2, self.pid),
            (9, Some(LOG_LEVEL)),
            (17, self.work_dir_fd),
            (34, Some(self.manage_cgroups_mode.number())),
            (49, self.status_fd),
        ] {
            if let Some(value) = value {
                message.int(field, value);
            }
        }
        message.unsigned(38, self.empty_ns);
    }

    fn encode_flags(&self, message: &mut Message) {
        for (field, value) in [
            (3, self.leave_running),
            (4, Some(self.ext_unix_sk)),
            (5, Some(self.tcp_established)),
            (6, self.evasive_devices),
            (7, Some(self.shell_job)),
            (8, Some(self.file_locks)),
            // notify_scripts
            (12, Some(true)),
            (15, self.track_mem),
            (16, Some(self.auto_dedup)),
            (18, self.link_remap),
            // manage_cgroups, for a CRIU that does not know the mode
            (24, Some(true)),
            (26, self.rst_sibling),
            (46, self.tcp_skip_in_flight),
            (48, Some(self.lazy_pages)),
            // orphan_pts_master
            (50, Some(true)),
        ] {
            if let Some(value) = value {
                message.flag(field, value);
            }
        }
    }

    fn encode_texts(&self, message: &mut Message) {
        message.bytes(10, self.log_file.as_bytes());
        message.path(13, &self.root);
        for (field, value) in [
            (14, &self.parent_img),
            (53, &self.lsm_profile),
            (63, &self.lsm_mount_context),
        ] {
            if let Some(value) = value {
                message.bytes(field, value.as_bytes());
            }
        }
        for (field, value) in [(44, &self.freeze_cgroup), (51, &self.config_file)] {
            if let Some(value) = value {
                message.path(field, value);
            }
        }
    }

    fn encode_lists(&self, message: &mut Message) {
        if let Some(server) = &self.page_server {
            let mut inner = Message::default();
            inner.bytes(1, server.address.as_bytes());
            inner.int(2, server.port.into());
            message.message(11, &inner);
        }
        for mount in &self.ext_mnt {
            let mut inner = Message::default();
            inner.path(1, &mount.key);
            inner.path(2, &mount.value);
            message.message(23, &inner);
        }
        for root in &self.cg_root {
            let mut inner = Message::default();
            inner.bytes(1, root.controller.as_bytes());
            inner.bytes(2, root.path.as_bytes());
            message.message(25, &inner);
        }
        for inherit in &self.inherit_fd {
            let mut inner = Message::default();
            inner.bytes(1, inherit.key.as_bytes());
            inner.int(2, inherit.fd);
            message.message(27, &inner);
        }
        for external in &self.external {
            message.bytes(37, external.as_bytes());
        }
        for namespace in &self.join_ns {
            let mut inner = Message::default();
            inner.bytes(1, namespace.kind.as_bytes());
            inner.path(2, &namespace.file);
            message.message(39, &inner);
        }
    }
}

/// `criu_features`: what is asked for, or what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Features {
    /// The kernel tells which pages were written to.
    pub mem_track: bool,
    /// Memory can be brought in when it is touched (userfaultfd).
    pub lazy_pages: bool,
}

/// `criu_req`.
#[derive(Debug, Clone, Default)]
pub(super) struct Request(Message);

impl Request {
    /// A request without arguments.
    pub(super) fn bare(kind: Kind) -> Self {
        let mut message = Message::default();
        message.int(1, kind.number());
        Self(message)
    }

    /// A request with options.
    pub(super) fn with(kind: Kind, options: &Options) -> Self {
        let Self(mut message) = Self::bare(kind);
        message.message(2, &options.encode());
        Self(message)
    }

    /// Says that the news was taken well, and CRIU may go on.
    pub(super) fn acknowledge() -> Self {
        let Self(mut message) = Self::bare(Kind::Notify);
        message.flag(3, true);
        Self(message)
    }

    /// Asks for features.
    pub(super) fn features(wanted: Features) -> Self {
        let Self(mut message) = Self::bare(Kind::FeatureCheck);
        let mut inner = Message::default();
        for (field, wanted) in [(1, wanted.mem_track), (2, wanted.lazy_pages)] {
            if wanted {
                inner.flag(field, true);
            }
        }
        message.message(5, &inner);
        Self(message)
    }

    /// What goes over the wire.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// `criu_notify`: a point of CRIU's work has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notify {
    /// Name of the point.
    pub script: String,
    /// The first process, where the point concerns it.
    pub pid: Option<i32>,
}

/// `criu_version` as one number: 3.17.1 is 31701. A build from between two
/// releases counts as the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub u32);

/// `criu_resp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub kind: Kind,
    pub success: bool,
    pub notify: Option<Notify>,
    pub errno: i32,
    pub message: String,
    pub features: Features,
    pub version: Option<Version>,
}

impl Response {
    /// Reads an answer. Unknown fields are passed over.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut kind = None;
        let mut response = Self {
            kind: Kind::Other(0),
            success: false,
            notify: None,
            errno: 0,
            message: String::new(),
            features: Features::default(),
            version: None,
        };
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => kind = Some(Kind::from_number(value.int())),
                (2, value) => response.success = value.flag(),
                (5, value) => response.notify = Some(notify(value.bytes())?),
                (7, value) => response.errno = value.int(),
                (8, value) => response.features = features(value.bytes())?,
                (9, value) => response.message = value.text(),
                (10, value) => response.version = Some(version(value.bytes())?),
                _ => {}
            }
        }
        response.kind = kind.ok_or(Malformed)?;
        Ok(response)
    }
}

fn notify(bytes: &[u8]) -> Result<Notify, Malformed> {
    let mut notify = Notify::default();
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => notify.script = value.text(),
            (2, value) => notify.pid = Some(value.int()),
            _ => {}
        }
    }
    Ok(notify)
}

fn features(bytes: &[u8]) -> Result<Features, Malformed> {
    let mut features = Features::default();
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => features.mem_track = value.flag(),
            (2, value) => features.lazy_pages = value.flag(),
            _ => {}
        }
    }
    Ok(features)
}

fn version(bytes: &[u8]) -> Result<Version, Malformed> {
    let (mut number, mut sublevel, mut from_git) = (0u32, 0, false);
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => number += value.int().clamp(0, 1000) as u32 * 10_000,
            (2, value) => number += value.int().clamp(0, 99) as u32 * 100,
            (3, _) => from_git = true,
            (4, value) => sublevel = value.int().clamp(0, 99) as u32,
            _ => {}
        }
    }
    Ok(Version(number + if from_git { 100 } else { sublevel }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_its_golden_bytes() {
        assert_eq!(Request::bare(Kind::Version).as_bytes(), [0x08, 10]);
        assert_eq!(Request::acknowledge().as_bytes(), [0x08, 6, 0x18, 1]);
        let wanted = Features {
            mem_track: true,
            lazy_pages: false,
        };
        assert_eq!(
            Request::features(wanted).as_bytes(),
            [0x08, 9, 0x2a, 2, 0x08, 1]
        );
    }

    #[test]
    fn options_are_their_golden_bytes() {
        let options = Options {
            images_dir_fd: 5,
            log_file: "l",
            root: "/r".into(),
            pid: Some(300),
            leave_running: Some(false),
            ext_mnt: vec![ExternalMount {
                key: "/a".into(),
                value: "/b".into(),
            }],
            ..Options::default()
        };
        let golden: Vec<u8> = [
            &[0x08, 1, 0x12, 63][..],
            &[0x08, 5, 0x10, 0xac, 2, 0x48, 4, 0x90, 2, 6],
            &[0xb0, 2, 0],
            &[0x18, 0, 0x20, 0, 0x28, 0, 0x38, 0, 0x40, 0, 0x60, 1],
            &[0x80, 1, 0, 0xc0, 1, 1, 0x80, 3, 0, 0x90, 3, 1],
            b"\x52\x01l\x6a\x02/r",
            b"\xba\x01\x08\x0a\x02/a\x12\x02/b",
        ]
        .concat();
        let bytes = Request::with(Kind::Dump, &options);
        let bytes = bytes.as_bytes();
        assert_eq!(bytes[3] as usize, bytes.len() - 4);
        assert_eq!(&bytes[4..], &golden[4..]);
    }

    #[test]
    fn an_answer_is_read() {
        // type NOTIFY, success, notify { script "post-restore", pid 300 }
        let bytes = b"\x08\x06\x10\x01\x2a\x11\x0a\x0cpost-restore\x10\xac\x02";
        let response = Response::decode(bytes).unwrap();
        assert_eq!((response.kind, response.success), (Kind::Notify, true));
        let notify = response.notify.unwrap();
        assert_eq!(
            (notify.script.as_str(), notify.pid),
            ("post-restore", Some(300))
        );
        // type DUMP, no success, errno 1, a message
        let response = Response::decode(b"\x08\x01\x10\x00\x38\x01\x4a\x04oops").unwrap();
        assert_eq!((response.errno, response.message.as_str()), (1, "oops"));
        assert!(!response.success);
        assert_eq!(Response::decode(b"\x10\x01"), Err(Malformed));
    }

    #[test]
    fn versions_are_numbers() {
        let version = |bytes: &[u8]| {
            let mut message = vec![0x08, 10, 0x10, 1, 0x52, bytes.len() as u8];
            message.extend_from_slice(bytes);
            Response::decode(&message).unwrap().version.unwrap().0
        };
        assert_eq!(version(&[0x08, 3, 0x10, 17, 0x20, 1]), 31701);
        assert_eq!(version(&[0x08, 4, 0x10, 0]), 40000);
        // between 3.16 and 3.17
        assert_eq!(version(&[0x08, 3, 0x10, 16, 0x1a, 1, b'g', 0x20, 5]), 31700);
    }
}
