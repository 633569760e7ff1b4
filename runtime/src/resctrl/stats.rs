//! What `events` tells of a container's group, in runc's names.

use std::path::Path;

use serde::Serialize;

use super::{FILE_BYTES_MAX, Group};

/// Empty without a group.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<L3CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<MemBwInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Bandwidth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct L3CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct MemBwInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

/// Bytes moved, of one domain.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

/// Bytes in the cache of one domain.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl Stats {
    /// Reads the group's settings and counters; those of the container's own
    /// monitoring group where it has one. What cannot be read is left out.
    pub(crate) fn read(group: &Group) -> Self {
        let mut stats = Self::default();
        let info = group.root.join("info");
        let (common, own) = (
            read(&group.root.join("schemata")),
            read(&group.path.join("schemata")),
        );
        if info.join("L3").exists() {
            let file = |name: &str| info.join("L3").join(name);
            stats.l3_cache_info = Some(L3CacheInfo {
                cbm_mask: read(&file("cbm_mask")),
                min_cbm_bits: number(&file("min_cbm_bits")),
                num_closids: number(&file("num_closids")),
            });
            stats.l3_cache_schema_root = schema(&common, "L3");
            stats.l3_cache_schema = schema(&own, "L3");
        }
        if info.join("MB").exists() {
            let file = |name: &str| number(&info.join("MB").join(name));
            stats.mem_bw_info = Some(MemBwInfo {
                bandwidth_gran: file("bandwidth_gran"),
                delay_linear: file("delay_linear"),
                min_bandwidth: file("min_bandwidth"),
                num_closids: file("num_closids"),
            });
            stats.mem_bw_schema_root = schema(&common, "MB");
            stats.mem_bw_schema = schema(&own, "MB");
        }
        let counters = group.monitor.as_ref().unwrap_or(&group.path);
        stats.count(
            &read(&info.join("L3_MON/mon_features")),
            &counters.join("mon_data"),
        );
        stats
    }

    /// The counters that the hardware has, of every domain in its order.
    fn count(&mut self, features: &str, data: &Path) {
        let has = |feature: &str| features.lines().any(|line| line == feature);
        let (total, local) = (has("mbm_total_bytes"), has("mbm_local_bytes"));
        let mut domains: Vec<_> = std::fs::read_dir(data)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect();
        domains.sort();
        let counter = |domain: &Path, name: &str, there: bool| {
            if there { number(&domain.join(name)) } else { 0 }
        };
        if total || local {
            let bandwidth = |domain: &std::path::PathBuf| Bandwidth {
                mbm_total_bytes: counter(domain, "mbm_total_bytes", total),
                mbm_local_bytes: counter(domain, "mbm_local_bytes", local),
            };
            self.mbm_stats = Some(domains.iter().map(bandwidth).collect());
        }
        if has("llc_occupancy") {
            let occupancy = |domain: &std::path::PathBuf| Occupancy {
                llc_occupancy: number(&domain.join("llc_occupancy")),
            };
            self.cmt_stats = Some(domains.iter().map(occupancy).collect());
        }
    }
}

/// The last line of `schemata` that names the resource.
fn schema(schemata: &str, resource: &str) -> String {
    let mut lines = schemata.lines().filter(|line| line.contains(resource));
    lines.next_back().unwrap_or_default().trim().to_owned()
}

fn read(path: &Path) -> String {
    crate::file::read_limited(path, FILE_BYTES_MAX)
        .map(|text| String::from_utf8_lossy(&text).trim().to_owned())
        .unwrap_or_default()
}

fn number(path: &Path) -> u64 {
    read(path).parse().unwrap_or(0)
}
