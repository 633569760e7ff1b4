//! Servers of our own on loopback.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use teu_integration_tests::Scene;

/// A server of files that remembers what it was asked. It ends with the test's process.
pub(crate) struct Web {
    pub(crate) port: u16,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Self {
            port: listener.local_addr().unwrap().port(),
            files: Arc::default(),
            asked: Arc::default(),
        };
        let (files, asked) = (web.files.clone(), web.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, asked) = (files.clone(), asked.clone());
                std::thread::spawn(move || answer(stream, &files, &asked));
            }
        });
        web
    }

    /// Puts content at a path; one that begins with `->` redirects.
    pub(crate) fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.files
            .lock()
            .unwrap()
            .insert(path.to_owned(), content.into());
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The heads of all requests since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn answer(stream: TcpStream, files: &Mutex<HashMap<String, Vec<u8>>>, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(head.clone());
    let content = files.lock().unwrap().get(&path).cloned();
    let etag = content.as_ref().map(|content| {
        format!(
            "\"{}\"",
            content.iter().map(|byte| u64::from(*byte)).sum::<u64>()
        )
    });
    let unchanged = etag.as_ref().is_some_and(|etag| {
        head.to_lowercase()
            .contains(&format!("if-none-match: {}", etag.to_lowercase()))
    });
    let (status, extra, body) = match content {
        None => ("404 Not Found", String::new(), Vec::new()),
        Some(_) if unchanged => ("304 Not Modified", String::new(), Vec::new()),
        Some(content) if content.starts_with(b"->") => {
            let place = String::from_utf8_lossy(&content[2..]).into_owned();
            ("302 Found", format!("Location: {place}\r\n"), Vec::new())
        }
        Some(content) => {
            let etag = etag.unwrap_or_default();
            let extra = format!(
                "ETag: {etag}\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Disposition: attachment; filename=\"../../x\"\r\n"
            );
            ("200 OK", extra, content)
        }
    };
    let mut stream = stream;
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\n{extra}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(&body);
}

/// `git daemon` for the folder `git` of a scene.
pub(crate) struct GitServer(Child, u16);

impl GitServer {
    pub(crate) fn start(scene: &Scene) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let base = format!("--base-path={}", scene.path("git").display());
        let port_flag = format!("--port={port}");
        let child = scene
            .command(
                "git",
                [
                    "daemon",
                    &base,
                    "--export-all",
                    "--listen=127.0.0.1",
                    &port_flag,
                ],
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        scene.wait_until("git listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self(child, port)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.1)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        // `git` only starts the daemon: both are to end.
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let own = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
            let children = std::fs::read_to_string(own).unwrap_or_default();
            let daemons = children
                .split_whitespace()
                .filter_map(|text| text.parse().ok());
            for daemon in daemons.filter_map(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(daemon, rustix::process::Signal::TERM);
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs git on repositories of a scene, with a name and dates of its own.
pub(crate) fn git(scene: &Scene, script: &str) -> String {
    let environment = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        export GIT_AUTHOR_DATE='2001-02-03T04:05:06Z' GIT_COMMITTER_DATE='2001-02-03T04:05:06Z' GIT_CONFIG_GLOBAL=/dev/null HOME=/nonexistent\n";
    scene.shell(&format!("mkdir -p git; cd git\n{environment}{script}"))
}
