//! The task service: containers and their processes.
//!
//! [`request`] parses, [`life`] decides, [`call`] says what the runtime is to do;
//! [`service`] carries it out: [`create`], [`order`], [`run`], [`kill`] and [`end`]
//! are its chapters. [`attention`] is what makes a turn of the loop cost what has happened, not what
//! there is.

pub mod attention;
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
