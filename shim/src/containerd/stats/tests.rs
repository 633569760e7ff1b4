use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use prost::Message as _;

use super::{Metrics, v1, v2};
use crate::supervisor::cgroups::Cgroups;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn read_v1(dir: &Path) -> v1::Metrics {
    let names = [
        "cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb", "rdma",
    ];
    let folders = names.map(|name| (name.to_owned(), dir.to_owned()));
    match Metrics::read(&Cgroups::V1(folders.into())).unwrap() {
        Metrics::V1(metrics) => *metrics,
        Metrics::V2(_) => panic!("v2 of v1"),
    }
}

fn read_v2(dir: &Path) -> v2::Metrics {
    match Metrics::read(&Cgroups::V2(dir.to_owned())).unwrap() {
        Metrics::V2(metrics) => *metrics,
        Metrics::V1(_) => panic!("v1 of v2"),
    }
}

#[test]
fn files_of_v1_become_its_message() {
    let dir = folder(&[
        ("cpuacct.stat", "user 3\nsystem 2\n"),
        ("cpuacct.usage", "50000001\n"),
        ("cpuacct.usage_percpu", "20000000 30000001 \n"),
        (
            "cpu.stat",
            "nr_periods 4\nnr_throttled 1\nthrottled_time 77\n",
        ),
        ("pids.current", "2\n"),
        ("pids.max", "max\n"),
        (
            "memory.stat",
            "cache 1\nrss 2\npgpgin 3\nhierarchical_memsw_limit 4\ntotal_pgmajfault 5\ntotal_unevictable 6\n",
        ),
        ("memory.usage_in_bytes", "4096\n"),
        ("memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory.memsw.failcnt", "8\n"),
        ("memory.kmem.tcp.max_usage_in_bytes", "9\n"),
        (
            "memory.oom_control",
            "oom_kill_disable 1\nunder_oom 0\noom_kill 2\n",
        ),
        (
            "blkio.throttle.io_serviced_recursive",
            "254:0 Read 5\n254:0 Write 6\nTotal 11\n",
        ),
        (
            "blkio.throttle.io_service_bytes_recursive",
            "254:0 Read 500\nTotal 500\n",
        ),
        ("hugetlb.2MB.usage_in_bytes", "2097152\n"),
        ("hugetlb.2MB.max_usage_in_bytes", "4194304\n"),
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\n"),
    ]);
    let metrics = read_v1(dir.path());
    let cpu = metrics.cpu.unwrap();
    let usage = cpu.usage.unwrap();
    assert_eq!((usage.user, usage.kernel), (30_000_000, 20_000_000));
    assert_eq!(usage.total, 50_000_001);
    assert_eq!(usage.per_cpu, [20_000_000, 30_000_001]);
    assert_eq!(cpu.throttling.unwrap().throttled_time, 77);
    let pids = metrics.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (2, 0));
    let memory = metrics.memory.unwrap();
    assert_eq!((memory.cache, memory.rss, memory.pg_pg_in), (1, 2, 3));
    assert_eq!(memory.hierarchical_swap_limit, 4);
    assert_eq!(
        (memory.total_pg_maj_fault, memory.total_unevictable),
        (5, 6)
    );
    assert_eq!(memory.usage.unwrap().usage, 4096);
    assert_eq!(memory.usage.unwrap().limit, 9_223_372_036_854_771_712);
    assert_eq!(memory.swap.unwrap().failcnt, 8);
    assert_eq!(memory.kernel_tcp.unwrap().max, 9);
    let oom = metrics.memory_oom_control.unwrap();
    assert_eq!((oom.oom_kill_disable, oom.oom_kill), (1, 2));
    let blkio = metrics.blkio.unwrap();
    let serviced: Vec<_> = blkio
        .io_serviced_recursive
        .iter()
        .map(|entry| (entry.major, entry.op.as_str(), entry.value))
        .collect();
    assert_eq!(serviced, [(254, "Read", 5), (254, "Write", 6)]);
    assert_eq!(blkio.io_service_bytes_recursive[0].value, 500);
    assert_eq!(metrics.hugetlb[0].pagesize, "2MB");
    assert_eq!(metrics.hugetlb[0].max, 4_194_304);
    assert_eq!(metrics.rdma.unwrap().current[0].hca_objects, 2000);
}

