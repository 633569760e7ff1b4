//! Finding a registry's addresses without the C library: `/etc/hosts`, then
//! the name servers of `/etc/resolv.conf`.
//!
//! Our binaries are static, and `getaddrinfo(3)` would load the host's name
//! service libraries into them. What is kept of its behaviour: `hosts(5)`
//! first, `search`, `ndots`, `timeout`, `attempts` and `rotate` of
//! `resolv.conf(5)`, TCP after a truncated answer. What is not: `nsswitch.conf`
//! and its other sources (mDNS, LDAP).

use super::dns::{Answer, Family, Question};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Most bytes read of `/etc/hosts`: blocking lists reach 20 MB.
const HOSTS_BYTES_MAX: u64 = 64 << 20;

/// Most bytes read of `/etc/resolv.conf`.
const RESOLV_BYTES_MAX: u64 = 64 << 10;

/// Name servers used at most, as in `resolv.conf(5)`.
const NAMESERVERS_MAX: usize = 3;

/// Largest answer over UDP that we accept; without EDNS a server sends 512 at most.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// Addresses handed to the connector at most; it tries them in turn.
const ADDRESSES_MAX: usize = 16;

/// What `/etc/resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    nameservers: Vec<IpAddr>,
    search: Vec<String>,
    /// Dots from which on a name is tried as it is first.
    ndots: usize,
    timeout: Duration,
    attempts: u32,
    rotate: bool,
}

impl Settings {
    /// Parses `resolv.conf(5)`; lines that are not understood are skipped, as
    /// the C library does.
    #[must_use]
    pub(super) fn parse(text: &str) -> Self {
        let mut settings = Self {
            nameservers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => settings.nameservers.extend(words.next().and_then(server)),
                Some("search" | "domain") => settings.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| settings.option(word)),
                _ => {}
            }
        }
        settings.nameservers.truncate(NAMESERVERS_MAX);
        if settings.nameservers.is_empty() {
            settings.nameservers.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        settings
    }

    fn option(&mut self, word: &str) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let number = value.parse::<u32>().ok();
        match (name, number) {
            ("ndots", Some(number)) => self.ndots = number.min(15) as usize,
            ("timeout", Some(number)) => {
                self.timeout = Duration::from_secs(u64::from(number.clamp(1, 30)))
            }
            ("attempts", Some(number)) => self.attempts = number.clamp(1, 5),
            ("rotate", _) => self.rotate = true,
            _ => {}
        }
    }

    /// The names to ask for in turn when the user wrote `name`.
    #[must_use]
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self
            .search
            .iter()
            .map(|domain| format!("{name}.{}", domain.trim_matches('.')))
            .collect();
        let as_it_is = name.to_owned();
        if name.matches('.').count() >= self.ndots {
            names.insert(0, as_it_is);
        } else {
            names.push(as_it_is);
        }
        names
    }
}

/// A name server's address; a zone (`fe80::1%eth0`) is not supported by our sockets.
fn server(word: &str) -> Option<IpAddr> {
    word.parse().ok()
}

/// The addresses that `hosts(5)` gives for `name`.
#[must_use]
pub(super) fn from_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words
                .any(|word| word.eq_ignore_ascii_case(name))
                .then_some(address)
        })
        .collect()
}

/// The resolver that our HTTP agents use.
#[derive(Debug, Clone)]
pub(super) struct HostResolver {
    hosts: PathBuf,
    resolv: PathBuf,
    /// Where name servers listen; another port only in tests.
    port: u16,
}

impl Default for HostResolver {
    fn default() -> Self {
        Self {
            hosts: "/etc/hosts".into(),
            resolv: "/etc/resolv.conf".into(),
            port: 53,
        }
    }
}

