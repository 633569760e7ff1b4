//! `linux.resources`: what a container may use of the host.
//!
//! Runtime-spec 1.3, config-linux.md, "Control groups". The structures say what
//! the document says; what the kernel is told follows in [`crate::cgroup`].
//! Encoders in Go do not care for the case of names, so the spellings that are
//! in use beside the document's are understood too.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Reads `null` as the empty value: encoders in Go write it for empty lists and maps.
pub(super) fn null_is_empty<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Limits and device rules of one container. Nothing set means nothing limited,
/// except devices: an empty list still denies all but the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Resources {
    /// Device rules, applied in this order.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_empty")]
    pub(crate) devices: Vec<DeviceRule>,
    /// Memory and swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    /// Processor time and placement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Cpu>,
    /// The same as encoders in Go may spell it, perhaps beside the other: see
    /// [`Resources::settle`].
    #[serde(rename = "CPU", skip_serializing)]
    pub(crate) cpu_in_capitals: Option<Cpu>,
    /// Number of tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pids: Option<Pids>,
    /// Weights and rates of block devices.
    #[serde(rename = "blockIO", skip_serializing_if = "Option::is_none")]
    pub(crate) block_io: Option<BlockIo>,
    /// Huge pages, one entry a page size.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_empty")]
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    /// Network class and priorities, cgroup v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Network>,
    /// RDMA limits by device name.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_empty")]
    pub(crate) rdma: BTreeMap<String, Rdma>,
    /// File name to content, written as they are, cgroup v2 only.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_empty")]
    pub(crate) unified: BTreeMap<String, String>,
}

impl Resources {
    /// Moves what stands in other spellings to where it belongs, as Go's decoder
    /// does: where a field is given twice, the spelling of the specification
    /// is the weaker one.
    pub(crate) fn settle(&mut self) {
        let Some(other) = self.cpu_in_capitals.take() else {
            return;
        };
        let cpu = self.cpu.get_or_insert_default();
        cpu.shares = other.shares.or(cpu.shares);
        cpu.quota = other.quota.or(cpu.quota);
        cpu.burst = other.burst.or(cpu.burst);
        cpu.period = other.period.or(cpu.period);
        cpu.realtime_runtime = other.realtime_runtime.or(cpu.realtime_runtime);
        cpu.realtime_period = other.realtime_period.or(cpu.realtime_period);
        cpu.cpus = other.cpus.or(cpu.cpus.take());
        cpu.mems = other.mems.or(cpu.mems.take());
        cpu.idle = other.idle.or(cpu.idle);
    }
}

/// One entry of `devices`: access to device nodes granted or taken away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceRule {
    /// Whether the rule grants.
    pub(crate) allow: bool,
    /// `a` (all, the default), `c` or `b`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// Major number; absent means every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) major: Option<i64>,
    /// Minor number; absent means every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) minor: Option<i64>,
    /// Letters of `rwm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) access: Option<String>,
}

/// `memory`: bytes unless said otherwise, -1 for unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Memory {
    /// Limit of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<i64>,
    /// Soft limit of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reservation: Option<i64>,
    /// Limit of memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swap: Option<i64>,
    /// Limit of kernel memory; kernels since 5.16 ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<i64>,
    /// Limit of kernel memory for TCP buffers.
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_tcp: Option<i64>,
    /// Inclination to swap, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swappiness: Option<u64>,
    /// Let tasks wait instead of killing one when memory runs out.
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub(crate) disable_oom_killer: Option<bool>,
    /// Hierarchical accounting; kernels since 5.11 always do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) use_hierarchy: Option<bool>,
    /// Refuse a new limit below the present usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check_before_update: Option<bool>,
}

/// `cpu`: times in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cpu {
    /// Relative share, 2 to 262144, 1024 is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shares: Option<u64>,
    /// Time all tasks together may run in one period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<i64>,
    /// Unused time that may be saved up for a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u64>,
    /// Length of a period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period: Option<u64>,
    /// Time for real-time tasks in a real-time period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) realtime_runtime: Option<i64>,
    /// Length of a real-time period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) realtime_period: Option<u64>,
    /// CPUs, as `0-3,7`.
    #[serde(alias = "Cpus", skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<String>,
    /// Memory nodes, as `0-3,7`.
    #[serde(alias = "Mems", skip_serializing_if = "Option::is_none")]
    pub(crate) mems: Option<String>,
    /// 1 makes every task `SCHED_IDLE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<i64>,
}

/// `pids`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pids {
    /// Most tasks, -1 for unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<i64>,
}