#[test]
fn files_of_v2_become_its_message() {
    let dir = folder(&[
        (
            "cpu.stat",
            "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 1\nnr_bursts 3\n",
        ),
        (
            "cpu.pressure",
            "some avg10=0.50 avg60=0.25 avg300=0.10 total=123\n",
        ),
        ("memory.stat", "anon 11\nfile 12\nthp_collapse_alloc 13\n"),
        ("memory.current", "8192\n"),
        ("memory.max", "max\n"),
        ("memory.peak", "16384\n"),
        ("memory.swap.max", "0\n"),
        (
            "memory.events",
            "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 0\n",
        ),
        ("pids.current", "5\n"),
        ("pids.max", "100\n"),
        (
            "io.stat",
            "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n8:0 \n",
        ),
        ("hugetlb.2MB.current", "0\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.rsvd.current", "0\n"),
    ]);
    let metrics = read_v2(dir.path());
    let cpu = metrics.cpu.unwrap();
    assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec), (10, 6, 4));
    assert_eq!((cpu.nr_periods, cpu.nr_bursts), (1, 3));
    let some = cpu.psi.unwrap().some.unwrap();
    assert_eq!((some.avg10, some.avg60, some.total), (0.5, 0.25, 123));
    let memory = metrics.memory.unwrap();
    assert_eq!((memory.anon, memory.thp_collapse_alloc), (11, 13));
    assert_eq!((memory.usage, memory.usage_limit), (8192, u64::MAX));
    assert_eq!((memory.max_usage, memory.swap_limit), (16384, 0));
    assert_eq!(memory.psi, None);
    assert_eq!(metrics.memory_events.unwrap().oom_kill, 4);
    let pids = metrics.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (5, 100));
    let io = metrics.io.unwrap().usage;
    assert_eq!(io.len(), 1);
    assert_eq!((io[0].major, io[0].rbytes, io[0].rios), (254, 4096, 1));
    assert_eq!(metrics.hugetlb.len(), 1);
    assert_eq!(metrics.hugetlb[0].max, u64::MAX);
}

#[test]
fn cgroups_that_are_gone_have_no_figures() {
    let dir = folder(&[]);
    let path = dir.path().join("gone");
    assert_eq!(Metrics::read(&Cgroups::V2(path.clone())), None);
    assert_eq!(
        Metrics::read(&Cgroups::V1(vec![("memory".into(), path)])),
        None
    );
}

/// Field numbers of containerd/cgroups' metrics.proto, byte for byte.
#[test]
fn the_wire_is_containerds() {
    let metrics = v1::Metrics {
        pids: Some(v1::PidsStat {
            current: 1,
            limit: 2,
        }),
        memory: Some(v1::MemoryStat {
            total_unevictable: 3,
            kernel_tcp: Some(v1::MemoryEntry {
                limit: 4,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let any = Metrics::V1(Box::new(metrics)).to_any();
    assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
    assert_eq!(
        any.value,
        b"\x12\x04\x08\x01\x10\x02\x22\x08\x80\x02\x03\xa2\x02\x02\x08\x04"
    );
    let metrics = v2::Metrics {
        memory_events: Some(v2::MemoryEvents {
            oom_kill: 5,
            ..Default::default()
        }),
        ..Default::default()
    };
    let any = Metrics::V2(Box::new(metrics)).to_any();
    assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
    assert_eq!(any.value, b"\x42\x02\x28\x05");
    assert!(v2::Metrics::decode(&any.value[..]).is_ok());
}

/// Cgroups of the host's, with a process in them that uses the processor. Removed when dropped.
struct Busy {
    child: Child,
    folders: Vec<PathBuf>,
}

impl Busy {
    /// `None`: there is no hierarchy of v1 here, or no privilege to use it.
    fn start() -> Option<Self> {
        let own = Cgroups::of(i32::try_from(std::process::id()).ok()?)?;
        let name = format!("teu-test-stats-{}", std::process::id());
        let child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        let mut busy = Self {
            child,
            folders: Vec::new(),
        };
        for controller in ["cpu", "cpuacct", "memory", "pids", "blkio"] {
            let Cgroups::V1(_) = &own else { return None };
            let folder = own.dir(controller)?.join(&name);
            fs::create_dir(&folder).ok()?;
            fs::write(folder.join("cgroup.procs"), busy.child.id().to_string()).ok()?;
            busy.folders.push(folder);
        }
        Some(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[test]
fn figures_of_a_real_process_are_those_of_the_kernel() {
    let Some(busy) = Busy::start() else {
        eprintln!(
            "SKIPPED figures_of_a_real_process_are_those_of_the_kernel: no cgroup v1 to make cgroups in"
        );
        return;
    };
    let cgroups = Cgroups::of(i32::try_from(busy.child.id()).unwrap()).unwrap();
    let file = |controller: &str, name: &str| -> u64 {
        let path = cgroups.dir(controller).unwrap().join(name);
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    };
    fs::write(cgroups.dir("pids").unwrap().join("pids.max"), "33").unwrap();
    let limit = cgroups.dir("memory").unwrap().join("memory.limit_in_bytes");
    fs::write(limit, "67108864").unwrap();
    let read = || match Metrics::read(&cgroups).unwrap() {
        Metrics::V1(metrics) => metrics,
        Metrics::V2(_) => panic!("v2 of v1"),
    };
    let metrics = read();
    let pids = metrics.pids.unwrap();
    assert_eq!((pids.current, pids.limit), (1, 33));
    let memory = metrics.memory.clone().unwrap();
    assert_eq!(memory.hierarchical_memory_limit, 67_108_864);
    let usage = memory.usage.unwrap();
    assert_eq!(usage.limit, 67_108_864);
    assert_eq!(usage.usage, file("memory", "memory.usage_in_bytes"));
    assert_eq!(usage.failcnt, file("memory", "memory.failcnt"));
    let total = |metrics: &v1::Metrics| metrics.cpu.clone().unwrap().usage.unwrap().total;
    let deadline = Instant::now() + Duration::from_secs(10);
    while total(&read()) <= total(&metrics) {
        assert!(
            Instant::now() < deadline,
            "the processor's time stands still"
        );
    }
    assert!(total(&read()) <= file("cpuacct", "cpuacct.usage"));
}
