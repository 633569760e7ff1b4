//! How steps are kept apart from the host: chosen once, when the program starts, and said.
//!
//! ```text
//! root                                   a mount namespace, and the runtime does the rest
//!   else: user namespace with subordinate ids   newuidmap(1) and newgidmap(1) lend them; digests are as root's
//!   else: user namespace with one id            nothing can be given to anybody else than root
//!   else: what is missing
//! ```
//!
//! This process itself enters: within, it is root, and all the rest of a build is as root does it. A process with threads
//! cannot make a user namespace, so this comes first; and the ids must be mapped from outside, so a helper (this
//! program again) is started before and waits.

pub mod doctor;
mod ids;
mod knobs;
mod mounts;
mod probe;

pub use ids::{MAP_IDS, helper};
pub use probe::{PROBE, probe};

use ids::Helper;
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::UnshareFlags;
use serde::Serialize;

/// What keeps steps apart from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Root, with mounts of its own.
    Root,
    /// Root of a user namespace in which other ids exist, too.
    SubordinateIds,
    /// Root of a user namespace in which nobody else exists.
    OneId,
}

impl Isolation {
    /// All, the best first.
    pub const ALL: [Self; 3] = [Self::Root, Self::SubordinateIds, Self::OneId];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::SubordinateIds => "user namespace with subordinate ids",
            Self::OneId => "user namespace with one id",
        }
    }

    /// Whether it is the user's own namespace, to which the host has lent no cgroup.
    pub fn is_rootless(self) -> bool {
        self != Self::Root
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why one way of isolation is not possible.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {why}{}", advice.as_deref().map(|advice| format!(": {advice}")).unwrap_or_default())]
pub struct Refused {
    /// What was attempted.
    pub attempt: &'static str,
    /// What the system said.
    pub why: String,
    /// Which knob it is, where that is known.
    pub advice: Option<String>,
}

impl Refused {
    fn by_kernel(attempt: &'static str, errno: Errno) -> Self {
        Self {
            attempt,
            why: std::io::Error::from(errno).to_string(),
            advice: knobs::explain(errno),
        }
    }
}

/// Nothing keeps steps apart from the host.
#[derive(Debug, thiserror::Error)]
#[error("steps cannot be kept apart from the host; `teu-build doctor` says what is missing")]
pub struct NoIsolation(#[source] pub Refused);

/// What was entered.
#[derive(Debug)]
pub struct Entered {
    /// What keeps steps apart.
    pub isolation: Isolation,
    /// Whether steps see the processes around the build: the kernel lets them have no procfs of their own.
    pub shares_procfs: bool,
}

impl std::fmt::Display for Entered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.isolation)?;
        match self.shares_procfs {
            true => f.write_str("; steps see the processes around the build, because parts of /proc are masked here"),
            false => Ok(()),
        }
    }
}

/// Enters the best isolation there is. Must be called before any thread is made, and once.
///
/// # Errors
/// There is none.
pub fn enter() -> Result<Entered, NoIsolation> {
    let isolation = enter_best()?;
    Ok(Entered {
        isolation,
        shares_procfs: probe::must_share_procfs(),
    })
}

fn enter_best() -> Result<Isolation, NoIsolation> {
    if geteuid().is_root() && enter_as(Isolation::Root).is_ok() {
        return Ok(Isolation::Root);
    }
    let own = ids::own();
    let helper = ids::to_lend().and_then(|lent| Helper::start(&lent));
    make_user_namespace().map_err(NoIsolation)?;
    let isolation = match helper.and_then(Helper::map) {
        Ok(()) => Isolation::SubordinateIds,
        Err(_) => {
            ids::map_one(own).map_err(NoIsolation)?;
            Isolation::OneId
        }
    };
    own_mounts().map_err(NoIsolation)?;
    Ok(isolation)
}

/// Enters this one, or says why not; then this process is spoilt.
fn enter_as(isolation: Isolation) -> Result<(), Refused> {
    match isolation {
        Isolation::Root if !geteuid().is_root() => {
            return Err(Refused {
                attempt: "be root",
                why: format!("the user is {}", geteuid().as_raw()),
                advice: None,
            });
        }
        Isolation::Root => {}
        Isolation::SubordinateIds => {
            let helper = Helper::start(&ids::to_lend()?)?;
            make_user_namespace()?;
            helper.map()?;
        }
        Isolation::OneId => {
            let own = ids::own();
            make_user_namespace()?;
            ids::map_one(own)?;
        }
    }
    own_mounts()
}

fn make_user_namespace() -> Result<(), Refused> {
    mounts::unshare(UnshareFlags::NEWUSER)
        .map_err(|errno| Refused::by_kernel("make a user namespace", errno))
}

fn own_mounts() -> Result<(), Refused> {
    mounts::enter_own().map_err(|errno| Refused::by_kernel("make a mount namespace", errno))
}
