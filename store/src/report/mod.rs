//! What people ask about images: how they came to be, how they differ, what they share.
//! Nothing here mounts or writes anything: trees are read from the headers of the layers' tars.

mod diff;
mod history;
mod sharing;

pub use diff::{Difference, DifferenceKind};
pub use history::Step;
pub use sharing::SharedLayer;
