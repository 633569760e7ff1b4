//! `--systemd-cgroup` against a bus of the test's own: what systemd is asked
//! for, and what happens when it does not answer as it should.
//!
//! The bus answers as systemd 252 does and makes nothing: version 1 hierarchies
//! are joined by the runtime itself.

use super::{Container, cgroup_v1};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use teu_integration_tests::{Outcome, Scene, binary, skip_unless};

/// What was asked: methods with the bytes of their arguments.
type Asked = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// How the bus behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// As systemd.
    Kind,
    /// Every unit is there already.
    Taken,
    /// Jobs fail.
    Failing,
    /// What it sends is no message.
    Noise,
    /// It closes when asked for a unit.
    Short,
}

struct Bus {
    address: String,
    asked: Asked,
    socket: PathBuf,
}

impl Bus {
    fn start(scene: &Scene, manner: Manner) -> Self {
        let socket = scene.path("bus");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Asked::default();
        let heard = asked.clone();
        // Ends with the test process; each connection is one runtime's.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                std::thread::spawn(move || serve(stream, manner, &heard));
            }
        });
        Self {
            address: format!("unix:path={}", socket.display()),
            asked,
            socket,
        }
    }

    fn methods(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(method, _)| method.clone()).collect()
    }

    /// Whether one call of `method` had all these in its arguments.
    fn was_told(&self, method: &str, parts: &[&str]) -> bool {
        let holds = |bytes: &[u8], part: &str| {
            bytes
                .windows(part.len())
                .any(|window| window == part.as_bytes())
        };
        self.asked
            .lock()
            .unwrap()
            .iter()
            .any(|(name, bytes)| name == method && parts.iter().all(|part| holds(bytes, part)))
    }
}

/// Little-endian words and texts, aligned as D-Bus wants them.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn word(&mut self, word: u32) {
        self.align(4);
        self.0.extend(word.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn field(&mut self, number: u8, kind: u8, value: impl FnOnce(&mut Self)) {
        self.align(8);
        self.0.extend([number, 1, kind, 0]);
        value(self);
    }
}

/// A message: its type, its fields, the signature and bytes of its body.
fn message(kind: u8, fields: impl FnOnce(&mut Bytes), signature: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Bytes(vec![b'l', kind, 0, 1]);
    out.word(body.len() as u32);
    out.word(99);
    out.word(0);
    let start = out.0.len();
    fields(&mut out);
    if !signature.is_empty() {
        out.field(8, b'g', |out| {
            out.0.push(signature.len() as u8);
            out.0.extend(signature.as_bytes());
            out.0.push(0);
        });
    }
    let length = (out.0.len() - start) as u32;
    out.0[12..16].copy_from_slice(&length.to_le_bytes());
    out.align(8);
    out.0.extend(body);
    out.0
}

fn reply(serial: u32, signature: &str, body: &[u8]) -> Vec<u8> {
    message(
        2,
        |out| out.field(5, b'u', |out| out.word(serial)),
        signature,
        body,
    )
}

fn error(serial: u32, name: &str, text: &str) -> Vec<u8> {
    let mut body = Bytes::default();
    body.text(text);
    let fields = |out: &mut Bytes| {
        out.field(5, b'u', |out| out.word(serial));
        out.field(4, b's', |out| out.text(name));
    };
    message(3, fields, "s", &body.0)
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

fn job_removed(result: &str) -> Vec<u8> {
    let mut body = Bytes::default();
    body.word(7);
    body.text(JOB);
    body.text("x.scope");
    body.text(result);
    let fields = |out: &mut Bytes| {
        out.field(1, b'o', |out| out.text("/org/freedesktop/systemd1"));
        out.field(2, b's', |out| out.text("org.freedesktop.systemd1.Manager"));
        out.field(3, b's', |out| out.text("JobRemoved"));
    };
    message(4, fields, "uoss", &body.0)
}

fn variant(text: &str) -> Vec<u8> {
    let mut body = Bytes(vec![1, b's', 0]);
    body.text(text);
    body.0
}

fn serve(mut stream: UnixStream, manner: Manner, asked: &Asked) {
    let mut greeting = [0; 16];
    if stream.read_exact(&mut greeting).is_err() {
        return;
    }
    assert_eq!(&greeting, b"\0AUTH EXTERNAL\r\n");
    let _ = stream.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n");
    let mut begin = [0; 7];
    if stream.read_exact(&mut begin).is_err() {
        return;
    }
    while let Some((method, serial, body)) = call(&mut stream) {
        asked.lock().unwrap().push((method.clone(), body.clone()));
        let Some(answer) = answer(&method, serial, &body, manner) else {
            return;
        };
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// The next call: its method, its number, the bytes of its arguments.
fn call(stream: &mut UnixStream) -> Option<(String, u32, Vec<u8>)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).ok()?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let mut fields = vec![0; (word(12) as usize).next_multiple_of(8)];
    stream.read_exact(&mut fields).ok()?;
    let mut body = vec![0; word(4) as usize];
    stream.read_exact(&mut body).ok()?;
    // Field 3, a text, is the method.
    let at = (0..fields.len())
        .step_by(8)
        .find(|&at| fields[at..].starts_with(&[3, 1, b's', 0]))?;
    let length = u32::from_le_bytes(fields[at + 4..at + 8].try_into().unwrap()) as usize;
    let method = String::from_utf8(fields[at + 8..at + 8 + length].to_vec()).ok()?;
    Some((method, word(8), body))
}

fn answer(method: &str, serial: u32, body: &[u8], manner: Manner) -> Option<Vec<u8>> {
    let job = || {
        let mut path = Bytes::default();
        path.text(JOB);
        reply(serial, "o", &path.0)
    };
    let is_control_group = body.windows(12).any(|window| window == b"ControlGroup");
    Some(match (method, manner) {
        ("Hello", _) => {
            let mut name = Bytes::default();
            name.text(":1.1");
            reply(serial, "s", &name.0)
        }
        ("Get", _) => {
            let text = if is_control_group {
                "/"
            } else {
                "252.39-1~deb12u2"
            };
            reply(serial, "v", &variant(text))
        }
        ("StartTransientUnit", Manner::Taken) => {
            let name = "org.freedesktop.systemd1.UnitExists";
            error(
                serial,
                name,
                "Unit x.scope was already loaded or has a fragment file.",
            )
        }
        ("StartTransientUnit", Manner::Noise) => vec![b'x'; 64],
        ("StartTransientUnit", Manner::Short) => return None,
        // News first: it may come before the answer that tells whose it is.
        ("StartTransientUnit", Manner::Failing) => [job_removed("failed"), job()].concat(),
        ("StartTransientUnit", Manner::Kind) => [job_removed("done"), job()].concat(),
        ("StopUnit", _) => [job(), job_removed("done")].concat(),
        _ => reply(serial, "", &[]),
    })
}

/// A container that is to be given its cgroups by the bus.
struct Asking<'a> {
    container: Container<'a>,
    bus: Bus,
}

