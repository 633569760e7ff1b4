//! teu-shim in the place of conmon: driven by hand as its callers drive it,
//! side by side with conmon itself where both must do the same, and by podman.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected panics"
)]

mod begin;
mod command_line;
mod cost;
mod doors;
mod drivers;
mod journal;
mod life;
mod output;
mod podman;
mod post;
mod rotation;
mod terminal;
