//! What is done very often leaves nothing in the runtime or in the container.

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use super::{Attack, Container};

/// Changes of a window's size that one runtime sees.
const RESIZES: u16 = 10_000;

/// What a container writes to one terminal, in bytes: the published attack took
/// twenty gigabytes, but what is kept of each megabyte shows sooner.
const OUTPUT_BYTES: usize = 64 << 20;

/// By how much memory may grow meanwhile, in KiB.
const GROWTH_KIB_MAX: u64 = 4096;

/// Executions in one container: `TEU_EXECS`, or 60.
fn attaches() -> usize {
    std::env::var("TEU_EXECS").map_or(60, |text| text.parse().unwrap())
}

/// A runtime in the foreground of a terminal of the test's.
struct Foreground {
    child: Child,
    master: File,
}

impl Foreground {
    fn start(container: &Container<'_>) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = File::from(rustix::fs::open(name, flags, Mode::empty()).unwrap());
        let runtime = container.command(&["run"]);
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .arg(runtime.get_program())
            .args(runtime.get_args())
            .env("TEU_TEST_SCENE", container.scene.cgroup().replace('/', ""))
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave);
        Self {
            child: command.spawn().unwrap(),
            master: master.into(),
        }
    }

    /// Reads until this text has come.
    fn read_until(&mut self, end: &str) {
        let (mut part, mut tail) = (vec![0; 65536], Vec::new());
        while !tail.windows(end.len()).any(|text| text == end.as_bytes()) {
            let length = self.master.read(&mut part).unwrap();
            // It may have come in two parts.
            tail.drain(..tail.len().saturating_sub(end.len()));
            tail.extend_from_slice(&part[..length]);
        }
    }

    /// Resident memory in KiB, and the number of open descriptors.
    fn held(&self) -> (u64, usize) {
        let path = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{path}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let resident = line.unwrap().split_whitespace().nth(1).unwrap();
        let descriptors = std::fs::read_dir(format!("{path}/fd")).unwrap().count();
        (resident.parse().unwrap(), descriptors)
    }
}

fn pid(container: &Container<'_>) -> u64 {
    let state = container.call(&["state"], &[]).succeeds();
    let state: Value = serde_json::from_str(&state).unwrap();
    state["pid"].as_u64().unwrap()
}

/// R43: ten thousand changes of the window, and a lot of output, in one
/// foreground runtime (CVE-2022-23471, CVE-2022-31030, CVE-2025-64329).
#[test]
fn r43_resizes_and_output_leave_nothing_in_the_runtime() {
    let attack = Attack::new("R43");
    let script = format!(
        "echo ready; read go; head -c {OUTPUT_BYTES} /dev/zero; echo written; exec sleep 1000"
    );
    let container = attack.container(&script, |config| {
        config["process"]["terminal"] = json!(true)
    });
    let mut runtime = Foreground::start(&container);
    runtime.read_until("ready");
    let terminal = format!("/proc/{}/fd/0", pid(&container));
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let inside: OwnedFd = rustix::fs::open(terminal, flags, Mode::empty()).unwrap();
    let (memory, descriptors) = runtime.held();
    for number in 1..=RESIZES {
        let size = Winsize {
            ws_row: number,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&runtime.master, size).unwrap();
        // Each is passed on before the next comes, else only the last would be.
        while tcgetwinsize(&inside).unwrap().ws_row != number {
            std::thread::yield_now();
        }
    }
    runtime.master.write_all(b"go\n").unwrap();
    runtime.read_until("written");
    let (memory_after, descriptors_after) = runtime.held();
    assert!(
        memory_after < memory + GROWTH_KIB_MAX,
        "{memory} KiB have become {memory_after} KiB"
    );
    assert_eq!(descriptors, descriptors_after);
    container.delete();
    runtime.child.wait().unwrap();
}

/// What stands below a folder and in a process, by number.
fn counted(container: &Container<'_>, pid: u64) -> [usize; 2] {
    let count = |path: String| std::fs::read_dir(path).map_or(0, Iterator::count);
    let state = container.scene.path("state/runtime").join(&container.id);
    [
        count(format!("/proc/{pid}/fd")),
        count(state.to_str().unwrap().to_owned()),
    ]
}

/// R43: entering a container again and again, with a terminal and without,
/// leaves nothing in its state, in its first process or on the host.
#[test]
fn r43_entering_leaves_nothing_behind() {
    let attack = Attack::new("R43 exec");
    let container = attack.container("exec sleep 1000", |_| {});
    container.leave(&["run", "--detach"]);
    let pid = pid(&container);
    container.exec(&[], &["/bin/true"]).succeeds();
    let before = counted(&container, pid);
    for number in 0..attaches() {
        let outcome = if number % 4 == 0 {
            container.in_terminal(
                &["exec", "--tty"],
                &["/bin/head", "-c", "100000", "/dev/zero"],
            )
        } else {
            container.exec(&[], &["/bin/head", "-c", "100000", "/dev/zero"])
        };
        let zeros = outcome.succeeds().matches('\0').count();
        assert_eq!(zeros, 100_000);
    }
    let ps = container.call(&["ps", "--format", "json"], &[]).succeeds();
    assert_eq!(ps.trim(), format!("[{pid}]"), "who entered is gone");
    assert_eq!(before, counted(&container, pid));
}
