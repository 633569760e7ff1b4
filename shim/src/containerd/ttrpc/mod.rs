//! ttrpc on the loop that everything else is on: [`frame`] is the format,
//! [`wire`] a socket that speaks it, [`server`] the many connections of
//! containerd, [`client`] our one connection to containerd.

pub mod client;
pub mod frame;
pub mod server;
pub mod wire;
