//! Debian's registry and a token server for it, each for one scene.
#![allow(dead_code, reason = "not every suite uses every peer")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use teu_integration_tests::Scene;

/// Where registries listen; each scene has loopback for itself.
const PORT: u16 = 5000;

/// Where the token server listens.
const TOKEN_PORT: u16 = 5001;

/// What `teu-store images` says about the image of this name.
pub(crate) fn stored(scene: &Scene, name: &str) -> Value {
    let lines = scene
        .run("teu-store", ["images", "--format", "json"])
        .succeeds();
    lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|image| image["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not among {lines}"))
}

/// A registry; ended when dropped.
pub(crate) struct Registry {
    process: Child,
    host: String,
}

impl Registry {
    /// Plain http, for everyone.
    pub(crate) fn http(scene: &Scene) -> Self {
        Self::start(scene, &json!({}), &json!({}))
    }

    /// Plain http, for everyone, at an address of the scene's own (`[::1]:5007`); its content in a folder of its own.
    pub(crate) fn http_at(scene: &Scene, address: &str) -> Self {
        Self::start_at(scene, address, &json!({}), &json!({}))
    }

    /// TLS at an address, for those alone whose certificate the authority has signed; ours is in `own/`.
    pub(crate) fn with_client_certificates(scene: &Scene, address: &str) -> Self {
        certificates(scene);
        scene.shell(
            "mkdir own && openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout own/us.key -out client.csr 2>/dev/null\n\
             openssl x509 -req -in client.csr -CA authority/ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out own/us.cert 2>/dev/null",
        );
        let tls = json!({
            "certificate": scene.path("server.crt"), "key": scene.path("server.key"),
            "clientcas": [scene.path("authority/ca.crt")],
        });
        Self::start_at(scene, address, &json!({}), &tls)
    }

    /// TLS by an authority in `authority/ca.crt`, for one user.
    pub(crate) fn tls(scene: &Scene, user: &str, password: &str) -> Self {
        certificates(scene);
        scene.shell(&format!("htpasswd -Bbn {user} {password} > htpasswd"));
        let auth = json!({"htpasswd": {"realm": "test", "path": scene.path("htpasswd")}});
        let tls = json!({"certificate": scene.path("server.crt"), "key": scene.path("server.key")});
        Self::start(scene, &auth, &tls)
    }

    /// Plain http, with tokens from a server.
    pub(crate) fn with_tokens(scene: &Scene, tokens: &TokenServer) -> Self {
        let auth = json!({"token": {
            "realm": format!("http://127.0.0.1:{TOKEN_PORT}/token"), "service": "test",
            "issuer": "test", "rootcertbundle": tokens.certificate,
        }});
        Self::start(scene, &auth, &json!({}))
    }

    fn start(scene: &Scene, auth: &Value, tls: &Value) -> Self {
        let mut registry = Self::start_at(scene, &format!("127.0.0.1:{PORT}"), auth, tls);
        registry.host = format!("localhost:{PORT}");
        registry
    }

