//! On a folder that is made to look like resctrl: what the kernel does by
//! itself (files in a new group, their end with it), the tests do.

use std::fs;

use super::*;

/// A folder with the files of a host that can do everything.
struct Fake(PathBuf);

impl Fake {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("teu-resctrl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (file, text) in [
            ("info/L3/cbm_mask", "7ff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            (
                "info/L3_MON/mon_features",
                "llc_occupancy\nmbm_total_bytes\n",
            ),
            ("info/last_cmd_status", "ok\n"),
            ("schemata", "    L3:0=7ff\n    MB:0=100\n"),
            ("tasks", ""),
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }

    fn plan(&self, json: &str) -> Result<Plan, Error> {
        Plan::new(&serde_json::from_str(json).unwrap(), "c1", Some(&self.0))
    }

    /// What the kernel does on mkdir.
    fn populate(&self, group: &str) {
        fs::create_dir_all(self.0.join(group).join("mon_groups")).unwrap();
        for file in ["schemata", "tasks"] {
            fs::write(self.0.join(group).join(file), "").unwrap();
        }
    }

    /// What the kernel does on rmdir.
    fn empty(&self, group: &str) {
        for file in ["schemata", "tasks"] {
            fs::remove_file(self.0.join(group).join(file)).unwrap();
        }
        let _ = fs::remove_dir(self.0.join(group).join("mon_groups"));
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_group_of_its_own_comes_and_goes() {
    let fake = Fake::new("own");
    let plan = fake
        .plan(r#"{"l3CacheSchema": "L3:0=7f0", "memBwSchema": "MB:0=20", "schemata": ["L2:0=f"]}"#)
        .unwrap();
    assert!(plan.group.own);
    plan.make().unwrap();
    fake.populate("c1");
    plan.configure().unwrap();
    plan.group.join(42).unwrap();
    assert_eq!(fake.file("c1/schemata"), "L3:0=7f0\nMB:0=20\nL2:0=f\n");
    assert_eq!(fake.file("c1/tasks"), "42");
    fake.empty("c1");
    plan.group.remove().unwrap();
    assert!(!fake.0.join("c1").exists());
    plan.group.remove().unwrap();
    plan.group.join(42).unwrap();
}

#[test]
fn a_group_of_others_stays() {
    let fake = Fake::new("others");
    let missing = fake.plan(r#"{"closID": "gold"}"#).unwrap();
    let error = missing.make().unwrap_err().to_string();
    assert!(error.starts_with("clos dir not accessible"), "{error}");
    fs::create_dir(fake.0.join("gold")).unwrap();
    fake.populate("gold");
    let plan = fake.plan(r#"{"closID": "gold"}"#).unwrap();
    plan.make().unwrap();
    plan.configure().unwrap();
    plan.group.join(7).unwrap();
    assert_eq!(
        (fake.file("gold/tasks"), fake.file("gold/schemata")),
        ("7".into(), String::new())
    );
    plan.group.remove().unwrap();
    assert!(fake.0.join("gold").exists());
    // One that happens to have the container's name was not made for it either.
    fs::create_dir(fake.0.join("c1")).unwrap();
    assert!(
        !fake
            .plan(r#"{"memBwSchema": "MB:0=20"}"#)
            .unwrap()
            .group
            .own
    );
}

#[test]
fn a_group_of_others_must_have_what_is_asked_for() {
    let fake = Fake::new("compared");
    fake.populate("gold");
    let have = "    L3:0=7f0;1=00f\n    MB:0= 30;1=100\n";
    fs::write(fake.0.join("gold/schemata"), have).unwrap();
    let plan = |fields: &str| {
        let json = format!(r#"{{"closID": "gold", {fields}}}"#);
        fake.plan(&json).unwrap()
    };
    for fields in [
        r#""l3CacheSchema": "L3:1=f;0=7f0", "memBwSchema": "MB:0=25""#,
        r#""memBwSchema": "MB:1=100""#,
        // What is only in this field is written, whatever is there.
        r#""schemata": ["L3:0=1"]"#,
    ] {
        plan(fields).make().unwrap();
    }
    for fields in [
        r#""l3CacheSchema": "L3:0=1""#,
        r#""l3CacheSchema": "L3:0=7f0", "memBwSchema": "MB:0=20""#,
    ] {
        let error = plan(fields).make().unwrap_err().to_string();
        assert!(error.contains("another configuration"), "{error}");
    }
    assert_eq!(fake.file("gold/schemata"), have);
    // A new one gets it, and the default group is compared as any.
    let new = r#"{"closID": "new", "l3CacheSchema": "L3:0=1"}"#;
    fake.plan(new).unwrap().make().unwrap();
    let default = r#"{"closID": "/", "l3CacheSchema": "L3:0=1"}"#;
    assert!(fake.plan(default).unwrap().make().is_err());
    // What has the container's own name is written over, as before.
    fake.populate("c1");
    let own = fake.plan(r#"{"memBwSchema": "MB:0=20"}"#).unwrap();
    own.make().unwrap();
    own.configure().unwrap();
    assert_eq!(fake.file("c1/schemata"), "MB:0=20\n");
}

#[test]
fn the_default_group_is_a_slash() {
    let fake = Fake::new("default");
    let plan = fake.plan(r#"{"closID": "/"}"#).unwrap();
    plan.make().unwrap();
    plan.group.join(9).unwrap();
    assert_eq!(fake.file("tasks"), "9");
    plan.group.remove().unwrap();
    assert!(fake.0.exists());
}

#[test]
fn monitoring_has_a_group_of_its_own_below() {
    let fake = Fake::new("monitor");
    fake.populate("gold");
    let plan = fake
        .plan(r#"{"closID": "gold", "enableMonitoring": true}"#)
        .unwrap();
    plan.make().unwrap();
    let monitor = "gold/mon_groups/c1";
    fs::write(fake.0.join(monitor).join("tasks"), "").unwrap();
    plan.group.join(5).unwrap();
    assert_eq!(fake.file("gold/mon_groups/c1/tasks"), "5");
    let domain = fake.0.join(monitor).join("mon_data/mon_L3_00");
    fs::create_dir_all(&domain).unwrap();
    fs::write(domain.join("llc_occupancy"), "4096\n").unwrap();
    fs::write(domain.join("mbm_total_bytes"), "77\n").unwrap();
    let stats = serde_json::to_value(Stats::read(&plan.group)).unwrap();
    assert_eq!(stats["cmt_stats"][0]["llc_occupancy"], 4096);
    assert_eq!(stats["mbm_stats"][0]["mbm_total_bytes"], 77);
    fs::remove_dir_all(fake.0.join(monitor).join("mon_data")).unwrap();
    fs::remove_file(fake.0.join(monitor).join("tasks")).unwrap();
    plan.group.remove().unwrap();
    assert!(!fake.0.join(monitor).exists() && fake.0.join("gold").exists());
}

#[test]
fn the_settings_are_told_as_runc_tells_them() {
    let fake = Fake::new("told");
    fake.populate("c1");
    fs::write(fake.0.join("c1/schemata"), "    L3:0=f\n    MB:0=50\n").unwrap();
    let plan = fake.plan(r#"{"l3CacheSchema": "L3:0=f"}"#).unwrap();
    let stats = serde_json::to_value(Stats::read(&plan.group)).unwrap();
    assert_eq!(stats["l3_cache_info"]["cbm_mask"], "7ff");
    assert_eq!(stats["l3_cache_schema_root"], "L3:0=7ff");
    assert_eq!(stats["l3_cache_schema"], "L3:0=f");
    assert_eq!(stats["mem_bw_info"]["num_closids"], 8);
    assert_eq!(stats["mem_bw_schema"], "MB:0=50");
}

#[test]
fn an_update_changes_only_what_it_names() {
    let fake = Fake::new("update");
    fake.populate("c1");
    let plan = Plan::update("c1", Some("L3:0=1"), None, Some(&fake.0)).unwrap();
    plan.configure().unwrap();
    assert_eq!(fake.file("c1/schemata"), "L3:0=1\n");
    plan.group.update(None, Some("MB:0=30")).unwrap();
    assert_eq!(fake.file("c1/schemata"), "MB:0=30\n");
    fs::remove_dir_all(fake.0.join("info/MB")).unwrap();
    let error = check_update(None, Some("MB:0=30"), Some(&fake.0)).unwrap_err();
    let words = "Intel RDT/MBA: memory bandwidth schema is not enabled";
    assert_eq!(error.to_string(), words);
}

#[test]
fn what_cannot_be_is_refused_in_runcs_words() {
    let fake = Fake::new("refused");
    for (json, words) in [
        (r#"{"closID": ".."}"#, "invalid intelRdt.ClosID \"..\""),
        (r#"{"closID": "a/b"}"#, "invalid intelRdt.ClosID \"a/b\""),
        (r#"{"memBwSchema": "L3:0=1"}"#, "must start with"),
        (r#"{"schemata": ["L3:0=1\nMB:0=1"]}"#, "newline"),
    ] {
        let error = fake.plan(json).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    for (json, words) in [
        (
            r#"{"l3CacheSchema": "L3:0=1"}"#,
            "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled",
        ),
        (
            r#"{"memBwSchema": "MB:0=1"}"#,
            "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled",
        ),
        ("{}", "Intel RDT not available"),
    ] {
        let rdt = serde_json::from_str(json).unwrap();
        let error = Plan::new(&rdt, "c1", None).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_refused_write_carries_the_file_systems_own_reason() {
    let fake = Fake::new("status");
    fake.populate("c1");
    fs::remove_file(fake.0.join("c1/schemata")).unwrap();
    fs::write(fake.0.join("info/last_cmd_status"), "bad mask\n").unwrap();
    let plan = fake.plan(r#"{"l3CacheSchema": "L3:0=5"}"#).unwrap();
    let error = plan.configure().unwrap_err().to_string();
    assert!(error.ends_with(", last_cmd_status: bad mask"), "{error}");
}

#[test]
fn the_mount_table_knows_where_it_is() {
    let table = "36 28 0:30 / /sys/fs/x rw - tmpfs tmpfs rw\n\
                 40 28 0:33 / /mnt/rdt rw,relatime shared:2 - resctrl none rw,mba_MBps\n";
    assert_eq!(mounted(table), Some("/mnt/rdt".into()));
    assert_eq!(mounted("36 28 0:30 / /sys rw - sysfs sysfs rw\n"), None);
}