impl HostResolver {
    /// The addresses of `host` (a name or an address, IPv6 with or without brackets).
    ///
    /// # Errors
    /// `NotFound` when there is no such name, `TimedOut` when no server answered by `deadline`.
    pub(super) fn lookup(&self, host: &str, deadline: Option<Instant>) -> io::Result<Vec<IpAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let local = from_hosts(&read_some(&self.hosts, HOSTS_BYTES_MAX), bare);
        if !local.is_empty() {
            return Ok(local);
        }
        // RFC 6761, section 6.3: these never go to a name server.
        if super::realm::is_loopback(bare) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let settings = Settings::parse(&read_some(&self.resolv, RESOLV_BYTES_MAX));
        let mut silence = None;
        for name in settings.candidates(bare) {
            match self.ask_all(&settings, &name, deadline) {
                Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
                Ok(_) => {}
                Err(error) => silence = Some(error),
            }
        }
        Err(silence.unwrap_or_else(|| no_such_host(bare)))
    }

    /// Both families of one name; an error when no server gave an answer.
    fn ask_all(
        &self,
        settings: &Settings,
        name: &str,
        deadline: Option<Instant>,
    ) -> io::Result<Vec<IpAddr>> {
        let four = self.ask(settings, name, Family::V4, deadline);
        // A name without IPv4 addresses still may have IPv6 ones, and the other way.
        let six = self.ask(settings, name, Family::V6, deadline);
        match (four, six) {
            (Err(error), Err(_)) => Err(error),
            (four, six) => {
                let (mut all, six) = (four.unwrap_or_default(), six.unwrap_or_default());
                all.extend(six);
                Ok(all)
            }
        }
    }

    fn ask(
        &self,
        settings: &Settings,
        name: &str,
        family: Family,
        deadline: Option<Instant>,
    ) -> io::Result<Vec<IpAddr>> {
        let id = super::retry::random();
        let Some(question) = Question::new(id as u16, name, family) else {
            return Ok(Vec::new());
        };
        let count = settings.nameservers.len();
        let first = if settings.rotate {
            id as usize >> 16
        } else {
            0
        };
        let mut last = io::Error::new(io::ErrorKind::TimedOut, "no name server answered");
        for turn in 0..settings.attempts as usize * count {
            let server = SocketAddr::new(settings.nameservers[(first + turn) % count], self.port);
            let Some(patience) = patience(settings.timeout, deadline) else {
                break;
            };
            match exchange(server, &question, patience) {
                Ok(Answer::Addresses(addresses)) => return Ok(addresses),
                Ok(Answer::NoSuchName) => return Ok(Vec::new()),
                Ok(Answer::Truncated | Answer::Trouble) => {
                    last = io::Error::other(format!(
                        "name server {server} could not answer for {name}"
                    ));
                }
                Err(error) => {
                    last = io::Error::new(error.kind(), format!("name server {server}: {error}"));
                }
            }
        }
        Err(last)
    }
}

/// The time for one exchange; none when the deadline has passed.
fn patience(timeout: Duration, deadline: Option<Instant>) -> Option<Duration> {
    let left = deadline.map_or(timeout, |deadline| {
        deadline.saturating_duration_since(Instant::now())
    });
    (!left.is_zero()).then_some(left.min(timeout))
}

/// One question to one server: by datagram, by TCP when the answer does not fit.
fn exchange(server: SocketAddr, question: &Question, patience: Duration) -> io::Result<Answer> {
    let local: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(local)?;
    // Connected: the kernel drops datagrams from elsewhere and reports a closed port.
    socket.connect(server)?;
    socket.send(&question.message())?;
    let deadline = Instant::now() + patience;
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut datagram) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            other => other?,
        };
        match question.read(&datagram[..length]) {
            Some(Answer::Truncated) => return over_tcp(server, question, patience),
            Some(answer) => return Ok(answer),
            None => {} // a late or forged answer: keep waiting for ours
        }
    }
}

