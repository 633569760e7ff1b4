//! What will be written to a container's cgroups, decided before any exists.

use super::devices::Policy;
use super::write::Write;
use super::{Error, Paths, v1, v2};
use crate::spec::resources::{Memory, Resources};

/// Limits and device rules in the form of the host's cgroup version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In order.
    pub(super) writes: Vec<Write>,
    /// `None` leaves the devices as they are.
    pub(super) devices: Option<Policy>,
    /// v2 only: limits to compare with the usage first, since v2 kills where v1 refuses.
    pub(super) check: Option<Memory>,
    /// The controllers that the unified hierarchy has to provide.
    pub(super) unified_controllers: Vec<String>,
}

impl Plan {
    /// The plan of a new container: devices are restricted whether or not the
    /// configuration speaks of them.
    pub(crate) fn new(resources: &Resources, paths: &Paths) -> Result<Self, Error> {
        Ok(Self {
            devices: Some(Policy::new(&resources.devices)?),
            ..Self::limits(resources, paths)?
        })
    }

    /// The plan of a change to a running container: what is not named stays.
    /// So do the devices, as with runc: engines send the whole configuration
    /// again, and hooks may have granted more than it says.
    pub(crate) fn update(resources: &Resources, paths: &Paths) -> Result<Self, Error> {
        Self::limits(resources, paths)
    }

    /// Whether any limit is asked for, the usual device rules apart.
    pub(crate) fn has_limits(&self) -> bool {
        !self.writes.is_empty()
    }

    fn limits(resources: &Resources, paths: &Paths) -> Result<Self, Error> {
        let mut plan = Self::default();
        if paths.is_v2() {
            plan.writes = v2::writes(resources)?;
            plan.check = resources
                .memory
                .clone()
                .filter(|memory| memory.check_before_update == Some(true));
        } else {
            plan.writes = hybrid(resources, paths)?;
        }
        for write in plan
            .writes
            .iter()
            .filter(|write| paths.get(&write.controller).is_none())
        {
            let controller = write.controller.as_ref();
            // `cgroup.*` are files of every cgroup.
            if controller != "cgroup"
                && !plan
                    .unified_controllers
                    .iter()
                    .any(|known| known == controller)
            {
                plan.unified_controllers.push(controller.to_owned());
            }
        }
        Ok(plan)
    }
}

/// The v1 writes; for controllers that the host has given to the cgroup2 of a
/// hybrid layout, the v2 writes instead.
fn hybrid(resources: &Resources, paths: &Paths) -> Result<Vec<Write>, Error> {
    let mut writes = v1::writes(resources)?;
    let on_v1 = |controller: &str| paths.get(controller).is_some();
    if paths.get("").is_some() && writes.iter().any(|write| !on_v1(&write.controller)) {
        let other = v2::writes(resources)?;
        let name = |v2: &str| {
            if v2 == "io" {
                "blkio".to_owned()
            } else {
                v2.to_owned()
            }
        };
        // What v2 has no word for stays, and is refused when it is applied.
        writes.retain(|write| {
            on_v1(&write.controller)
                || !other
                    .iter()
                    .any(|o| name(&o.controller) == write.controller)
        });
        writes.extend(
            other
                .into_iter()
                .filter(|write| !on_v1(&name(&write.controller))),
        );
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> Resources {
        serde_json::from_str(json).unwrap()
    }

    fn files(plan: &Plan) -> Vec<&str> {
        plan.writes
            .iter()
            .map(|write| write.file.as_ref())
            .collect()
    }

    const LIMITS: &str =
        r#"{"pids": {"limit": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}"#;

    #[test]
    fn each_version_gets_its_own_files() {
        let v1 = Paths::from_pairs([("pids", "/p"), ("hugetlb", "/h")]);
        let plan = Plan::new(&resources(LIMITS), &v1).unwrap();
        assert_eq!(
            files(&plan),
            [
                "pids.max",
                "hugetlb.2MB.limit_in_bytes",
                "hugetlb.2MB.rsvd.limit_in_bytes"
            ]
        );
        let v2 = Paths::from_pairs([("", "/u")]);
        let plan = Plan::new(&resources(LIMITS), &v2).unwrap();
        assert_eq!(
            files(&plan),
            ["pids.max", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"]
        );
        assert_eq!(plan.unified_controllers, ["pids", "hugetlb"]);
    }

    #[test]
    fn a_hybrid_host_serves_each_controller_where_it_is() {
        let paths = Paths::from_pairs([("pids", "/p"), ("", "/u")]);
        let plan = Plan::new(&resources(LIMITS), &paths).unwrap();
        assert_eq!(
            files(&plan),
            ["pids.max", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"]
        );
        assert_eq!(plan.unified_controllers, ["hugetlb"]);
    }

    #[test]
    fn devices_are_always_restricted_and_never_by_an_update() {
        let paths = Paths::from_pairs([("", "/u")]);
        assert!(
            Plan::new(&Resources::default(), &paths)
                .unwrap()
                .devices
                .is_some()
        );
        assert_eq!(
            Plan::update(&resources(LIMITS), &paths).unwrap().devices,
            None
        );
        assert!(
            !Plan::new(&Resources::default(), &paths)
                .unwrap()
                .has_limits()
        );
    }
}