    fn start_at(scene: &Scene, address: &str, auth: &Value, tls: &Value) -> Self {
        let port = address.rsplit(':').next().unwrap();
        let folder = if port == PORT.to_string() {
            "registry".to_owned()
        } else {
            format!("registry-{port}")
        };
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": scene.path(&folder)}},
            "http": {"addr": address},
        });
        if auth.as_object().is_some_and(|auth| !auth.is_empty()) {
            config["auth"] = auth.clone();
        }
        if tls.as_object().is_some_and(|tls| !tls.is_empty()) {
            config["http"]["tls"] = tls.clone();
        }
        // JSON is YAML.
        let path = scene.write(format!("{folder}.yml"), config.to_string());
        let log = std::fs::File::create(scene.path(format!("{folder}.log"))).unwrap();
        let process = scene
            .command("docker-registry", ["serve".as_ref(), path.as_os_str()])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("start docker-registry (package docker-registry)");
        scene.wait_until("the registry listens", || {
            TcpStream::connect(address).is_ok()
        });
        Self {
            process,
            host: address.to_owned(),
        }
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.host.clone()
    }

    /// A full name at this registry.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Writes an index of images that were pushed as `repository:<platform with dashes>`; its digest.
    pub(crate) fn push_index(
        &self,
        scene: &Scene,
        repository: &str,
        tag: &str,
        platforms: &[&str],
    ) -> String {
        let entry = |platform: &&str| {
            let name = self.name(&format!("{repository}:{}", platform.replace('/', "-")));
            let raw = scene.shell(&format!("skopeo inspect --raw --tls-verify=false docker://{name} > raw; sha256sum < raw; wc -c < raw"));
            let mut words = raw.split_whitespace();
            let (digest, size) = (words.next().unwrap(), words.last().unwrap());
            let mut parts = platform.split('/');
            let mut entry = json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{digest}"), "size": size.parse::<u64>().unwrap(),
                "platform": {"os": parts.next(), "architecture": parts.next()},
            });
            if let Some(variant) = parts.next() {
                entry["platform"]["variant"] = json!(variant);
            }
            entry
        };
        let kind = "application/vnd.oci.image.index.v1+json";
        let entries: Vec<Value> = platforms.iter().map(entry).collect();
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries});
        scene.write("index.json", index.to_string());
        scene.shell(&format!(
            "curl -fsS -X PUT -H 'Content-Type: {kind}' --data-binary @index.json http://{}/v2/{repository}/manifests/{tag}",
            self.host()
        ));
        format!(
            "sha256:{}",
            scene.shell("sha256sum < index.json | cut -d ' ' -f 1")
        )
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An authority (`authority/ca.crt`) and a server's certificate for this machine.
fn certificates(scene: &Scene) {
    scene.shell(
        "mkdir -p authority\n\
         openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out authority/ca.crt 2>/dev/null\n\
         openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr 2>/dev/null\n\
         printf 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\\nbasicConstraints=CA:FALSE\\n' > extensions\n\
         openssl x509 -req -in server.csr -CA authority/ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.crt 2>/dev/null",
    );
}

/// Gives everyone a token to pull one repository, and one user a token to push to it.
pub(crate) struct TokenServer {
    certificate: std::path::PathBuf,
}

impl TokenServer {
    pub(crate) fn new(scene: &Scene, repository: &str, user: &str, password: &str) -> Self {
        scene.shell(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens -keyout token.key -out token.crt 2>/dev/null",
        );
        let pull = token(scene, repository, &["pull"]);
        let push = token(scene, repository, &["pull", "push"]);
        let password = scene.shell(&format!("printf '{user}:{password}' | base64"));
        let listener = TcpListener::bind(("127.0.0.1", TOKEN_PORT)).unwrap();
        // Ends with the test's process; the scene's network goes with it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|stream| answer(&stream, &password, &pull, &push));
            }
        });
        Self {
            certificate: scene.path("token.crt"),
        }
    }
}

/// What the token server gives in place of a password, to who asks for it.
pub(crate) const IDENTITY: &str = "1d3nt1ty";

fn answer(mut stream: &TcpStream, password: &str, pull: &str, push: &str) -> std::io::Result<()> {
    let (mut authorization, mut length, mut wants_identity) = (None, 0, false);
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        wants_identity |= line.starts_with("GET ") && line.contains("offline_token=true");
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = text.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
    let mut form = vec![0; length];
    reader.read_exact(&mut form)?;
    let is_refresh = String::from_utf8_lossy(&form).contains(&format!("refresh_token={IDENTITY}"));
    let (status, token) = match authorization
        .as_deref()
        .map(|value| value.strip_prefix("Basic "))
    {
        None if is_refresh => ("200 OK", push),
        None if length > 0 => ("401 Unauthorized", ""),
        None => ("200 OK", pull),
        Some(Some(given)) if given == password => ("200 OK", push),
        Some(_) => ("401 Unauthorized", ""),
    };
    let mut body = json!({"token": token, "expires_in": 300});
    if wants_identity && !token.is_empty() {
        body["refresh_token"] = json!(IDENTITY);
    }
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A token as the registry checks it: a JSON web token, signed by the certificate's key.
fn token(scene: &Scene, repository: &str, actions: &[&str]) -> String {
    let certificate = scene.shell("openssl x509 -in token.crt -outform DER | base64 -w 0");
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let claims = json!({
        "iss": "test", "sub": "", "aud": "test", "jti": "1", "iat": now - 60, "nbf": now - 60, "exp": now + 600,
        "access": [{"type": "repository", "name": repository, "actions": actions}],
    });
    scene.write("header", header.to_string());
    scene.write("claims", claims.to_string());
    scene.shell(
        "url() { base64 -w 0 | tr '+/' '-_' | tr -d '='; }\n\
         signed=$(url < header).$(url < claims)\n\
         printf '%s.%s' $signed $(printf '%s' $signed | openssl dgst -sha256 -sign token.key | url)",
    )
}
