//! The harness of the whole-program tests and of the benchmarks.
//!
//! It links none of teu's crates: it executes the binaries, as users do, and
//! real peers from Debian's packages beside them.
//!
//! A test is a [`Scene`]: scratch folders, a network namespace and a cgroup
//! parent of its own. What a scene leaves behind (processes, mounts, cgroups,
//! network namespaces, files outside its folder) fails its test when it ends.
//!
//! ```no_run
//! use teu_integration_tests::Scene;
//!
//! let scene = Scene::new("true exits with zero");
//! scene.busybox("busybox");
//! scene.run("teu", ["run", "--rm", "--network", "none", "busybox", "true"]).succeeds();
//! ```

mod cgroup;
pub mod command;
pub mod disk;
pub mod faulty;
pub mod fixture;
mod leftover;
mod ordinary;
pub mod readme;
mod scene;
pub mod shim;
mod skip;
pub mod support;
pub mod tar;
mod terminal;
pub mod trace;
pub mod tree;

pub use cgroup::cgroup_file;
pub use command::Outcome;
pub use ordinary::is_root;
pub use scene::{Scene, binary, peers};
pub use skip::{missing_command, skipped};
pub use terminal::Terminal;

/// Ends the running test as skipped, with the reason, which the runner counts.
///
/// `skip_unless!(scene, condition, "reason {}", ...)`
#[macro_export]
macro_rules! skip_unless {
    ($scene:expr, $condition:expr, $($reason:tt)+) => {
        if !$condition {
            $crate::skipped($scene.name(), &format!($($reason)+));
            return;
        }
    };
}

/// Ends the running test as skipped where it is not root's: the reason says
/// what an ordinary user may not do.
///
/// `needs_root!(scene, "reason {}", ...)`
#[macro_export]
macro_rules! needs_root {
    ($scene:expr, $($reason:tt)+) => {
        $crate::skip_unless!($scene, $crate::is_root(), $($reason)+);
    };
}
