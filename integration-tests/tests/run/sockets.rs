//! The supervisor's sockets: who may come, and that those who came leave nothing.

use super::*;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Connections and messages that one supervisor sees.
const TIMES: u32 = 10_000;

/// By how much its memory may grow meanwhile, in KiB.
const GROWTH_KIB_MAX: u64 = 4096;

fn folder(scene: &Scene, name: &str) -> PathBuf {
    let id = inspect(scene, name)["id"].as_str().unwrap().to_owned();
    scene.data().join("containers").join(id)
}

fn connected(folder: &std::fs::File, name: &str) -> OwnedFd {
    let kind = SocketType::SEQPACKET;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// R37: also where the folder is open to everybody, the kernel says who comes
/// (CVE-2020-15257): only the owner and root are heard.
#[test]
fn another_user_is_turned_away() {
    let scene = scene("peer");
    skip_unless!(
        scene,
        !missing_command("python3"),
        "python3 connects as another user"
    );
    run(&scene, &["-d", "--name", "p"], "exec sleep 300").succeeds();
    let folder = folder(&scene, "p");
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o777));
    for path in [folder.clone(), folder.join("ctl"), folder.join("attach")] {
        open(&path).unwrap();
    }
    let script = scene.write(
        "knock.py",
        "import os, socket, sys\n\
         os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n\
         for name in 'ctl', 'attach':\n\
         \x20   peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
         \x20   peer.connect('/proc/self/fd/9/' + name)\n\
         \x20   try: peer.send(b'kill 9')\n\
         \x20   except BrokenPipeError: pass\n\
         \x20   try: print(name, len(peer.recv(100)))\n\
         \x20   except ConnectionResetError: print(name, 0)\n",
    );
    let said = scene.shell(&format!(
        "exec 9<{}; exec python3 {}",
        folder.display(),
        script.display()
    ));
    assert_eq!(said.trim(), "ctl 0\nattach 0");
    assert_eq!(state(&scene, "p"), "running");
    teu(&scene, &["rm", "-f", "p"]).succeeds();
}

/// Resident memory in KiB, and the number of open descriptors.
fn held(pid: &Value) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let resident = line.unwrap().split_whitespace().nth(1).unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    (resident.parse().unwrap(), descriptors.count())
}

/// R43: ten thousand of each (CVE-2022-23471, CVE-2022-31030, CVE-2025-64329).
#[test]
fn resizes_and_attaches_leave_nothing_in_a_supervisor() {
    let scene = scene("often");
    run(&scene, &["-d", "-t", "--name", "o"], "exec sleep 300").succeeds();
    let pid = inspect(&scene, "o")["state"]["supervisor_pid"].clone();
    let folder = std::fs::File::open(folder(&scene, "o")).unwrap();
    let ask = |text: &str| {
        let peer = connected(&folder, "ctl");
        send(&peer, text.as_bytes(), SendFlags::NOSIGNAL).unwrap();
        let mut answer = [0; 100];
        recv(&peer, &mut answer[..], RecvFlags::empty()).unwrap().0
    };
    let resize = |number: u32| ask(&format!("resize {} 80", number % 500 + 1));
    assert!(resize(0) > 0, "it answers");
    let before = held(&pid);
    for number in 0..TIMES {
        drop(connected(&folder, "attach"));
        resize(number);
    }
    scene.wait_until("the last has left", || held(&pid).1 <= before.1);
    let after = held(&pid);
    assert!(after.0 < before.0 + GROWTH_KIB_MAX, "{before:?} {after:?}");
    teu(&scene, &["rm", "-f", "o"]).succeeds();
}
