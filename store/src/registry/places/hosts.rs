//! `hosts.toml` of containerd (its docs/hosts.md): hosts that serve a registry's images, each
//! with what it may be asked for, its authorities, our certificates.

use super::{Endpoint, PlaceError, Plan, Serves, api_host, read_file};
use crate::registry::trust::OwnFiles;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where containerd is usually told to look.
const FOLDER: &str = "/etc/containerd/certs.d";

/// What stands for every registry without a folder of its own.
const DEFAULT: &str = "_default";

/// One file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hosts {
    server: Option<String>,
    #[serde(flatten)]
    own: Host,
    host: toml::Table,
    /// Where the file is: paths in it begin there.
    #[serde(skip)]
    folder: PathBuf,
}

/// What is said of one host.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: bool,
    override_path: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

/// A file with certificate and key, several of them, or pairs.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Client {
    One(PathBuf),
    Many(Vec<CertificateAndKey>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum CertificateAndKey {
    Together(PathBuf),
    Pair(Vec<PathBuf>),
}

/// The file for `registry` in `folder`, or where containerd has it; none if there is none.
pub(super) fn read(folder: Option<&Path>, registry: &str) -> Result<Option<Hosts>, PlaceError> {
    let folder = folder.unwrap_or(Path::new(FOLDER));
    for name in names(registry) {
        let path = folder.join(&name).join("hosts.toml");
        if let Some(text) = read_file(&path)? {
            return parse(&text, &path).map(Some);
        }
    }
    Ok(None)
}

/// The names that a registry's folder may have: a colon cannot stand in every file system.
fn names(registry: &str) -> Vec<String> {
    if registry.contains('/') || registry.starts_with('.') {
        return Vec::new();
    }
    let mut names = vec![registry.to_owned()];
    if let Some((host, port)) = registry.rsplit_once(':') {
        names.insert(0, format!("{host}_{port}_"));
    }
    names.push(DEFAULT.to_owned());
    names
}

fn parse(text: &str, path: &Path) -> Result<Hosts, PlaceError> {
    let wrong = |why: String| PlaceError::Wrong {
        path: path.to_owned(),
        why,
    };
    let mut hosts: Hosts =
        toml::from_str(text).map_err(|error| wrong(error.to_string().trim().replace('\n', " ")))?;
    hosts.folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let all = hosts.host.keys().chain(&hosts.server);
    for address in all {
        if split(address).is_none() {
            return Err(wrong(format!("{address:?} is not the address of a host")));
        }
    }
    for (address, host) in &hosts.host {
        let host: Result<Host, _> = host.clone().try_into();
        host.map_err(|error| wrong(format!("host {address:?}: {}", error.message())))?;
    }
    Ok(hosts)
}

/// Adds the file's hosts as mirrors, and what it says of the registry itself.
pub(super) fn apply(hosts: Hosts, registry: &str, repository: &str, plan: &mut Plan) {
    for (address, host) in &hosts.host {
        let host: Host = host.clone().try_into().unwrap_or_default();
        let can = |what: &str| {
            host.capabilities
                .as_ref()
                .is_none_or(|list| list.iter().any(|one| one == what))
        };
        let serves = match (can("pull"), can("resolve")) {
            (true, true) => Serves::All,
            (true, false) => Serves::Digests,
            (false, true) => Serves::Tags,
            (false, false) => continue,
        };
        if let Some(mut endpoint) = endpoint(address, &host, repository, &hosts.folder) {
            endpoint.serves = serves;
            endpoint.stands_for = Some(registry.to_owned());
            plan.mirrors.push(endpoint);
        }
    }
    let server = hosts
        .server
        .clone()
        .unwrap_or_else(|| format!("https://{}", api_host(registry)));
    let said = hosts.server.is_some();
    if let Some(mut home) = endpoint(&server, &hosts.own, &plan.home.repository, &hosts.folder) {
        home.insecure |= plan.home.insecure;
        if !said {
            home.scheme = plan.home.scheme;
            home.host.clone_from(&plan.home.host);
        }
        plan.home = home;
    }
}

fn endpoint(address: &str, host: &Host, repository: &str, folder: &Path) -> Option<Endpoint> {
    let (scheme, authority, path) = split(address)?;
    let path = path.trim_end_matches('/');
    let path = if host.override_path || path.ends_with("/v2") {
        path.to_owned()
    } else {
        format!("{path}/v2")
    };
    let at = |path: &PathBuf| folder.join(path);
    let authorities = match &host.ca {
        None => Vec::new(),
        Some(OneOrMany::One(path)) => vec![at(path)],
        Some(OneOrMany::Many(paths)) => paths.iter().map(at).collect(),
    };
    let client = match &host.client {
        None => None,
        Some(Client::One(path)) => Some((at(path), at(path))),
        Some(Client::Many(list)) => list.first().and_then(|first| match first {
            CertificateAndKey::Together(path) => Some((at(path), at(path))),
            CertificateAndKey::Pair(paths) => match &paths[..] {
                [only] => Some((at(only), at(only))),
                [certificate, key, ..] => Some((at(certificate), at(key))),
                [] => None,
            },
        }),
    };
    Some(Endpoint {
        scheme: Some(scheme),
        path,
        insecure: host.skip_verify,
        files: OwnFiles {
            authorities,
            client,
        },
        ..Endpoint::plain(authority, repository)
    })
}

/// Scheme, host with port, and path of an address; https where no scheme is said.
fn split(address: &str) -> Option<(&'static str, &str, &str)> {
    let (scheme, rest) = match address.split_once("://") {
        Some(("https", rest)) => ("https", rest),
        Some(("http", rest)) => ("http", rest),
        Some(_) => return None,
        None => ("https", address),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (!host.is_empty() && !host.contains('@')).then_some((scheme, host, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(text: &str, registry: &str) -> Plan {
        let hosts = parse(text, Path::new("/x/certs.d/r/hosts.toml")).unwrap();
        let mut plan = Plan {
            mirrors: Vec::new(),
            home: Endpoint::plain(registry, "a/b"),
        };
        apply(hosts, registry, "a/b", &mut plan);
        plan
    }

    #[test]
    fn hosts_come_in_the_order_of_the_file() {
        let plan = planned(
            r#"
            server = "https://registry-1.docker.io"
            [host."https://z.test:5000"]
              capabilities = ["pull", "resolve"]
              ca = "z.crt"
              client = [["z.cert", "/abs/z.key"]]
            [host."http://a.test/proxy/hub"]
              capabilities = ["pull"]
              skip_verify = true
            [host."b.test/v2/own"]
              override_path = true
            [host."https://push.test"]
              capabilities = ["push"]
            "#,
            "docker.io",
        );
        let mirrors: Vec<_> = plan
            .mirrors
            .iter()
            .map(|one| (one.scheme.unwrap(), &*one.host, &*one.path, one.serves))
            .collect();
        assert_eq!(
            mirrors,
            [
                ("https", "z.test:5000", "/v2", Serves::All),
                ("http", "a.test", "/proxy/hub/v2", Serves::Digests),
                ("https", "b.test", "/v2/own", Serves::All),
            ]
        );
        assert_eq!(
            plan.mirrors[0].files,
            OwnFiles {
                authorities: vec!["/x/certs.d/r/z.crt".into()],
                client: Some(("/x/certs.d/r/z.cert".into(), "/abs/z.key".into())),
            }
        );
        assert_eq!(plan.mirrors[0].stands_for.as_deref(), Some("docker.io"));
        assert_eq!(plan.home.host, "registry-1.docker.io");
    }

    #[test]
    fn a_file_without_a_server_speaks_of_the_registry_itself() {
        let plan = planned(
            "skip_verify = true\nca = ['one.crt', 'two.crt']",
            "r.test:5000",
        );
        assert!(plan.home.insecure && plan.mirrors.is_empty());
        assert_eq!((&*plan.home.host, plan.home.scheme), ("r.test:5000", None));
        assert_eq!(plan.home.files.authorities.len(), 2);
        let plan = planned("server = 'http://r.test:81'", "r.test");
        assert_eq!(
            (&*plan.home.host, plan.home.scheme),
            ("r.test:81", Some("http"))
        );
    }

    #[test]
    fn folders_have_the_registrys_name_or_the_default() {
        assert_eq!(
            names("r.test:5000"),
            ["r.test_5000_", "r.test:5000", "_default"]
        );
        assert_eq!(names("r.test"), ["r.test", "_default"]);
        assert!(names("../x").is_empty());
        for bad in [
            "[host.'ftp://x']",
            "[host.'https://u@x']",
            "server = ''",
            "[host.'https://x']\nca = 7",
        ] {
            assert!(parse(bad, Path::new("x")).is_err(), "{bad}");
        }
    }
}
