//! `teu-runtime`, a low-level OCI runtime with runc's command line.

mod cgroup;
mod seccomp;
mod spec;

fn main() {}
