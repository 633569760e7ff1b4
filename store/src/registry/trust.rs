//! Whom to trust at the other end of a TLS connection: the host's bundle of
//! root certificates, then `certs.d` folders for one registry (docker's and
//! podman's convention: `*.crt` is an authority, `*.cert` with `*.key` is what
//! we show of ourselves).

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Most bytes read of one file of certificates; Debian's bundle has 220 KiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where distributions keep the bundle; the first that exists is taken.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Folders that hold one folder a registry.
const CERTS_D: [&str; 3] = [
    "/etc/containers/certs.d",
    "/etc/docker/certs.d",
    "/etc/containerd/certs.d",
];

/// A file of certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read certificates from {path:?}")]
pub struct TrustError {
    path: PathBuf,
    source: io::Error,
}

/// What a configuration file says of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnFiles {
    /// Files with authorities.
    pub(super) authorities: Vec<PathBuf>,
    /// Our certificate for it, and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// What the user decides about TLS.
#[derive(Debug, Clone, Default)]
pub struct TrustOptions {
    /// Do not check certificates at all (`--tls-verify=false`).
    pub unverified: bool,
    /// A folder with this registry's certificates, besides the usual ones.
    pub cert_dir: Option<PathBuf>,
}

/// The TLS settings for `host` (with its port where it has one). What we show
/// of ourselves out of `--cert-dir` is for the registry alone (`is_registry`),
/// not for where it redirects.
///
/// # Errors
/// When a file that is there cannot be read or holds no PEM.
pub(super) fn tls_config(
    options: &TrustOptions,
    files: &OwnFiles,
    host: &str,
    is_registry: bool,
) -> Result<TlsConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = Vec::new();
    let mut own = None;
    if !options.unverified
        && let Some(bundle) = bundle()
    {
        roots.extend(certificates(&bundle)?);
    }
    for folder in folders(options, host) {
        let (authorities, client) = from_folder(&folder)?;
        roots.extend(authorities);
        if is_registry || is_usual(&folder) {
            own = client.or(own);
        }
    }
    if is_registry {
        for path in &files.authorities {
            roots.extend(certificates(path)?);
        }
        if let Some((certificate, key)) = &files.client {
            own = Some(client_certificate(certificate, key)?);
        }
    }
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::new_with_certs(&roots))
        .disable_verification(options.unverified)
        .client_cert(own)
        .build())
}

/// `SSL_CERT_FILE`, or the distribution's bundle.
fn bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let usual = || {
        BUNDLES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file())
    };
    named.map(PathBuf::from).or_else(usual)
}

fn folders(options: &TrustOptions, host: &str) -> Vec<PathBuf> {
    // The host comes from a parsed reference or address, so it is no path; a
    // test of the one thing that would matter costs nothing.
    let is_name = !host.contains('/') && !host.starts_with('.');
    let usual = CERTS_D
        .iter()
        .filter(|_| is_name)
        .map(|folder| Path::new(folder).join(host));
    usual.chain(options.cert_dir.clone()).collect()
}

type FolderContent = (Vec<Certificate<'static>>, Option<ClientCert>);

/// A folder that does not exist holds nothing; one the user named must exist.
fn from_folder(folder: &Path) -> Result<FolderContent, TrustError> {
    let in_file = |path: &Path| {
        let path = path.to_owned();
        move |source| TrustError { path, source }
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_usual(folder) => {
            return Ok((Vec::new(), None));
        }
        Err(error) => return Err(in_file(folder)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(in_file(folder))?.path());
    }
    paths.sort();
    let (mut authorities, mut client) = (Vec::new(), None);
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => authorities.extend(certificates(&path)?),
            Some("cert") => {
                client = Some(client_certificate(&path, &path.with_extension("key"))?);
            }
            _ => {}
        }
    }
    Ok((authorities, client))
}

/// What we show of ourselves.
fn client_certificate(certificate: &Path, key: &Path) -> Result<ClientCert, TrustError> {
    let chain = certificates(certificate)?;
    let key = private_key(key).map_err(|source| TrustError {
        path: key.to_owned(),
        source,
    })?;
    // The HTTP library takes for granted that they are good, and belong together.
    check_client(&chain, &key).map_err(|error| TrustError {
        path: certificate.to_owned(),
        source: io::Error::other(format!("it cannot be shown to a registry: {error}")),
    })?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn check_client(
    chain: &[Certificate<'static>],
    key: &PrivateKey<'static>,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = chain
        .iter()
        .map(|one| CertificateDer::from(one.der()).into_owned())
        .collect();
    let key = PrivateKeyDer::try_from(key.der())
        .map_err(|why| rustls::Error::General(why.to_owned()))?
        .clone_key();
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(chain, key)
        .map(|_| ())
}

fn is_usual(folder: &Path) -> bool {
    CERTS_D.iter().any(|usual| folder.starts_with(usual))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TrustError> {
    let wrong = |source| TrustError {
        path: path.to_owned(),
        source,
    };
    let bytes = read(path).map_err(wrong)?;
    let found: Vec<_> = parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(wrong(io::Error::other("there is no PEM certificate in it")));
    }
    Ok(found)
}

fn private_key(path: &Path) -> io::Result<PrivateKey<'static>> {
    PrivateKey::from_pem(&read(path)?).map_err(ureq::Error::into_io)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_the_user_names_must_exist_and_hold_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let options = |cert_dir: PathBuf| TrustOptions {
            unverified: true,
            cert_dir: Some(cert_dir),
        };
        assert!(
            tls_config(
                &options(folder.path().join("nosuch")),
                &OwnFiles::default(),
                "h.test",
                true
            )
            .is_err()
        );
        assert!(
            tls_config(
                &options(folder.path().to_owned()),
                &OwnFiles::default(),
                "h.test",
                true
            )
            .is_ok()
        );
        fs::write(folder.path().join("ca.crt"), "not PEM").unwrap();
        let error = tls_config(
            &options(folder.path().to_owned()),
            &OwnFiles::default(),
            "h.test",
            true,
        )
        .unwrap_err();
        assert!(error.to_string().contains("ca.crt"), "{error}");
    }

    #[test]
    fn a_host_is_never_a_path() {
        let options = TrustOptions::default();
        assert!(folders(&options, "../../tmp").is_empty());
        assert_eq!(folders(&options, "h.test:5000").len(), 3);
    }
}