impl<'a> Asking<'a> {
    fn new(scene: &'a Scene, manner: Manner, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let name = scene.cgroup().trim_start_matches('/').replace('-', "_");
        let container = Container::new(scene, "c", &["/bin/sleep", "1000"], |config| {
            config["linux"]["cgroupsPath"] = json!(format!("{name}.slice:teu:c"));
            change(config);
        });
        let bus = Bus::start(scene, manner);
        Self { container, bus }
    }

    /// Calls the runtime, which finds the bus in its environment.
    fn call(&self, words: &str) -> Outcome {
        let scene = self.container.scene;
        let line = format!(
            "DBUS_SYSTEM_BUS_ADDRESS={} exec {} --root {} {words} </dev/null >out 2>err",
            self.bus.address,
            binary("teu-runtime").display(),
            scene.path("state/runtime").display(),
        );
        // Its streams are files: a created container keeps them.
        let mut outcome = scene.run("sh", ["-c", &line]);
        outcome.stdout = std::fs::read_to_string(scene.path("out")).unwrap();
        outcome.stderr = std::fs::read_to_string(scene.path("err")).unwrap();
        outcome
    }

    fn create(&self) -> Outcome {
        let bundle = self.container.bundle.display();
        self.call(&format!(
            "--systemd-cgroup create -b {bundle} {}",
            self.container.id
        ))
    }

    /// Where the container is in one hierarchy of version 1.
    fn cgroup(&self, controller: &str) -> PathBuf {
        let name = self
            .container
            .scene
            .cgroup()
            .trim_start_matches('/')
            .replace('-', "_");
        PathBuf::from(format!(
            "/sys/fs/cgroup/{controller}/{name}.slice/teu-c.scope"
        ))
    }

