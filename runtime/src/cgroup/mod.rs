//! Control groups: paths, limits, devices, freezer, on v1, v2 and hybrid hosts.
