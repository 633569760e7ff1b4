//! `registries.conf` of podman, skopeo and buildah (containers-registries.conf(5),
//! version 2 of its format, and what version 1 could say): mirrors, other places, insecure and blocked registries.

use super::{Endpoint, PlaceError, Plan, Serves, read_file};
use crate::registry::Error;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The system's file, and the folder of its drop-ins.
const SYSTEM: [&str; 2] = [
    "/etc/containers/registries.conf",
    "/etc/containers/registries.conf.d",
];

/// Most drop-ins that are read.
const DROP_INS_MAX: usize = 256;

/// One `[[registry]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Text {
    registry: Vec<Registry>,
    /// The lists of version 1.
    registries: Option<Lists>,
}

/// `[registries.insecure]` and so on. Where unqualified names are looked up (`search`) makes no difference here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lists {
    insecure: List,
    block: List,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    registries: Vec<String>,
}

impl Lists {
    /// The same in the words of version 2.
    fn into_registries(self) -> Vec<Registry> {
        let mut found: Vec<Registry> = Vec::new();
        let insecure = self
            .insecure
            .registries
            .into_iter()
            .map(|name| (name, false));
        let blocked = self.block.registries.into_iter().map(|name| (name, true));
        for (location, blocked) in insecure.chain(blocked) {
            match found.iter_mut().find(|other| other.location == location) {
                Some(other) => other.blocked |= blocked,
                None => found.push(Registry {
                    location,
                    insecure: !blocked,
                    blocked,
                    ..Registry::default()
                }),
            }
        }
        found
    }
}

impl Registry {
    /// What names must begin with; the location where nothing else is said.
    fn prefix(&self) -> &str {
        if self.prefix.is_empty() {
            &self.location
        } else {
            &self.prefix
        }
    }
}

/// The registries that the files tell of: those of `named`, or of the usual ones.
pub(super) fn read(named: Option<&Path>) -> Result<Vec<Registry>, PlaceError> {
    if let Some(path) = named {
        let text = read_file(path)?.ok_or_else(|| PlaceError::Read {
            path: path.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        return parse(&text, path);
    }
    let own = own_files();
    let main = own.iter().find(|path| path.is_file()).cloned();
    let mut files = vec![main.unwrap_or_else(|| SYSTEM[0].into())];
    files.extend(drop_ins(Path::new(SYSTEM[1])));
    if let Some(path) = own.first() {
        files.extend(drop_ins(&path.with_extension("conf.d")));
    }
    let mut known: Vec<Registry> = Vec::new();
    for path in files {
        let Some(text) = read_file(&path)? else {
            continue;
        };
        // A later file's word about a prefix replaces the earlier one's.
        for registry in parse(&text, &path)? {
            known.retain(|other| other.prefix() != registry.prefix());
            known.push(registry);
        }
    }
    Ok(known)
}

/// An ordinary user's own file, which stands before the system's.
fn own_files() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
    config
        .map(|folder| folder.join("containers/registries.conf"))
        .into_iter()
        .collect()
}

fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .take(DROP_INS_MAX)
        .collect();
    paths.sort();
    paths
}

fn parse(text: &str, path: &Path) -> Result<Vec<Registry>, PlaceError> {
    let wrong = |why: String| PlaceError::Wrong {
        path: path.to_owned(),
        why,
    };
    let mut parsed: Text =
        toml::from_str(text).map_err(|error| wrong(error.to_string().trim().replace('\n', " ")))?;
    if let Some(lists) = parsed.registries.take() {
        // As containers-registries.conf(5) has it.
        if !parsed.registry.is_empty() {
            return Err(wrong(
                "it mixes versions 1 ([registries.…]) and 2 ([[registry]])".into(),
            ));
        }
        parsed.registry = lists.into_registries();
    }
    for registry in &parsed.registry {
        if registry.prefix().is_empty() {
            return Err(wrong(
                "a [[registry]] has neither prefix nor location".into(),
            ));
        }
        if registry
            .mirror
            .iter()
            .any(|mirror| mirror.location.is_empty())
        {
            return Err(wrong(format!(
                "a mirror of {} has no location",
                registry.prefix()
            )));
        }
    }
    Ok(parsed.registry)
}

