//! The client against a registry that does as it is told: each test is one thing
//! that registries do, or that hostile ones could.

use super::{Access, Client, Credentials, Error, Options, Source, Transport, Uploaded};
use crate::digest::Digest;
use crate::reference::Reference;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

mod access;
mod download;
mod upload;

/// A request as it came.
#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug, Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Says it has so many bytes.
    length: Option<u64>,
    /// Closes the connection after so many bytes of the body.
    cut: Option<usize>,
}

impl Reply {
    fn new(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }
}

/// A registry on a free port of this machine; ends with the test.
struct Server {
    host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn new(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream.unwrap(), &log, &*answer));
            }
        });
        Self { host, seen }
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    fn client(&self, access: Access, credentials: Option<Credentials>) -> Client {
        let reference: Reference = format!("{}/a/b:1", self.host).parse().unwrap();
        let options = Options {
            plain_http: true,
            credentials,
            // No file of the machine that runs the test may matter.
            authfile: Some(nothing()),
            ..Options::default()
        };
        Client::connect(&reference, access, &[], &options).unwrap()
    }
}

/// A file of credentials without any.
fn nothing() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/registry/scenes/no-logins.json")
}

fn alice() -> Option<Credentials> {
    Credentials::from_pair("alice:secret")
}

fn serve(
    stream: &TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request, usize) -> Reply + Send + Sync),
) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader, stream) {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let reply = answer(&request, number);
        let length = reply.length.unwrap_or(reply.body.len() as u64);
        let mut head = format!(
            "HTTP/1.1 {} x\r\nContent-Length: {length}\r\n",
            reply.status
        );
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let body = if request.method == "HEAD" {
            &[][..]
        } else {
            &reply.body
        };
        let mut out = stream;
        if out.write_all(head.as_bytes()).is_err() {
            return;
        }
        if let Some(cut) = reply.cut {
            let _ = out.write_all(&body[..cut]);
            return;
        }
        if out.write_all(body).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead, mut ready: impl Write) -> Option<Request> {
    let mut line = String::new();
    reader
        .read_line(&mut line)
        .ok()
        .filter(|count| *count > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader
            .read_line(&mut line)
            .ok()
            .filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let request = Request {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    if request.header("expect").is_some() {
        let _ = ready.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let length = request
        .header("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { body, ..request })
}

fn read_all(client: &Client, content: &[u8]) -> io::Result<Vec<u8>> {
    let digest = Digest::of(content);
    let mut bytes = Vec::new();
    client
        .blob(&digest, content.len() as u64)
        .map_err(io::Error::other)?
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8).collect()
}

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;
