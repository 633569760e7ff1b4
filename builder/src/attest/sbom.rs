//! An SPDX document (version 2.3) of what the package databases in an image list: dpkg's, those
//! of images without dpkg (`status.d`), apk's and pacman's. A database that is there and is not read is
//! named in the document: who reads it knows what is missing.

use super::{Predicate, escaped};
use crate::tree::{Kind, Root, TreeError};
use rustix::io::Errno;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest database that is read, in bytes. Debian's with ten thousand packages has 15 MB.
const DATABASE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Where package managers whose databases are not read keep them.
const UNREAD: [(&str, &str); 9] = [
    ("rpm", "var/lib/rpm/rpmdb.sqlite"),
    ("rpm", "var/lib/rpm/Packages.db"),
    ("rpm", "var/lib/rpm/Packages"),
    ("rpm", "usr/lib/sysimage/rpm/rpmdb.sqlite"),
    ("rpm", "usr/lib/sysimage/rpm/Packages.db"),
    ("rpm", "usr/lib/sysimage/rpm/Packages"),
    ("portage", "var/db/pkg"),
    ("xbps", "var/db/xbps"),
    ("nix", "nix/var/nix/db/db.sqlite"),
];

/// What the databases of an image say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The packages, each once.
    pub packages: Vec<Package>,
    /// The distribution's id, and its version where it has one.
    pub distribution: (String, Option<String>),
    /// Databases that are there and were not read: whose, and where.
    pub unread: Vec<(&'static str, &'static str)>,
}

/// A package as its database lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// `deb`, `apk` or `alpm`; package-url's type.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it runs on, in the distribution's words.
    pub architecture: String,
    /// Its licence as the database says it.
    pub license: Option<String>,
}

/// What the package databases of a tree list.
///
/// # Errors
/// The tree cannot be read, or a database is larger than any is. One that is not there lists nothing.
pub fn inventory(tree: &Root) -> Result<Inventory, TreeError> {
    let mut packages = dpkg(&text(tree, Path::new("var/lib/dpkg/status"))?);
    for path in entries(tree, "var/lib/dpkg/status.d")? {
        // Beside each lie the checksums of its files.
        if path
            .extension()
            .is_none_or(|extension| extension != "md5sums")
        {
            packages.extend(dpkg(&text(tree, &path)?));
        }
    }
    for database in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        packages.extend(apk(&text(tree, Path::new(database))?));
    }
    for path in entries(tree, "var/lib/pacman/local")? {
        packages.extend(pacman(&text(tree, &path.join("desc"))?));
    }
    packages.sort();
    packages.dedup();
    let release = text(tree, Path::new("etc/os-release"))?;
    let field = |name: &str| {
        let mut lines = release.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    let mut unread = Vec::new();
    for (manager, path) in UNREAD {
        let place = tree.resolve(Path::new(path))?;
        if tree.meta(&place)?.is_some() {
            unread.push((manager, path));
        }
    }
    Ok(Inventory {
        packages,
        distribution: (
            field("ID").unwrap_or_else(|| "linux".to_owned()),
            field("VERSION_ID"),
        ),
        unread,
    })
}

/// What lies in a directory; nothing where there is none.
fn entries(tree: &Root, path: &str) -> Result<Vec<PathBuf>, TreeError> {
    let path = tree.resolve(Path::new(path))?;
    if !tree.meta(&path)?.is_some_and(|meta| meta.is_directory()) {
        return Ok(Vec::new());
    }
    let listing = tree.list(&path)?;
    Ok(listing.iter().map(|(name, _)| path.join(name)).collect())
}