/// Whom to ask for `registry/repository`: the longest prefix decides.
pub(super) fn plan(known: &[Registry], registry: &str, repository: &str) -> Result<Plan, Error> {
    let name = format!("{registry}/{repository}");
    let matching = known
        .iter()
        .filter(|entry| matched(entry.prefix(), &name).is_some())
        .max_by_key(|entry| entry.prefix().len());
    let Some(entry) = matching else {
        return Ok(Plan {
            mirrors: Vec::new(),
            home: Endpoint::plain(registry, repository),
        });
    };
    if entry.blocked {
        return Err(Error::Blocked {
            host: registry.to_owned(),
            prefix: entry.prefix().to_owned(),
        });
    }
    let rest = matched(entry.prefix(), &name).unwrap_or_default();
    let at = |location: &str, insecure: bool| {
        // A wildcard has no place of its own: the name stays as it is.
        let full = if location.is_empty() {
            name.clone()
        } else {
            format!("{location}{rest}")
        };
        let (host, repository) = full.split_once('/').unwrap_or((&full, repository));
        Endpoint {
            insecure,
            ..Endpoint::plain(host, repository)
        }
    };
    let mirrors = entry.mirror.iter().map(|mirror| Endpoint {
        serves: match mirror.pull_from_mirror.as_str() {
            "digest-only" => Serves::Digests,
            "tag-only" => Serves::Tags,
            _ if entry.mirror_by_digest_only => Serves::Digests,
            _ => Serves::All,
        },
        ..at(&mirror.location, mirror.insecure)
    });
    Ok(Plan {
        mirrors: mirrors.collect(),
        home: at(&entry.location, entry.insecure),
    })
}

/// What of `name` follows `prefix`, if it begins with it at a boundary; `*.host` matches hosts below.
fn matched<'n>(prefix: &str, name: &'n str) -> Option<&'n str> {
    if let Some(suffix) = prefix.strip_prefix('*') {
        let (host, rest) = name.split_at(name.find('/')?);
        return host.ends_with(suffix).then_some(rest);
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.test:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "second.test"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/team"
        location = "internal.test/their/team"
        insecure = true
        [[registry]]
        prefix = "*.evil.test"
        blocked = true
    "#;

    fn planned(registry: &str, repository: &str) -> Result<Plan, Error> {
        let known = parse(TEXT, Path::new("x")).unwrap();
        plan(&known, registry, repository)
    }

    #[test]
    fn the_longest_prefix_says_where_to_go() {
        let hub = planned("docker.io", "library/alpine").unwrap();
        let places: Vec<_> = hub
            .mirrors
            .iter()
            .map(|mirror| {
                (
                    &*mirror.host,
                    &*mirror.repository,
                    mirror.insecure,
                    mirror.serves,
                )
            })
            .collect();
        assert_eq!(
            places,
            [
                ("mirror.test:5000", "hub/library/alpine", true, Serves::All),
                ("second.test", "library/alpine", false, Serves::Digests)
            ]
        );
        assert_eq!(hub.home.host, "registry-1.docker.io");
        let team = planned("docker.io", "team/app").unwrap();
        assert_eq!(
            (&*team.home.host, &*team.home.repository, team.home.insecure),
            ("internal.test", "their/team/app", true)
        );
        assert!(team.mirrors.is_empty());
        // Not at a boundary of the path.
        assert_eq!(
            planned("docker.io", "teamwork/app").unwrap().mirrors.len(),
            2
        );
        assert_eq!(planned("other.test", "a").unwrap().home.host, "other.test");
    }

    #[test]
    fn blocked_registries_are_not_asked() {
        assert!(matches!(
            planned("a.evil.test", "x"),
            Err(Error::Blocked { .. })
        ));
        assert!(planned("evil.test", "x").is_ok());
    }

    #[test]
    fn the_lists_of_version_1() {
        let text = "[registries.search]\nregistries = ['quay.test']\n[registries.insecure]\nregistries = ['in.test:5000', 'both.test']\n[registries.block]\nregistries = ['both.test', 'evil.test']";
        let known = parse(text, Path::new("x")).unwrap();
        let asked = |host: &str| plan(&known, host, "a").map(|plan| plan.home.insecure);
        assert!(asked("in.test:5000").unwrap());
        assert!(!asked("quay.test").unwrap());
        for host in ["both.test", "evil.test"] {
            assert!(matches!(asked(host), Err(Error::Blocked { .. })), "{host}");
        }
    }

    #[test]
    fn wrong_files_are_named() {
        for text in [
            "[registries.block]\nregistries = ['a.test']\n[[registry]]\nlocation = 'b.test'",
            "[[registry]]\ninsecure = true",
            "[[registry]]\nlocation = 7",
            "x =",
        ] {
            let error = parse(text, Path::new("/x/registries.conf")).unwrap_err();
            assert!(error.to_string().contains("registries.conf"), "{error}");
        }
        assert_eq!(parse("", Path::new("x")).unwrap(), []);
    }
}
