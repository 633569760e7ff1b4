//! The task service: containers and their processes.
//!
//! [`request`] parses, [`life`] decides, [`call`] says what the runtime is to do;
//! [`service`] carries it out: [`create`], [`order`] and [`end`] are its chapters.

pub mod call;
mod create;
mod end;
pub mod job;
pub mod life;
mod order;
pub mod pod;
pub mod request;
pub mod service;

pub use end::exit_status;
