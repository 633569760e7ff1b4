//! The client against a registry that does as it is told: each test is one thing
//! that registries do, or that hostile ones could.

use super::{Access, Client, Credentials, Error, Options, Source, Transport, Uploaded};
use crate::digest::Digest;
use crate::reference::Reference;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

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
    static FILE: std::sync::OnceLock<tempfile::NamedTempFile> = std::sync::OnceLock::new();
    let file = FILE.get_or_init(|| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"{}").unwrap();
        file
    });
    file.path().to_owned()
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

#[test]
fn a_token_is_fetched_once_and_sent_from_then_on() {
    let server = Server::new(|request, _| match request.path.as_str() {
        path if path.starts_with("/token?") => {
            Reply::new(200).body(r#"{"token":"t1","expires_in":300}"#)
        }
        _ if request.header("authorization") == Some("Bearer t1") => Reply::new(200).body(MANIFEST),
        _ => Reply::new(401).header(
            "WWW-Authenticate",
            format!(
                r#"Bearer realm="http://{}/token",service="s",scope="repository:a/b:pull""#,
                request.header("host").unwrap()
            ),
        ),
    });
    let client = server.client(Access::Pull, alice());
    assert_eq!(client.manifest("1").unwrap().bytes, MANIFEST);
    client.manifest("1").unwrap();
    let seen = server.seen();
    let paths: Vec<&str> = seen.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/v2/a/b/manifests/1",
            "/token?service=s&scope=repository%3Aa%2Fb%3Apull",
            "/v2/a/b/manifests/1",
            "/v2/a/b/manifests/1"
        ]
    );
    // The password goes to the token server, and only there.
    assert_eq!(
        seen[1].header("authorization"),
        Some("Basic YWxpY2U6c2VjcmV0")
    );
    assert!(seen[0].header("authorization").is_none());
    assert!(
        seen[0]
            .header("accept")
            .unwrap()
            .contains("manifest.list.v2")
    );
}

#[test]
fn an_expired_token_is_renewed_in_the_middle() {
    let server = Server::new(|request, number| match request.path.as_str() {
        path if path.starts_with("/token?") => {
            Reply::new(200).body(format!(r#"{{"token":"t{number}"}}"#))
        }
        _ if matches!(request.header("authorization"), Some("Bearer t1")) && number < 3 => {
            Reply::new(200).body(MANIFEST)
        }
        _ if matches!(request.header("authorization"), Some("Bearer t4")) => {
            Reply::new(200).body(MANIFEST)
        }
        _ => Reply::new(401).header(
            "WWW-Authenticate",
            format!(
                r#"Bearer realm="http://{}/token""#,
                request.header("host").unwrap()
            ),
        ),
    });
    let client = server.client(Access::Pull, None);
    client.manifest("1").unwrap();
    client.manifest("1").unwrap();
    assert_eq!(server.seen().len(), 6);
}

// security.md, S18.
#[test]
fn a_hostile_realm_gets_no_request() {
    let server = Server::new(|_, _| {
        Reply::new(401).header(
            "WWW-Authenticate",
            r#"Bearer realm="http://169.254.169.254/latest/meta-data""#,
        )
    });
    let error = server
        .client(Access::Pull, alice())
        .manifest("1")
        .unwrap_err();
    assert!(matches!(error, Error::Realm { .. }), "{error}");
    assert_eq!(server.seen().len(), 1);
}

// security.md, S17.
#[test]
fn a_redirect_elsewhere_carries_no_password() {
    let bytes = content(1000);
    let body = bytes.clone();
    let cdn = Server::new(move |_, _| Reply::new(200).body(body.clone()));
    let target = cdn.host.clone();
    let server = Server::new(move |request, _| {
        if request.header("authorization").is_none() {
            return Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#);
        }
        Reply::new(307).header("Location", format!("http://{target}/signed?x=y"))
    });
    assert_eq!(
        read_all(&server.client(Access::Pull, alice()), &bytes).unwrap(),
        bytes
    );
    assert_eq!(
        server.seen()[1].header("authorization"),
        Some("Basic YWxpY2U6c2VjcmV0")
    );
    let seen = cdn.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].header("authorization").is_none() && seen[0].header("cookie").is_none());
}

