//! The task service: containers and their processes.

pub mod call;
pub mod job;
pub mod life;