    /// Removes the slice, which systemd would.
    fn forget_slice(&self) {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        for hierarchy in hierarchies {
            let name = hierarchy.file_name();
            let scope = self.cgroup(name.to_str().unwrap());
            assert!(!scope.exists(), "{scope:?} is left");
            let _ = std::fs::remove_dir(scope.parent().unwrap());
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.call(&format!("delete --force {}", self.container.id));
        let _ = std::fs::remove_file(&self.bus.socket);
    }
}

#[test]
fn systemd_is_asked_for_a_scope_and_told_of_its_end() {
    let scene = Scene::new("bus");
    skip_unless!(
        scene,
        cgroup_v1(),
        "on cgroup v2 only systemd makes the scope's cgroup"
    );
    let asking = Asking::new(&scene, Manner::Kind, |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
        config["linux"]["resources"]["pids"] = json!({"limit": 20});
        config["annotations"] = json!({"org.systemd.property.TimeoutStopSec": "3"});
    });
    let id = &asking.container.id;
    asking.create().succeeds();
    let wanted = [
        "Hello",
        "Get",
        "AddMatch",
        "Subscribe",
        "StartTransientUnit",
    ];
    assert_eq!(asking.bus.methods(), wanted);
    let parts = [
        "teu-c.scope",
        "replace",
        "libcontainer container c",
        "Slice",
        "Delegate",
        "PIDs",
        "MemoryLimit",
        "TasksMax",
        "BlockIOAccounting",
        "TimeoutStopUSec",
        "DevicePolicy",
        "/dev/char/1:3",
    ];
    assert!(asking.bus.was_told("StartTransientUnit", &parts));
    let file =
        |controller, file| std::fs::read_to_string(asking.cgroup(controller).join(file)).unwrap();
    assert_eq!(file("pids", "pids.max"), "20\n");
    assert_eq!(file("memory", "memory.limit_in_bytes"), "33554432\n");
    assert!(file("devices", "devices.list").contains("c 1:3 rwm"));
    let pid = asking.container.state()["pid"].to_string();
    for controller in ["pids", "memory", "devices", "freezer", "cpu", "cpuset"] {
        assert_eq!(file(controller, "cgroup.procs").trim(), pid, "{controller}");
    }
    asking.call(&format!("start {id}")).succeeds();
    // Without the flag: the state remembers.
    asking
        .call(&format!("update --pids-limit 30 --cpu-quota 33330 {id}"))
        .succeeds();
    let parts = ["teu-c.scope", "TasksMax", "CPUQuotaPerSecUSec"];
    assert!(asking.bus.was_told("SetUnitProperties", &parts));
    assert_eq!(file("pids", "pids.max"), "30\n");
    assert_eq!(
        file("cpu", "cpu.cfs_quota_us"),
        "34000\n",
        "as systemd rounds it"
    );
    asking.call(&format!("pause {id}")).succeeds();
    assert_eq!(asking.container.status(), "paused");
    asking.call(&format!("resume {id}")).succeeds();
    asking.call(&format!("exec {id} true")).succeeds();
    asking.call(&format!("delete --force {id}")).succeeds();
    assert!(asking.bus.was_told("StopUnit", &["teu-c.scope", "replace"]));
    assert!(asking.bus.was_told("ResetFailedUnit", &["teu-c.scope"]));
    asking.forget_slice();
}

#[test]
fn a_unit_that_is_anothers_is_left_alone() {
    let scene = Scene::new("taken unit");
    let asking = Asking::new(&scene, Manner::Taken, |_| {});
    let said = ["unable to start unit", "teu-c.scope", "already loaded"];
    let _ = asking.create().fails(1, &said);
    assert!(asking.bus.was_told("ResetFailedUnit", &["teu-c.scope"]));
    assert!(
        !asking
            .bus
            .methods()
            .iter()
            .any(|method| method == "StopUnit")
    );
}

#[test]
fn a_bus_that_fails_leaves_no_container() {
    for (manner, said) in [
        (Manner::Failing, "got `failed`"),
        (Manner::Noise, "sent a message that is none"),
        (Manner::Short, "closed the connection"),
    ] {
        let scene = Scene::new("failing bus");
        let asking = Asking::new(&scene, manner, |_| {});
        let _ = asking.create().fails(1, &[said]);
        assert_eq!(asking.call("list -q").succeeds(), "");
        assert!(!asking.cgroup("pids").exists());
    }
}

#[test]
fn a_host_without_systemd_says_so() {
    let scene = Scene::new("no systemd");
    let asking = Asking::new(&scene, Manner::Kind, |_| {});
    std::fs::remove_file(&asking.bus.socket).unwrap();
    let said = ["systemd not running on this host, cannot use systemd cgroups manager"];
    let _ = asking.create().fails(1, &said);
}

#[test]
fn what_could_harm_the_host_is_refused_before_anything_is_asked() {
    let scene = Scene::new("annotations");
    for (key, value, said) in [
        ("ExecStopPost", "'x'", "is refused"),
        ("OnFailure", "['poweroff.target']", "is refused"),
        ("PIDs", "[uint32 1]", "is refused"),
        ("TimeoutStopSec", "'x'", "parse error"),
        ("Tasks Max", "1", "name incorrect"),
        ("TasksMax", "99999999999999", "parse error"),
    ] {
        let bundle = scene.bundle("b", &["/bin/true"], |config| {
            config["linux"]["cgroupsPath"] = json!("system.slice:teu:c");
            config["annotations"] = json!({format!("org.systemd.property.{key}"): value});
        });
        let words = [
            "--systemd-cgroup",
            "create",
            "-b",
            bundle.to_str().unwrap(),
            "c",
        ];
        let _ = scene.run("teu-runtime", words).fails(1, &[key, said]);
    }
    for path in [
        "/a/b",
        "../../x",
        "a.slice:b",
        "a/b.slice:p:n",
        "x:p:n",
        "a.slice:p:../../n",
    ] {
        let bundle = scene.bundle("b", &["/bin/true"], |config| {
            config["linux"]["cgroupsPath"] = json!(path);
        });
        let words = [
            "--systemd-cgroup",
            "create",
            "-b",
            bundle.to_str().unwrap(),
            "c",
        ];
        let _ = scene.run("teu-runtime", words).fails(1, &[]);
    }
}
