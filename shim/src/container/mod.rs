//! What `teu` and `teu-shim` keep on disk.
//!
//! ```text
//! DATA/                      --root: /var/lib/teu or $XDG_DATA_HOME/teu
//! ├── containers/<id>/       0700; one container, see below
//! ├── names/<name>           symbolic link to an id: creating it reserves the name
//! ├── volumes/<name>/        named and anonymous volumes: the folder is the volume
//! ├── tmp/                   folders being made or removed; flock shared while making,
//! │                          exclusive to sweep what a killed program left
//! └── store/                 teu-store's
//! STATE/                     --state: /run/teu or $XDG_RUNTIME_DIR/teu; gone after a reboot
//! ├── runtime/               teu-runtime --root
//! ├── netns/<id>             the network namespace of a bridged container, bind-mounted
//! └── cni/                   addresses in use, by the host-local plugin
//!
//! DATA/containers/<id>/      is also the OCI bundle
//! ├── record.json            what was asked for; complete before the folder has its name
//! ├── lock                   flock: held from creation until the container has ended,
//! │                          first by teu, then by the shim. Free: nobody looks after it
//! ├── config.json  rootfs/   written by teu-store; rootfs is a mount point in the shim's
//! │                          private mount namespace only
//! ├── upper/  work/          the writable layer (where the store says "directory")
//! ├── hosts hostname resolv.conf   mounted into the container, networks other than host
//! ├── network.json           before the first plugin runs: that one did; then their results
//! ├── state.json             who runs: shim and init by pid and start time
//! ├── log                    output, k8s-file (CRI) format
//! ├── log.1  log.2 ...       full ones, the newest first, as many as are to be kept
//! ├── attach  ctl            sockets of the shim, SOCK_SEQPACKET
//! ├── runtime.log            what the runtime said last, JSON lines
//! ├── exit.space             room reserved for the exit record, so that a full disk cannot lose it
//! └── exit                   how it ended; renamed from exit.space, durable
//! ```
//!
//! A container is what its folder says. Each file is old or new, never half
//! (temporary file and rename). [`status::observe`] derives the state.

pub mod exit;
pub mod folder;
pub mod id;
pub mod lock;
pub mod record;
pub mod status;

use std::path::{Path, PathBuf};

pub use exit::Exit;
pub use folder::Folder;
pub use id::{ContainerId, Name};
pub use lock::Lock;
pub use record::Record;
pub use status::Status;

/// The two roots that all our files live under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What survives a reboot.
    pub data: PathBuf,
    /// What does not.
    pub state: PathBuf,
}

impl Place {
    /// The places of this user: root's are global, others' follow the XDG base
    /// directory specification. A given path replaces the default and is made absolute.
    ///
    /// # Errors
    /// Where neither a path nor the variables tell.
    pub fn new(data: Option<&Path>, state: Option<&Path>) -> Result<Self, crate::Error> {
        let root = rustix::process::geteuid().is_root();
        let default = |global: &str, variable: &str, fallback: Option<PathBuf>| {
            if root {
                return Ok(PathBuf::from(global));
            }
            std::env::var_os(variable)
                .map(PathBuf::from)
                .or(fallback)
                .map(|base| base.join("teu"))
                .ok_or_else(|| {
                    crate::Error::Invalid(format!(
                        "{variable} is not set; set it, or give --root and --state"
                    ))
                })
        };
        let home_data = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
        let pick = |given: Option<&Path>,
                    global: &str,
                    variable: &str,
                    fallback: Option<PathBuf>| match given {
            Some(path) => std::path::absolute(path).map_err(|source| crate::Error::File {
                action: "resolve",
                path: path.to_owned(),
                source,
            }),
            None => default(global, variable, fallback),
        };
        Ok(Self {
            data: pick(data, "/var/lib/teu", "XDG_DATA_HOME", home_data)?,
            state: pick(state, "/run/teu", "XDG_RUNTIME_DIR", None)?,
        })
    }

    /// Where the containers' folders are.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// Where names are reserved.
    #[must_use]
    pub fn names(&self) -> PathBuf {
        self.data.join("names")
    }

    /// Where volumes are.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// Where folders are made and removed.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.data.join("tmp")
    }

    /// The store's own root.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// The runtime's own root.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.state.join("runtime")
    }

    /// Where network namespaces are kept by name.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        self.state.join("netns")
    }

    /// Where the address plugin keeps its leases.
    #[must_use]
    pub fn cni(&self) -> PathBuf {
        self.state.join("cni")
    }
}
