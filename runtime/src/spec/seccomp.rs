//! `linux.seccomp`: the profile as written (config-linux.md, "Seccomp").
