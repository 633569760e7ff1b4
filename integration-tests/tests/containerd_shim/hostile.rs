//! Clients that do not keep to the protocol. Only root and the shim's own user reach its
//! socket; none of them may end it, stop it or make it grow.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::client::{Shim, ask, connect, context, create_request};
use super::{Start, finish, shut_down, socket};
use containerd_shim_protos::api::{ConnectRequest, DeleteRequest, KillRequest, StartRequest};
use teu_integration_tests::Scene;

/// How much a shim may grow under all this, in KiB.
const GROWTH_KIB_MAX: u64 = 1024;

fn dial(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

/// A frame: a request on `stream`, or what else `kind` is.
fn frame(length: u32, stream: u32, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut out = length.to_be_bytes().to_vec();
    out.extend(stream.to_be_bytes());
    out.extend([kind, 0]);
    out.extend(data);
    out
}

/// `Wait` for the container `one`, on `stream`.
fn wait_frame(stream: u32) -> Vec<u8> {
    let data = b"\x0a\x17containerd.task.v2.Task\x12\x04Wait\x1a\x05\x0a\x03one";
    frame(u32::try_from(data.len()).unwrap(), stream, 1, data)
}

/// Private memory in KiB, and open descriptors.
fn cost(pid: u32) -> (u64, usize) {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let of = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    let private = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(of)
        .sum();
    (
        private,
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count(),
    )
}

#[test]
fn nonsense_does_no_harm() {
    let scene = Scene::new("shim hostile");
    let shim = Shim::start(&scene, "one", &["sleep", "1000"]);
    let client = connect(&shim.address);
    client
        .create(context(), &create_request(&scene, "one"))
        .unwrap();
    client.start(context(), &ask!(StartRequest, "one")).unwrap();
    let pid = client
        .connect(context(), &ask!(ConnectRequest, "one"))
        .unwrap()
        .shim_pid;
    let before = cost(pid);
    let path = socket(&shim.address);

    for seed in 0..200_u32 {
        // Bytes of no meaning, the same in each run.
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(3000)
        .collect();
        let _ = dial(&path).write_all(&noise);
    }
    // Half a header, half a frame, and no more.
    let _ = dial(&path).write_all(b"\0\0\0");
    let _ = dial(&path).write_all(&frame(1000, 1, 1, b"half"));
    too_large(&path);
    many_waits(&path);
    many_connections(&path);

    let still = client
        .connect(context(), &ask!(ConnectRequest, "one"))
        .unwrap();
    assert_eq!(still.shim_pid, pid);
    scene.wait_until("everything is given back", || {
        let after = cost(pid);
        after.1 <= before.1 && after.0 < before.0 + GROWTH_KIB_MAX
    });
    client
        .kill(
            context(),
            &KillRequest {
                signal: 9,
                ..ask!(KillRequest, "one")
            },
        )
        .unwrap();
    scene.wait_until("it is deleted", || {
        client
            .delete(context(), &ask!(DeleteRequest, "one"))
            .is_ok()
    });
    shim.end("one");
}

/// A frame above the limit is refused, and the connection goes on.
fn too_large(path: &Path) {
    let mut stream = dial(path);
    let length = (4 << 20) + 1;
    stream
        .write_all(&frame(length, 1, 1, &vec![0; length as usize]))
        .unwrap();
    stream.write_all(&frame(0, 3, 1, b"")).unwrap();
    let mut answers: Vec<u8> = Vec::new();
    while answers.len() < 10
        || !answers
            .windows(10)
            .any(|header| header[4..] == [0, 0, 0, 3, 2, 0])
    {
        let mut some = [0; 4096];
        let n = stream.read(&mut some).unwrap();
        assert!(n > 0, "it hung up");
        answers.extend(&some[..n]);
    }
    assert_eq!(
        answers[4..10],
        [0, 0, 0, 1, 2, 0],
        "the first answer is about the first frame"
    );
}

/// Calls without end, none of which can be answered now.
fn many_waits(path: &Path) {
    let mut stream = dial(path);
    let frames: Vec<u8> = (0..40_000)
        .flat_map(|number| wait_frame(number * 2 + 1))
        .collect();
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        // What is above the limit is answered with an error, in hundreds of bytes each.
        let mut some = [0; 65_536];
        let mut total = 0;
        while total < 100_000 {
            match reader.read(&mut some) {
                Ok(n @ 1..) => total += n,
                _ => break,
            }
        }
        total
    });
    stream.write_all(&frames).unwrap();
    assert!(reading.join().unwrap() > 0, "there is a limit");
}

fn many_connections(path: &Path) {
    let streams: Vec<_> = (0..400)
        .filter_map(|_| UnixStream::connect(path).ok())
        .collect();
    assert!(streams.len() > 100);
    // The last ones are turned away: end of file.
    let mut last = streams.last().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(last.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_shim_may_have_a_cgroup_of_its_own() {
    let scene = Scene::new("shim cgroup");
    scene.bundle("one", &["true"], |_| {});
    let group = format!("{}/shim", scene.cgroup());
    scene.shell(&format!(
        "mkdir -p /sys/fs/cgroup/memory{group} || mkdir -p /sys/fs/cgroup{group}"
    ));
    // Any { Options { shim_cgroup } }
    let mut options = vec![0x1a, u8::try_from(group.len()).unwrap()];
    options.extend(group.as_bytes());
    let mut input = b"\x0a\x1acontainerd.runc.v1.Options\x12".to_vec();
    input.push(u8::try_from(options.len()).unwrap());
    input.extend(options);
    let address = String::from_utf8(Start::new("one", &input).run(&scene)).unwrap();
    let client = connect(&address);
    let pid = client
        .connect(context(), &ask!(ConnectRequest, "one"))
        .unwrap()
        .shim_pid;
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroups.contains(&group), "{cgroups}");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let its = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let number = |text: &str| text.trim().parse::<i32>().unwrap();
    assert_eq!(
        number(&its),
        (number(&own) + 1).min(1000),
        "a little nearer to the OOM killer"
    );
    shut_down(&scene, &address, "one");
    // A cgroup that is not there is an error, and no shim is left behind.
    let mut command = Start::new("one", &input).command(&scene, "start");
    let remove = format!("rmdir /sys/fs/cgroup/memory{group} || rmdir /sys/fs/cgroup{group}");
    scene.wait_until("the shim has left its cgroup", || {
        scene.run("sh", ["-c", &remove]).code() == 0
    });
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(!out.status.success());
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("there is no cgroup"),
        "{out:?}"
    );
    let _ = finish(Start::new("one", b"").command(&scene, "delete"), b"");
}
