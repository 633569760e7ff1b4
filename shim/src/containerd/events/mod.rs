//! What happens to tasks, on its way to containerd: in strict order, one at a
//! time, each until it is acknowledged.
//!
//! Before an event is sent it stands in the [`journal`] of its container's bundle.
//! A containerd that is away finds it when it comes back, from us or, after
//! a death of ours, from the `delete` that containerd then runs.

pub mod journal;
pub mod publisher;
