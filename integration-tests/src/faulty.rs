//! A registry that is honest until it is told not to be: what it answers is a
//! script, down to single bytes, silences and resets.

use rustix::net::sockopt::set_socket_linger;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most bytes of what is sent without end: a client that takes more has no limit.
const ENDLESS_BYTES: usize = 256 << 20;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `HEAD` and so on.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What was sent.
    pub body: Vec<u8>,
    /// What is asked for: `manifest`, `config`, `layer`, `blob`, `token`, `upload`, `tags`, `catalog`, `referrers`, `api`, `other`.
    pub kind: &'static str,
    /// How many requests of the same kind and method came before.
    pub nth: usize,
}

impl Request {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Where a range that is asked for begins.
    #[must_use]
    pub fn range_start(&self) -> usize {
        self.header("range")
            .and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .split('-')
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or(0)
    }
}

/// One thing that the server does.
#[derive(Debug, Clone)]
enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    Drip(Vec<u8>, Duration),
    Endless(Vec<u8>),
    Reset,
    Close,
}

/// What is answered, and how.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Says its length.
    counted: bool,
    /// Replaces all of the above.
    steps: Option<Vec<Step>>,
    /// Done to the bytes of the answer: after so many of its body.
    after: Option<(usize, Vec<Step>)>,
}

impl Reply {
    /// An answer without a body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            counted: true,
            steps: None,
            after: None,
        }
    }

    /// Bytes instead of an answer; then the connection ends.
    #[must_use]
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::steps(vec![Step::Send(bytes.into()), Step::Close])
    }

    /// The connection ends without an answer.
    #[must_use]
    pub fn nothing() -> Self {
        Self::steps(vec![Step::Close])
    }

    /// The connection is reset without an answer.
    #[must_use]
    pub fn reset() -> Self {
        Self::steps(vec![Step::Reset])
    }

    /// Silence.
    #[must_use]
    pub fn silence() -> Self {
        Self::steps(vec![Step::Wait(Duration::from_secs(60)), Step::Close])
    }

    /// These bytes, then others again and again.
    #[must_use]
    pub fn endless(first: &str, then: &str) -> Self {
        let then = then.repeat(65536 / then.len() + 1);
        Self::steps(vec![
            Step::Send(first.into()),
            Step::Endless(then.into_bytes()),
        ])
    }

    /// These bytes one by one, with waits between them.
    #[must_use]
    pub fn dripping(bytes: impl Into<Vec<u8>>, wait: Duration) -> Self {
        Self::steps(vec![Step::Drip(bytes.into(), wait), Step::Close])
    }

    fn steps(steps: Vec<Step>) -> Self {
        Self {
            steps: Some(steps),
            ..Self::new(0)
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Without saying its length: the end of the connection is its end.
    #[must_use]
    pub fn uncounted(mut self) -> Self {
        self.counted = false;
        self
    }

    /// Its body in chunks of 1000 bytes.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        let mut body = Vec::new();
        for chunk in self.body.chunks(1000) {
            body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        self.headers
            .push(("Transfer-Encoding".into(), "chunked".into()));
        self.body = body;
        self.counted = false;
        self
    }

    /// The connection ends after so many bytes of the body.
    #[must_use]
    pub fn cut(mut self, after: usize) -> Self {
        self.after = Some((after, vec![Step::Close]));
        self
    }

    /// The connection is reset after so many bytes of the body.
    #[must_use]
    pub fn reset_after(mut self, after: usize) -> Self {
        // A moment for what was sent: a reset takes back what is still on its way.
        self.after = Some((
            after,
            vec![Step::Wait(Duration::from_millis(5)), Step::Reset],
        ));
        self
    }

    /// Silence after so many bytes of the body.
    #[must_use]
    pub fn stall(mut self, after: usize) -> Self {
        self.after = Some((
            after,
            vec![Step::Wait(Duration::from_secs(60)), Step::Close],
        ));
        self
    }

    /// The body's rest comes byte by byte after so many.
    #[must_use]
    pub fn drip(mut self, after: usize, wait: Duration) -> Self {
        let rest = self.body[after..].to_vec();
        self.after = Some((after, vec![Step::Drip(rest, wait)]));
        self
    }

    fn plan(self, with_body: bool) -> Vec<Step> {
        if let Some(steps) = self.steps {
            return steps;
        }
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        let said = |name: &str| {
            self.headers
                .iter()
                .any(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        if self.counted && !said("content-length") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut steps = vec![Step::Send(head.into_bytes())];
        if !with_body {
            return steps;
        }
        match self.after {
            Some((after, then)) if after < self.body.len() => {
                steps.push(Step::Send(self.body[..after].to_vec()));
                steps.extend(then);
            }
            _ => steps.push(Step::Send(self.body)),
        }
        if !self.counted && !head_says_chunked(&self.headers) {
            steps.push(Step::Close);
        }
        steps
    }
}

fn head_says_chunked(headers: &[(String, String)]) -> bool {
    headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"))
}

/// What a fault answers instead of the truth; none leaves that to the registry.
pub type Fault = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;

/// The image that is served.
#[derive(Debug, Clone)]
pub struct Image {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The configuration's bytes.
    pub config: Vec<u8>,
    /// The only layer's bytes, a tar packed by gzip.
    pub layer: Vec<u8>,
}

/// `sha256:<hex>`.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// `sha512:<hex>`.
#[must_use]
pub fn long_digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha512::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha512:{hex}")
}

/// A registry on a free port of this machine; ends with the test's process.
#[derive(Clone)]
pub struct Faulty {
    /// Its host, with the port.
    pub host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// What was stored.
#[derive(Default)]
struct Stored {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    uploads: HashMap<String, Vec<u8>>,
}

struct Server {
    image: Option<Image>,
    fault: Fault,
    stored: Mutex<Stored>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl std::fmt::Debug for Faulty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({})", self.host)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faulty {
    /// A registry that has `image` as `team/app:1`, but for what `fault` says.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(image: Option<Image>, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port of loopback");
        let host = listener.local_addr().expect("the own port").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let server = Arc::new(Server {
            image,
            fault,
            stored: Mutex::default(),
            seen: Arc::clone(&seen),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.serve(&stream));
            }
        });
        Self { host, seen }
    }

    /// All requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        lock(&self.seen).clone()
    }
}

