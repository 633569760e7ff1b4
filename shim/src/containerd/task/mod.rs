//! The task service: containers and their processes.
//!
//! [`request`] parses, [`life`] decides, [`call`] says what the runtime is to do;
//! [`service`] carries it out: [`create`], [`order`], [`run`], [`kill`] and [`end`]
//! are its chapters.

pub mod call;
mod create;
mod end;
pub mod job;
mod kill;
pub mod life;
mod order;
pub mod pod;
pub mod request;
mod run;
pub mod service;

pub use end::exit_status;