/// `blockIO`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct BlockIo {
    /// Weight on every device, 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u16>,
    /// Weight against child cgroups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaf_weight: Option<u16>,
    /// Weights on single devices.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_empty")]
    pub(crate) weight_device: Vec<WeightDevice>,
    /// Bytes read in a second.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_empty")]
    pub(crate) throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes written in a second.
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_empty")]
    pub(crate) throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Reads in a second.
    #[serde(
        rename = "throttleReadIOPSDevice",
        deserialize_with = "null_is_empty",
        skip_serializing_if = "is_empty"
    )]
    pub(crate) throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Writes in a second.
    #[serde(
        rename = "throttleWriteIOPSDevice",
        deserialize_with = "null_is_empty",
        skip_serializing_if = "is_empty"
    )]
    pub(crate) throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// The weight on one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WeightDevice {
    /// Major number.
    pub(crate) major: i64,
    /// Minor number.
    pub(crate) minor: i64,
    /// Weight, 10 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u16>,
    /// Weight against child cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leaf_weight: Option<u16>,
}

/// The rate of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ThrottleDevice {
    /// Major number.
    pub(crate) major: i64,
    /// Minor number.
    pub(crate) minor: i64,
    /// Bytes or operations in a second; 0 lifts the limit.
    pub(crate) rate: u64,
}

/// The limit of one size of huge pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HugepageLimit {
    /// The size as the kernel names its files: `64KB`, `2MB`, `1GB`.
    #[serde(alias = "pagesize")]
    pub(crate) page_size: String,
    /// Bytes.
    pub(crate) limit: u64,
}

/// `network`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Network {
    /// Class that packets are tagged with (`net_cls`).
    #[serde(rename = "classID", skip_serializing_if = "Option::is_none")]
    pub(crate) class_id: Option<u32>,
    /// Priority by interface (`net_prio`).
    #[serde(deserialize_with = "null_is_empty", skip_serializing_if = "is_empty")]
    pub(crate) priorities: Vec<InterfacePriority>,
}

/// The priority of traffic that leaves by one interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterfacePriority {
    /// Interface name in the runtime's network namespace.
    pub(crate) name: String,
    /// Its priority.
    pub(crate) priority: u32,
}

/// Limits of one RDMA device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rdma {
    /// Most handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hca_handles: Option<u32>,
    /// Most objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hca_objects: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every property of runtime-spec 1.3, once.
    const WHOLE: &str = r#"{
        "devices": [{"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
        "memory": {"limit": 536870912, "reservation": 1, "swap": -1, "kernel": -1, "kernelTCP": -1,
                   "swappiness": 0, "disableOOMKiller": false, "useHierarchy": true, "checkBeforeUpdate": true},
        "cpu": {"shares": 1024, "quota": 1000000, "burst": 1000000, "period": 500000, "realtimeRuntime": 950000,
                "realtimePeriod": 1000000, "cpus": "2-3", "mems": "0-7", "idle": 0},
        "pids": {"limit": 32771},
        "blockIO": {"weight": 10, "leafWeight": 10,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 601}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 2, "rate": 602}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 209715200}],
        "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
        "unified": {"io.max": "259:0 rbps=2097152 wiops=120\n253:0 rbps=2097152 wiops=120"}
    }"#;

    #[test]
    fn what_is_read_is_written_back_whole() {
        let resources: Resources =
            serde_json::from_str(WHOLE).expect("the example of the specification");
        let there: serde_json::Value = serde_json::from_str(WHOLE).expect("valid JSON");
        let back = serde_json::to_value(&resources).expect("serialisable");
        assert_eq!(there, back);
    }

    #[test]
    fn go_does_not_care_for_the_case_of_names() {
        let text = r#"{"cpu": {"shares": 5, "cpus": "0"}, "CPU": {"Cpus": "1", "Mems": "0"}}"#;
        let mut resources: Resources = serde_json::from_str(text).expect("both spellings");
        resources.settle();
        let cpu = resources.cpu.expect("one of both");
        assert_eq!((cpu.shares, cpu.cpus.as_deref()), (Some(5), Some("1")));
        assert_eq!(cpu.mems.as_deref(), Some("0"));
    }

    #[test]
    fn null_lists_and_unknown_properties_are_accepted() {
        let resources: Resources = serde_json::from_str(
            r#"{"devices": null, "unified": null, "memory": null, "x-new": 1}"#,
        )
        .expect("Go writes null for an empty list");
        assert_eq!(resources, Resources::default());
    }
}
