//! `teu-build`: Dockerfiles to images, without a daemon.

pub mod dockerfile;
pub mod environment;
pub mod modes;
pub mod pattern;
pub mod plan;
pub mod report;