impl Server {
    fn serve(&self, stream: &TcpStream) {
        // Head and body go apart: nobody shall wait for an acknowledgement in between.
        let _ = stream.set_nodelay(true);
        let mut reader = BufReader::new(stream);
        while let Some(mut request) = read_request(&mut reader, stream) {
            request.kind = self.kind(&request.path);
            let reply = {
                let mut seen = lock(&self.seen);
                let same =
                    |other: &&Request| other.kind == request.kind && other.method == request.method;
                request.nth = seen.iter().filter(same).count();
                seen.push(request.clone());
                drop(seen);
                (self.fault)(&request).unwrap_or_else(|| self.truth(&request))
            };
            for step in reply.plan(request.method != "HEAD") {
                if !act(stream, step) {
                    return;
                }
            }
        }
    }

    fn kind(&self, path: &str) -> &'static str {
        let of_blob = |path: &str| match &self.image {
            Some(image) if path.contains(&digest(&image.config)) => "config",
            Some(image) if path.contains(&digest(&image.layer)) => "layer",
            _ => "blob",
        };
        match path {
            _ if path.starts_with("/token") => "token",
            _ if path.contains("/blobs/uploads/") => "upload",
            _ if path.contains("/manifests/") => "manifest",
            _ if path.contains("/blobs/") => of_blob(path),
            _ if path.contains("/tags/list") => "tags",
            _ if path.contains("_catalog") => "catalog",
            _ if path.contains("/referrers/") => "referrers",
            "/v2/" => "api",
            _ => "other",
        }
    }

    fn truth(&self, request: &Request) -> Reply {
        let last = request.path.split('?').next().unwrap_or_default();
        let last = last.rsplit('/').next().unwrap_or_default().to_owned();
        match (request.kind, request.method.as_str()) {
            ("api", _) => Reply::new(200).body("{}"),
            ("manifest", "PUT") => {
                let name = digest(&request.body);
                let mut stored = lock(&self.stored);
                stored.manifests.insert(name.clone(), request.body.clone());
                stored.manifests.insert(last, request.body.clone());
                Reply::new(201).header("Docker-Content-Digest", name)
            }
            ("manifest", _) => match self.manifest(&last) {
                Some(bytes) => manifest(bytes),
                None => Reply::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
            },
            ("upload", _) => self.upload(request, &last),
            ("config" | "layer" | "blob", _) => match self.blob(&last) {
                Some(bytes) => blob(&bytes, request),
                None => Reply::new(404).body(r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#),
            },
            ("tags", _) => Reply::new(200).body(r#"{"name":"team/app","tags":["1"]}"#),
            ("catalog", _) => Reply::new(200).body(r#"{"repositories":["team/app"]}"#),
            _ => Reply::new(404),
        }
    }

    fn manifest(&self, name: &str) -> Option<Vec<u8>> {
        if let Some(stored) = lock(&self.stored).manifests.get(name) {
            return Some(stored.clone());
        }
        let image = self.image.as_ref()?;
        (name == "1" || name == digest(&image.manifest)).then(|| image.manifest.clone())
    }

    fn blob(&self, name: &str) -> Option<Vec<u8>> {
        if let Some(stored) = lock(&self.stored).blobs.get(name) {
            return Some(stored.clone());
        }
        let image = self.image.as_ref()?;
        [&image.config, &image.layer]
            .into_iter()
            .find(|bytes| digest(bytes) == name)
            .cloned()
    }

    fn upload(&self, request: &Request, session: &str) -> Reply {
        let mut stored = lock(&self.stored);
        if request.method == "POST" {
            let name = format!("s{}", stored.uploads.len());
            let place = format!("/v2/team/app/blobs/uploads/{name}");
            stored.uploads.insert(name, Vec::new());
            return Reply::new(202).header("Location", place);
        }
        let Some(bytes) = stored.uploads.get_mut(session) else {
            return Reply::new(404);
        };
        bytes.extend_from_slice(&request.body);
        let told = Reply::new(if request.method == "GET" { 204 } else { 202 })
            .header("Location", format!("/v2/team/app/blobs/uploads/{session}"))
            .header("Range", format!("0-{}", bytes.len().saturating_sub(1)));
        if request.method != "PUT" {
            return told;
        }
        let bytes = bytes.clone();
        let name = digest(&bytes);
        if !request.path.replace("%3A", ":").contains(&name) {
            return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
        }
        stored.blobs.insert(name, bytes);
        Reply::new(201)
    }
}

/// A manifest as registries answer it.
#[must_use]
pub fn manifest(bytes: impl Into<Vec<u8>>) -> Reply {
    let bytes = bytes.into();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let kind = json["mediaType"]
        .as_str()
        .unwrap_or("application/vnd.oci.image.manifest.v1+json")
        .to_owned();
    Reply::new(200).header("Content-Type", kind).body(bytes)
}

/// A blob as registries answer it, or the part of it that is asked for.
#[must_use]
pub fn blob(bytes: &[u8], request: &Request) -> Reply {
    let start = request.range_start();
    if request.header("range").is_none() || start >= bytes.len() {
        return Reply::new(200).body(bytes);
    }
    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::new(206)
        .header("Content-Range", range)
        .body(&bytes[start..])
}

/// Does one step; whether the connection goes on.
fn act(mut stream: &TcpStream, step: Step) -> bool {
    match step {
        Step::Send(bytes) => stream.write_all(&bytes).is_ok(),
        Step::Wait(time) => {
            std::thread::sleep(time);
            true
        }
        Step::Drip(bytes, wait) => bytes.iter().all(|byte| {
            std::thread::sleep(wait);
            stream.write_all(&[*byte]).is_ok()
        }),
        Step::Endless(bytes) => {
            for _ in 0..ENDLESS_BYTES / bytes.len() {
                if stream.write_all(&bytes).is_err() {
                    return false;
                }
            }
            false
        }
        Step::Reset => {
            // Nothing lingers: the kernel sends RST.
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
            false
        }
        Step::Close => {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
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
    let mut request = Request {
        method,
        path,
        headers,
        body: Vec::new(),
        kind: "other",
        nth: 0,
    };
    if request.header("expect").is_some() {
        let _ = ready.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let length = request
        .header("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = body;
    Some(request)
}
