//! `--ca-bundle`: certificates that RUN steps trust, and that reach neither image nor key.
//!
//! Where distributions keep their bundle the step sees ours, as a layer above the base and below what the step changes: a
//! step that installs certificates may replace the file, which a mount on it would forbid. Programs that are told by
//! a variable find it in /dev. A step that writes into the bundle, moves or copies it would take ours along, and fails instead.

use super::StepError;
use super::copy::NO_RULES;
use super::hidden::dress;
use super::run::{RunError, failed, make_folder};
use crate::tree::walk::{Excluding, walk};
use crate::tree::{Kind, Meta, Root};
use std::fs::Permissions;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a file that are compared at once.
const COMPARED_BYTES: usize = 64 * 1024;

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
pub(super) struct Trusted {
    /// Its directory.
    pub(super) lower: PathBuf,
}

impl Trusted {
    /// Covers the bundles of `below` by `bundle`, in the new folder `lower`; `None` where it has none.
    pub(super) fn cover(
        bundle: &[u8],
        below: &Root,
        lower: PathBuf,
    ) -> Result<Option<Self>, StepError> {
        let (mut covered, mut made) = (Vec::new(), Vec::new());
        for place in PLACES {
            let path = below.resolve(Path::new(place))?;
            let meta = below.meta(&path)?.filter(|meta| meta.kind == Kind::File);
            let Some(meta) = meta.filter(|_| !covered.contains(&path)) else {
                continue;
            };
            let file = lower.join(&path);
            folders(below, &path, &lower, &mut made)?;
            std::fs::write(&file, bundle).map_err(failed("write", &file))?;
            std::fs::set_permissions(&file, Permissions::from_mode(meta.mode))
                .map_err(failed("set permissions of", &file))?;
            covered.push(path);
        }
        // The deepest first: what is made in a directory changes its time.
        for (place, meta) in made.iter().rev() {
            dress(place, meta)?;
        }
        Ok((!covered.is_empty()).then_some(Self { lower }))
    }
}

/// Makes sure that nothing of `bundle` is in what a step changed: written into, moved or copied.
pub(super) fn check(bundle: &[u8], upper: &Root) -> Result<(), StepError> {
    let found = walk(upper, Path::new(""), "", &Excluding(&NO_RULES))?;
    let files = found.iter().filter(|found| found.meta.kind == Kind::File);
    for found in files.filter(|found| found.meta.size >= bundle.len() as u64) {
        let place = Path::new("/").join(&found.relative);
        let mut file = upper.open_file(&found.relative)?;
        if begins_with(&mut file, bundle).map_err(failed("read", &place))? {
            return Err(RunError::WroteBundle(place).into());
        }
    }
    Ok(())
}

/// Whether `file` begins with these bytes; most files differ in their first ones.
fn begins_with(file: &mut impl Read, bytes: &[u8]) -> io::Result<bool> {
    for chunk in bytes.chunks(COMPARED_BYTES) {
        let mut own = Vec::new();
        file.take(chunk.len() as u64).read_to_end(&mut own)?;
        if own != chunk {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes the directories above `path`, and says what each is to look like: the top one of an overlay's says what all are.
fn folders(
    below: &Root,
    path: &Path,
    lower: &Path,
    made: &mut Vec<(PathBuf, Meta)>,
) -> Result<(), StepError> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        let Some(meta) = below.meta(directory)? else {
            continue;
        };
        let place = make_folder(lower.join(directory))?;
        if !made.iter().any(|(known, _)| *known == place) {
            made.push((place, meta));
        }
    }
    Ok(())
}
