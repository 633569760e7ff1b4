//! `--ca-bundle`: certificates that RUN steps trust, and that reach neither image nor key.
//!
//! Where distributions keep their bundle the step sees ours, as a layer above the base and below what the step changes: a
//! step that installs certificates may replace the file, which a mount on it would forbid. Programs that are told by
//! a variable find it in /dev. A step that writes into the bundle would take ours along, and fails instead.

use super::StepError;
use super::run::{RunError, failed, make_folder};
use crate::tree::{Kind, Root};
use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Where distributions keep all certificates in one file.
const PLACES: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// Variables that tell programs of such a file: of OpenSSL, curl, Python's requests and pip, node, git, cargo, AWS's tools.
pub(super) const VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// Where the variables lead: /dev is the container's own.
pub(super) const TARGET: &str = "/dev/ca-bundle.pem";

/// A layer that covers the bundles of a base.
#[derive(Debug)]
pub(super) struct Trusted<'a> {
    bundle: &'a [u8],
    /// Its directory.
    pub(super) lower: PathBuf,
    covered: Vec<PathBuf>,
}

impl<'a> Trusted<'a> {
    /// Covers the bundles of `below`, in the new folder `lower`; `None` where it has none.
    pub(super) fn cover(
        bundle: &'a [u8],
        below: &Root,
        lower: PathBuf,
    ) -> Result<Option<Self>, StepError> {
        let mut covered = Vec::new();
        for place in PLACES {
            let path = below.resolve(Path::new(place))?;
            let meta = below.meta(&path)?.filter(|meta| meta.kind == Kind::File);
            let Some(meta) = meta.filter(|_| !covered.contains(&path)) else {
                continue;
            };
            let file = lower.join(&path);
            folders(below, &path, &lower)?;
            std::fs::write(&file, bundle).map_err(failed("write", &file))?;
            std::fs::set_permissions(&file, Permissions::from_mode(meta.mode))
                .map_err(failed("set permissions of", &file))?;
            covered.push(path);
        }
        Ok((!covered.is_empty()).then_some(Self {
            bundle,
            lower,
            covered,
        }))
    }

    /// Makes sure that nothing of ours is in what the step changed.
    pub(super) fn check(&self, upper: &Root) -> Result<(), StepError> {
        for path in &self.covered {
            let meta = upper.meta(path)?;
            if meta.is_none_or(|meta| meta.kind != Kind::File) {
                continue;
            }
            let mut begin = Vec::new();
            let place = Path::new("/").join(path);
            let file = upper.open_file(path)?;
            file.take(self.bundle.len() as u64)
                .read_to_end(&mut begin)
                .map_err(failed("read", &place))?;
            if begin == self.bundle {
                return Err(RunError::WroteBundle(place).into());
            }
        }
        Ok(())
    }
}

/// Makes the directories above `path`, as they are below: the top one of an overlay's says what all are.
fn folders(below: &Root, path: &Path, lower: &Path) -> Result<(), StepError> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        let Some(meta) = below.meta(directory)? else {
            continue;
        };
        let place = make_folder(lower.join(directory))?;
        // Whoever has one id cannot give it away; then it is root's, for this step.
        let _ = chown(&place, Some(meta.uid), Some(meta.gid));
        std::fs::set_permissions(&place, Permissions::from_mode(meta.mode))
            .map_err(failed("set permissions of", &place))?;
    }
    Ok(())
}
