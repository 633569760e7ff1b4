//! An SPDX document (version 2.3) of what the package databases in an image list: dpkg's, those
//! of images without dpkg (`status.d`), and apk's.

use super::{Predicate, escaped};
use crate::tree::{Root, TreeError};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest database that is read, in bytes. Debian's with ten thousand packages has 15 MB.
const DATABASE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A package as its database lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// `deb` or `apk`; package-url's type.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it runs on, in the distribution's words.
    pub architecture: String,
    /// Its licence as the database says it; apk's does.
    pub license: Option<String>,
}

/// The packages of a tree, and the distribution's id.
///
/// # Errors
/// The tree cannot be read. A database that is not there lists nothing.
pub fn packages(tree: &Root) -> Result<(Vec<Package>, String), TreeError> {
    let mut found = dpkg(&text(tree, Path::new("var/lib/dpkg/status"))?);
    let parts = Path::new("var/lib/dpkg/status.d");
    if tree.meta(parts)?.is_some_and(|meta| meta.is_directory()) {
        for (name, _) in tree.list(parts)?.iter() {
            let path: PathBuf = parts.join(name);
            // Beside each lie the checksums of its files.
            if path
                .extension()
                .is_none_or(|extension| extension != "md5sums")
            {
                found.extend(dpkg(&text(tree, &path)?));
            }
        }
    }
    found.extend(apk(&text(tree, Path::new("lib/apk/db/installed"))?));
    found.sort();
    found.dedup();
    let release = text(tree, Path::new("etc/os-release"))?;
    let id = release.lines().find_map(|line| line.strip_prefix("ID="));
    Ok((found, id.unwrap_or("linux").trim_matches('"').to_owned()))
}

fn text(tree: &Root, path: &Path) -> Result<String, TreeError> {
    let path = tree.resolve(path)?;
    if !tree
        .meta(&path)?
        .is_some_and(|meta| meta.kind == crate::tree::Kind::File)
    {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    tree.open_file(&path)?
        .take(DATABASE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| crate::tree::TreeError {
            action: "read",
            path: Path::new("/").join(&path),
            source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
        })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Paragraphs of `Field: value`; dpkg(1), deb-control(5). What was removed and left its
/// configuration is listed with another status.
fn dpkg(text: &str) -> Vec<Package> {
    let package = |paragraph: &str| {
        let field = |name: &str| {
            let line = paragraph
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let installed = field("Status").is_none_or(|status| status.ends_with(" installed"));
        installed.then_some(())?;
        Some(Package {
            kind: "deb",
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture").unwrap_or_default(),
            license: None,
        })
    };
    text.split("\n\n").filter_map(package).collect()
}

/// Paragraphs of `P:name`; apk-tools, "installed database".
fn apk(text: &str) -> Vec<Package> {
    let package = |paragraph: &str| {
        let field = |name: &str| {
            let line = paragraph.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::to_owned)
        };
        Some(Package {
            kind: "apk",
            name: field("P:")?,
            version: field("V:")?,
            architecture: field("A:").unwrap_or_default(),
            license: field("L:"),
        })
    };
    text.split("\n\n").filter_map(package).collect()
}

/// The document. The same packages and time give the same bytes.
pub fn sbom(packages: &[Package], distribution: &str, created: &str, about: &str) -> Predicate {
    let described: Vec<Value> = packages
        .iter()
        .enumerate()
        .map(|(index, package)| package.describe(index, distribution))
        .collect();
    let contains = |index: usize| {
        json!({
            "spdxElementId": "SPDXRef-DOCUMENT",
            "relationshipType": "DESCRIBES",
            "relatedSpdxElement": format!("SPDXRef-Package-{index}"),
        })
    };
    let relationships: Vec<Value> = (0..packages.len()).map(contains).collect();
    Predicate {
        kind: "https://spdx.dev/Document",
        content: json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": about,
            "documentNamespace": format!("urn:teu:sbom:{about}"),
            "creationInfo": {
                "created": created,
                "creators": [concat!("Tool: teu-build-", env!("CARGO_PKG_VERSION"))],
            },
            "packages": described,
            "relationships": relationships,
        }),
    }
}

impl Package {
    fn describe(&self, index: usize, distribution: &str) -> Value {
        let (kind, name, version) = (self.kind, escaped(&self.name), escaped(&self.version));
        let architecture = escaped(&self.architecture);
        let locator = format!("pkg:{kind}/{distribution}/{name}@{version}?arch={architecture}");
        json!({
            "SPDXID": format!("SPDXRef-Package-{index}"),
            "name": self.name,
            "versionInfo": self.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseDeclared": "NOASSERTION",
            "licenseComments": self.license,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": locator,
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("etc/os-release", "NAME=x\nID=debian\n");
        put(
            "var/lib/dpkg/status",
            "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u1\nDescription: C\n more\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
        );
        put(
            "var/lib/dpkg/status.d/tzdata",
            "Package: tzdata\nVersion: 2024a\nArchitecture: all\n",
        );
        put("var/lib/dpkg/status.d/tzdata.md5sums", "0 f\n");
        put(
            "lib/apk/db/installed",
            "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n\n",
        );
        let (packages, id) = packages(&Root::open(dir.path()).unwrap()).unwrap();
        let names: Vec<&str> = packages
            .iter()
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(
            (names, id.as_str()),
            (vec!["musl", "libc6", "tzdata"], "debian")
        );
        let document = sbom(&packages, &id, "1980-01-01T00:00:00Z", "x").content;
        assert_eq!(
            document["packages"][1]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64"
        );
        assert_eq!(document["relationships"].as_array().unwrap().len(), 3);
        let empty = tempfile::tempdir().unwrap();
        let (none, _) = super::packages(&Root::open(empty.path()).unwrap()).unwrap();
        assert!(none.is_empty());
    }
}