fn text(tree: &Root, path: &Path) -> Result<String, TreeError> {
    let path = tree.resolve(path)?;
    let fail = |source| TreeError {
        action: "read",
        path: Path::new("/").join(&path),
        source,
    };
    if !tree
        .meta(&path)?
        .is_some_and(|meta| meta.kind == Kind::File)
    {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    let file = tree.open_file(&path)?;
    let read = file.take(DATABASE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| fail(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    // Half of a list would pass for all of it.
    if bytes.len() as u64 > DATABASE_BYTES_MAX {
        return Err(fail(Errno::FBIG));
    }
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

/// A line of `%FIELD%` and its values below it, up to an empty line; pacman's local database.
fn pacman(text: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find(|line| *line == name)?;
        let values: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        Some(values.join(" AND ")).filter(|value| !value.is_empty())
    };
    Some(Package {
        kind: "alpm",
        name: field("%NAME%")?,
        version: field("%VERSION%")?,
        architecture: field("%ARCH%").unwrap_or_default(),
        license: field("%LICENSE%"),
    })
}

/// The document. The same packages and time give the same bytes.
pub fn sbom(inventory: &Inventory, created: &str, about: &str) -> Predicate {
    let packages = &inventory.packages;
    let described: Vec<Value> = packages
        .iter()
        .enumerate()
        .map(|(index, package)| package.describe(index, &inventory.distribution))
        .collect();
    let contains = |index: usize| {
        json!({
            "spdxElementId": "SPDXRef-DOCUMENT",
            "relationshipType": "DESCRIBES",
            "relatedSpdxElement": format!("SPDXRef-Package-{index}"),
        })
    };
    let relationships: Vec<Value> = (0..packages.len()).map(contains).collect();
    let mut content = json!({
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
    });
    if let Some(missing) = inventory.missing() {
        content["comment"] = json!(missing);
    }
    Predicate {
        kind: "https://spdx.dev/Document",
        content,
        referrer: false,
    }
}

impl Inventory {
    /// What the image has and the list has not, in words.
    pub fn missing(&self) -> Option<String> {
        let unread = self.unread.iter();
        let names: Vec<String> = unread
            .map(|(manager, path)| format!("{manager}'s, /{path}"))
            .collect();
        (!names.is_empty()).then(|| {
            format!(
                "incomplete: the image has package databases that are not read, and their packages are not listed ({})",
                names.join("; ")
            )
        })
    }
}

impl Package {
    fn describe(&self, index: usize, distribution: &(String, Option<String>)) -> Value {
        let (kind, name, version) = (self.kind, escaped(&self.name), escaped(&self.version));
        let architecture = escaped(&self.architecture);
        let id = escaped(&distribution.0);
        // By this the databases of known flaws tell a distribution's versions apart.
        let release = distribution.1.as_ref().map(|version| {
            let version = escaped(version);
            format!("&distro={id}-{version}")
        });
        let release = release.unwrap_or_default();
        let locator = format!("pkg:{kind}/{id}/{name}@{version}?arch={architecture}{release}");
        let mut described = json!({
            "SPDXID": format!("SPDXRef-Package-{index}"),
            "name": self.name,
            "versionInfo": self.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseDeclared": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": locator,
            }],
        });
        if let Some(license) = &self.license {
            described["licenseComments"] = json!(license);
        }
        described
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
        put("etc/os-release", "NAME=x\nID=debian\nVERSION_ID=\"12\"\n");
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
        put(
            "var/lib/pacman/local/zlib-1/desc",
            "%NAME%\nzlib\n\n%VERSION%\n1:1.3-2\n\n%ARCH%\nx86_64\n\n%LICENSE%\nZlib\nMIT\n",
        );
        put("var/lib/rpm/rpmdb.sqlite", "");
        let found = inventory(&Root::open(dir.path()).unwrap()).unwrap();
        let names: Vec<&str> = found
            .packages
            .iter()
            .map(|package| package.name.as_str())
            .collect();
        assert_eq!(names, ["zlib", "musl", "libc6", "tzdata"]);
        let document = sbom(&found, "1980-01-01T00:00:00Z", "x").content;
        let locator = |index: usize| {
            document["packages"][index]["externalRefs"][0]["referenceLocator"].as_str()
        };
        assert_eq!(
            locator(2),
            Some("pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12")
        );
        assert_eq!(document["packages"][0]["licenseComments"], "Zlib AND MIT");
        assert!(document["packages"][2].get("licenseComments").is_none());
        assert_eq!(document["relationships"].as_array().unwrap().len(), 4);
        let comment = document["comment"].as_str().unwrap();
        assert!(
            comment.contains("rpm's, /var/lib/rpm/rpmdb.sqlite"),
            "{comment}"
        );
    }

    #[test]
    fn what_is_not_there_lists_nothing_and_what_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let none = inventory(&root).unwrap();
        assert!(none.packages.is_empty() && none.missing().is_none());
        std::fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        let status = std::fs::File::create(dir.path().join("var/lib/dpkg/status")).unwrap();
        status.set_len(DATABASE_BYTES_MAX + 1).unwrap();
        assert!(inventory(&root).is_err());
    }
}
