//! `teu-build`: Dockerfiles to images, without a daemon.
//!
//! ```text
//! dockerfile/  text -> typed instructions
//! plan/        instructions -> a graph of steps, a plain value
//! schedule.rs  the graph -> as many steps at once as possible
//! execute/     a step -> a layer in the store; copy/ without a snapshot, RUN by the runtime
//! build.rs     all of that in order
//! output/      the result -> the store, registries, archives, files
//! ```
//!
//! Beside them: context/ and tree/ (files that are read), pattern/ (globs and ignore rules),
//! cache/ (what earlier builds made), exchange/ (what builds elsewhere made), storage.rs (the store as a build uses it).

pub mod agents;
pub mod attest;
pub mod build;
pub mod cache;
pub mod call;
pub mod cancel;
pub mod cli;
pub mod context;
pub mod copy;
pub mod dockerfile;
pub mod emulation;
pub mod environment;
pub mod epoch;
pub mod exchange;
pub mod execute;
pub mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod images;
pub mod isolation;
pub mod leftovers;
pub mod lint;
pub mod modes;
pub mod output;
pub mod pattern;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod remote;
pub mod report;
pub mod repro;
pub mod schedule;
pub mod signals;
pub mod storage;
pub mod tree;