#[test]
fn a_401_from_elsewhere_gets_no_password_either() {
    let evil = Server::new(|_, _| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#));
    let target = evil.host.clone();
    let server =
        Server::new(move |_, _| Reply::new(307).header("Location", format!("http://{target}/x")));
    assert!(read_all(&server.client(Access::Pull, alice()), b"x").is_err());
    assert!(
        evil.seen()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[test]
fn wrong_and_missing_credentials_are_told_apart() {
    let server =
        Server::new(|_, _| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="x""#));
    let error = server.client(Access::Pull, None).manifest("1").unwrap_err();
    assert!(matches!(error, Error::LogIn { .. }), "{error}");
    let error = server
        .client(Access::Pull, alice())
        .manifest("1")
        .unwrap_err();
    assert!(matches!(error, Error::Rejected { .. }), "{error}");
    assert!(!error.to_string().contains("secret"));
}

#[test]
fn a_cut_blob_is_resumed_by_range() {
    let bytes = content(300_000);
    let body = bytes.clone();
    let server = Server::new(move |request, _| {
        let start: usize = request
            .header("range")
            .and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let reply = if start == 0 {
            Reply::new(200)
        } else {
            Reply::new(206)
        };
        let last = body.len() - 1;
        let reply = reply.header(
            "Content-Range",
            format!("bytes {start}-{last}/{}", body.len()),
        );
        let rest = body[start..].to_vec();
        if rest.len() > 100_000 {
            reply.body(rest).cut(100_000)
        } else {
            reply.body(rest)
        }
    });
    assert!(read_all(&server.client(Access::Pull, None), &bytes).unwrap() == bytes);
    let ranges: Vec<_> = server
        .seen()
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(
        ranges,
        [
            None,
            Some("bytes=100000-".into()),
            Some("bytes=200000-".into())
        ]
    );
}

#[test]
fn a_server_that_ignores_ranges_is_read_past() {
    let bytes = content(200_000);
    let body = bytes.clone();
    let server = Server::new(move |_, number| {
        let reply = Reply::new(200).body(body.clone());
        if number == 0 {
            reply.cut(150_000)
        } else {
            reply
        }
    });
    assert!(read_all(&server.client(Access::Pull, None), &bytes).unwrap() == bytes);
}

#[test]
fn a_server_that_cuts_without_end_is_given_up() {
    let server = Server::new(|_, _| Reply::new(200).body(content(5000)).cut(0));
    let error = read_all(&server.client(Access::Pull, None), &content(5000)).unwrap_err();
    assert_eq!(server.seen().len(), 6, "{error}");
}

#[test]
fn a_wrong_range_or_length_is_refused_at_once() {
    let server = Server::new(|request, _| match request.header("range") {
        None => Reply::new(200).body(content(5000)).cut(1000),
        Some(_) => Reply::new(206)
            .header("Content-Range", "bytes 7-4999/5000")
            .body(content(4993)),
    });
    assert!(read_all(&server.client(Access::Pull, None), &content(5000)).is_err());
    assert_eq!(server.seen().len(), 2);
    let server = Server::new(|_, _| Reply::new(200).body(content(5001)));
    let error = read_all(&server.client(Access::Pull, None), &content(5000)).unwrap_err();
    assert!(
        error.to_string().contains("5001 bytes instead of 5000"),
        "{error}"
    );
}

#[test]
fn passing_trouble_is_waited_out() {
    let server = Server::new(|_, number| match number {
        0 => Reply::new(503),
        1 => Reply::new(429).header("Retry-After", "0"),
        2 => Reply::new(200).body(MANIFEST).cut(3),
        _ => Reply::new(200).body(MANIFEST),
    });
    assert_eq!(
        server
            .client(Access::Pull, None)
            .manifest("1")
            .unwrap()
            .bytes,
        MANIFEST
    );
    assert_eq!(server.seen().len(), 4);
}

#[test]
fn a_limit_of_hours_is_an_error_at_once() {
    let server = Server::new(|_, _| {
        Reply::new(429)
            .header("Retry-After", "21600")
            .body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#)
    });
    let error = server.client(Access::Pull, None).manifest("1").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("429 (TOOMANYREQUESTS: pull rate limit)"),
        "{error}"
    );
    assert_eq!(server.seen().len(), 1);
}

// security.md, S16 and S27.
#[test]
fn a_manifest_is_what_was_asked_for_and_no_longer_than_it_may_be() {
    let server = Server::new(|_, _| Reply::new(200).body(MANIFEST));
    let client = server.client(Access::Pull, None);
    assert!(client.manifest(&Digest::of(MANIFEST).to_string()).is_ok());
    let error = client
        .manifest(&Digest::of(b"other").to_string())
        .unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    let server = Server::new(|_, _| Reply::new(200).length(1 << 40).body(vec![b' '; 5 << 20]));
    let error = server.client(Access::Pull, None).manifest("1").unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn a_head_without_end_is_refused() {
    let server = Server::new(|_, _| {
        Reply::new(200)
            .header("X", "x".repeat(200_000))
            .body(MANIFEST)
    });
    let error = server.client(Access::Pull, None).manifest("1").unwrap_err();
    assert!(
        matches!(
            error,
            Error::Transport {
                source: Transport::Other(_),
                ..
            }
        ),
        "{error}"
    );
}

struct Bytes(Vec<u8>);

impl Source for Bytes {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(&self.0[offset as usize..]))
    }
}

/// A session that takes what comes, told by `patch` how.
fn upload_server(patch: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Server {
    Server::new(move |request, number| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("Location", "/v2/a/b/blobs/uploads/1?state=x"),
        "PUT" => Reply::new(201),
        _ => patch(request, number),
    })
}

#[test]
fn a_blob_goes_up_in_one_piece() {
    let bytes = content(70_000);
    let last = bytes.len() - 1;
    let server = upload_server(move |_, _| {
        Reply::new(202)
            .header("Location", "/v2/a/b/blobs/uploads/2")
            .header("Range", format!("0-{last}"))
    });
    let digest = Digest::of(&bytes);
    let client = server.client(Access::Push, None);
    assert_eq!(
        client
            .upload(&digest, bytes.len() as u64, &Bytes(bytes.clone()), None)
            .unwrap(),
        Uploaded::Sent
    );
    let seen = server.seen();
    assert_eq!(seen[2].path, "/v2/a/b/blobs/uploads/1?state=x");
    assert!(seen[2].body == bytes);
    assert_eq!(
        seen[3].path,
        format!("/v2/a/b/blobs/uploads/2?digest=sha256%3A{}", digest.hex())
    );
}

#[test]
fn a_registry_that_takes_less_at_once_gets_pieces() {
    let bytes = content(20 << 20);
    let got = Mutex::new(0);
    let server = upload_server(move |request, _| {
        let mut got = got.lock().unwrap();
        if request.body.len() > 10 << 20 {
            return Reply::new(413);
        }
        *got += request.body.len();
        Reply::new(if request.method == "GET" { 204 } else { 202 })
            .header("Location", "/v2/a/b/blobs/uploads/1")
            .header("Range", format!("0-{}", got.saturating_sub(1)))
    });
    let digest = Digest::of(&bytes);
    server
        .client(Access::Push, None)
        .upload(&digest, bytes.len() as u64, &Bytes(bytes), None)
        .unwrap();
    let pieces: Vec<_> = server
        .seen()
        .iter()
        .filter(|request| request.method == "PATCH")
        .map(|request| request.header("content-range").map(str::to_owned))
        .collect();
    assert_eq!(
        pieces,
        [
            None,
            Some("0-8388607".into()),
            Some("8388608-16777215".into()),
            Some("16777216-20971519".into())
        ]
    );
}

#[test]
fn an_upload_that_was_cut_goes_on_where_it_was() {
    let bytes = content(70_000);
    let server = upload_server(|request, number| match (request.method.as_str(), number) {
        ("PATCH", 2) => Reply::new(503),
        ("GET", _) => Reply::new(204)
            .header("Location", "/v2/a/b/blobs/uploads/1")
            .header("Range", "0-29999"),
        _ => Reply::new(202)
            .header("Location", "/v2/a/b/blobs/uploads/1")
            .header("Range", "0-69999"),
    });
    let digest = Digest::of(&bytes);
    server
        .client(Access::Push, None)
        .upload(&digest, bytes.len() as u64, &Bytes(bytes.clone()), None)
        .unwrap();
    let second = server
        .seen()
        .into_iter()
        .filter(|request| request.method == "PATCH")
        .nth(1)
        .unwrap();
    assert_eq!(second.header("content-range"), Some("30000-69999"));
    assert!(second.body == bytes[30_000..]);
}

#[test]
fn a_lost_session_begins_anew() {
    let bytes = content(1000);
    let server = upload_server(|request, number| match (request.method.as_str(), number) {
        ("PATCH", 2) => Reply::new(500),
        ("GET", _) => Reply::new(404),
        _ => Reply::new(202)
            .header("Location", "/v2/a/b/blobs/uploads/1")
            .header("Range", "0-999"),
    });
    let digest = Digest::of(&bytes);
    let how = server
        .client(Access::Push, None)
        .upload(&digest, 1000, &Bytes(bytes), None)
        .unwrap();
    assert_eq!(how, Uploaded::Sent);
    assert_eq!(
        server
            .seen()
            .iter()
            .filter(|request| request.method == "POST")
            .count(),
        2
    );
}

#[test]
fn a_mount_that_is_refused_is_a_session() {
    for (status, how) in [(201, Uploaded::Mounted), (202, Uploaded::Sent)] {
        let server = Server::new(move |request, _| match request.method.as_str() {
            "HEAD" => Reply::new(404),
            "POST" => Reply::new(status).header("Location", "/v2/a/b/blobs/uploads/1"),
            "PUT" => Reply::new(201),
            _ => Reply::new(202).header("Location", "/v2/a/b/blobs/uploads/1"),
        });
        let client = server.client(Access::Push, None);
        let digest = Digest::of(b"x");
        assert_eq!(
            client
                .upload(&digest, 1, &Bytes(b"x".to_vec()), Some("base/image"))
                .unwrap(),
            how
        );
        assert!(server.seen()[1].path.ends_with(&format!(
            "?mount=sha256%3A{}&from=base%2Fimage",
            digest.hex()
        )));
    }
}

#[test]
fn a_registry_that_stores_something_else_is_noticed() {
    let server = Server::new(|_, _| {
        Reply::new(201).header("Docker-Content-Digest", Digest::of(b"other").to_string())
    });
    let error = server
        .client(Access::Push, None)
        .put_manifest("1", "x/y", MANIFEST)
        .unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    // Debian's registry answers with sha256 whatever was asked for.
    let server = Server::new(|_, _| {
        Reply::new(201).header("Docker-Content-Digest", Digest::of(MANIFEST).to_string())
    });
    server
        .client(Access::Push, None)
        .put_manifest("1", "x/y", MANIFEST)
        .unwrap();
}
