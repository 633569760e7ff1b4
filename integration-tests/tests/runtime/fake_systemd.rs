//! A bus that answers as systemd 252 does, and makes nothing; or answers as
//! systemd should not.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use teu_integration_tests::Scene;

/// What was asked: methods with the bytes of their arguments.
type Asked = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// How the bus behaves.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Manner {
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
    /// It says nothing when asked for a unit.
    Silent,
}

pub(super) struct Bus {
    pub(super) address: String,
    asked: Asked,
    pub(super) socket: PathBuf,
}

impl Bus {
    pub(super) fn start(scene: &Scene, manner: Manner) -> Self {
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

    pub(super) fn methods(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(method, _)| method.clone()).collect()
    }

    /// Whether one call of `method` had all these in its arguments.
    pub(super) fn was_told(&self, method: &str, parts: &[&str]) -> bool {
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
    let introduction = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
    let mut heard = [0; 256];
    // As systemd: what is read in one piece with the introduction is never looked at.
    match stream.read(&mut heard) {
        Ok(1..) => assert!(heard.starts_with(introduction)),
        _ => return,
    }
    let _ = stream.write_all(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n");
    while let Some((method, serial, body)) = call(&mut stream) {
        asked.lock().unwrap().push((method.clone(), body.clone()));
        if method == "StartTransientUnit" && manner == Manner::Silent {
            continue;
        }
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
