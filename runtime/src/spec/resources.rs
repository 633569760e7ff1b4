//! `linux.resources`: limits of the cgroup (config-linux.md, "Control groups").