fn over_tcp(server: SocketAddr, question: &Question, patience: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let message = question.message();
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    question
        .read(&answer)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn no_such_host(host: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such host {host:?}"))
}

/// A small text file; empty when it cannot be read, as the C library takes it.
fn read_some(path: &Path, limit: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(limit).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the host has a route to `address`: connecting a datagram socket asks
/// the routing table and sends nothing.
fn has_route(address: &SocketAddr) -> bool {
    let local: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    UdpSocket::bind(local)
        .and_then(|socket| socket.connect(address))
        .is_ok()
}

impl Resolver for HostResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri
            .host()
            .ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let default = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let port = uri.port_u16().unwrap_or(default);
        let deadline = timeout.not_zero().map(|left| Instant::now() + *left);
        let addresses = self.lookup(host, deadline).map_err(ureq::Error::Io)?;
        let mut sockets: Vec<SocketAddr> = addresses
            .into_iter()
            .map(|address| SocketAddr::new(address, port))
            .collect();
        // Addresses without a route would only cost time: they come last.
        sockets.sort_by_key(|socket| !has_route(socket));
        let mut resolved = self.empty();
        for socket in sockets.into_iter().take(ADDRESSES_MAX) {
            resolved.push(socket);
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let text = "# comment\n; another\nnameserver 10.0.0.1\nnameserver 2001:db8::1\n\
                    search corp.example. lab.example\noptions ndots:2 timeout:1 attempts:9 rotate edns0\n\
                    nameserver fe80::1%eth0\nnameserver 10.0.0.3\nnameserver 10.0.0.4\nsortlist x\n";
        let settings = Settings::parse(text);
        let servers: Vec<IpAddr> = ["10.0.0.1", "2001:db8::1", "10.0.0.3"]
            .map(|text| text.parse().unwrap())
            .into();
        assert_eq!(settings.nameservers, servers);
        assert_eq!(
            (settings.ndots, settings.attempts, settings.rotate),
            (2, 5, true)
        );
        assert_eq!(settings.timeout, Duration::from_secs(1));
        assert_eq!(
            settings.candidates("registry.local"),
            [
                "registry.local.corp.example",
                "registry.local.lab.example",
                "registry.local"
            ]
        );
        assert_eq!(
            settings.candidates("a.b.c"),
            ["a.b.c", "a.b.c.corp.example", "a.b.c.lab.example"]
        );
        assert_eq!(settings.candidates("registry."), ["registry"]);
        assert_eq!(
            Settings::parse("").nameservers,
            [IpAddr::V4(Ipv4Addr::LOCALHOST)]
        );
    }

    #[test]
    fn hosts() {
        let text = "127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # six\n\
                    10.1.2.3 registry.corp Registry # x\n# 10.9.9.9 registry.corp\nbad line here\n";
        assert_eq!(
            from_hosts(text, "REGISTRY.corp"),
            ["10.1.2.3".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(from_hosts(text, "localhost").len(), 2);
        assert_eq!(from_hosts(text, "here"), [] as [IpAddr; 0]);
        assert_eq!(from_hosts(text, "x"), [] as [IpAddr; 0]);
    }

    /// A name server on loopback that answers with `reply` once by datagram,
    /// and then once by TCP with `long` if it is given.
    fn serve(reply: impl Fn(&[u8]) -> Vec<u8> + Send + 'static, long: bool) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        std::thread::spawn(move || {
            for _ in 0..2 {
                let mut question = [0; 512];
                let (length, from) = socket.recv_from(&mut question).unwrap();
                let mut answer = reply(&question[..length]);
                if long {
                    answer[2] |= 0x02;
                    socket.send_to(&answer, from).unwrap();
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut framed = vec![0; length + 2];
                    stream.read_exact(&mut framed).unwrap();
                    let answer = reply(&framed[2..]);
                    stream
                        .write_all(&(answer.len() as u16).to_be_bytes())
                        .unwrap();
                    stream.write_all(&answer).unwrap();
                } else {
                    socket.send_to(b"noise", from).unwrap();
                    socket.send_to(&answer, from).unwrap();
                }
            }
        });
        address.port()
    }

    /// Answers an A question with 10.0.0.9, an AAAA question with nothing.
    fn one_address(question: &[u8]) -> Vec<u8> {
        let mut answer = question.to_vec();
        answer[2] = 0x81;
        answer[3] = 0x80;
        if question[question.len() - 3] == 1 {
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 9]);
        }
        answer
    }

    fn resolver(port: u16) -> (tempfile::TempDir, HostResolver) {
        let folder = tempfile::tempdir().unwrap();
        let resolv = folder.path().join("resolv.conf");
        std::fs::write(
            &resolv,
            "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n",
        )
        .unwrap();
        let hosts = folder.path().join("hosts");
        std::fs::write(&hosts, "10.0.0.1 known.test\n").unwrap();
        (
            folder,
            HostResolver {
                hosts,
                resolv,
                port,
            },
        )
    }

    #[test]
    fn a_name_server_is_asked() {
        for long in [false, true] {
            let (_folder, resolver) = resolver(serve(one_address, long));
            let found = resolver.lookup("registry.test", None).unwrap();
            assert_eq!(
                found,
                ["10.0.0.9".parse::<IpAddr>().unwrap()],
                "long: {long}"
            );
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        let refuse = |question: &[u8]| {
            let mut answer = question.to_vec();
            answer[2] = 0x81;
            answer[3] = 0x83;
            answer
        };
        let (_folder, resolver) = resolver(serve(refuse, false));
        let error = resolver.lookup("nosuch.test", None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), "no such host \"nosuch.test\"");
    }

    #[test]
    fn hosts_and_loopback_need_no_server() {
        let (_folder, resolver) = resolver(1);
        assert_eq!(
            resolver.lookup("known.test", None).unwrap(),
            ["10.0.0.1".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(
            resolver.lookup("[::1]", None).unwrap(),
            [IpAddr::V6(Ipv6Addr::LOCALHOST)]
        );
        assert_eq!(
            resolver.lookup("x.localhost", None).unwrap()[0],
            Ipv4Addr::LOCALHOST
        );
    }
}
