//! Where a registry may send us for a token: the rules for a `realm`.
//!
//! The address comes from the registry, so a hostile one (or someone between)
//! could point us at a metadata service of the host's cloud, at another scheme,
//! or at a machine of theirs. A token server therefore must be `https` and of
//! the registry's own site, unless the user names its host.

use std::net::IpAddr;
use ureq::http::Uri;

/// Longest realm that is followed; real ones are under 200 bytes.
const REALM_BYTES_MAX: usize = 2048;

/// Why a realm is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRealm {
    /// It is no absolute http or https address.
    #[error("it is not an http or https address")]
    NotAnAddress,
    /// It is longer than any real one.
    #[error("it is longer than {REALM_BYTES_MAX} bytes")]
    TooLong,
    /// It would carry a password in the address.
    #[error("it holds a user name or password")]
    UserInfo,
    /// A token over http for a registry that speaks https.
    #[error("it is plain http")]
    PlainHttp,
    /// It is of another site.
    #[error("it is of another site than the registry; `--allow-realm` accepts a host by name")]
    OtherSite,
}

/// Judges the realm that the registry at `registry` (its address) sent.
///
/// # Errors
/// [`BadRealm`] with the rule that it breaks.
pub(super) fn judge(realm: &str, registry: &Uri, allowed: &[String]) -> Result<Uri, BadRealm> {
    if realm.len() > REALM_BYTES_MAX {
        return Err(BadRealm::TooLong);
    }
    let uri: Uri = realm.parse().map_err(|_| BadRealm::NotAnAddress)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(BadRealm::NotAnAddress);
    };
    if authority.as_str().contains('@') {
        return Err(BadRealm::UserInfo);
    }
    let host = authority.host().to_ascii_lowercase();
    let registry_host = registry.host().unwrap_or_default().to_ascii_lowercase();
    match scheme {
        "https" => {}
        "http" if registry.scheme_str() == Some("http") => {}
        "http" => return Err(BadRealm::PlainHttp),
        _ => return Err(BadRealm::NotAnAddress),
    }
    let named = allowed.iter().any(|name| {
        name.eq_ignore_ascii_case(&host) || name.eq_ignore_ascii_case(authority.as_str())
    });
    let both_loopback = is_loopback(&host) && is_loopback(&registry_host);
    if named || both_loopback || same_site(&host, &registry_host) {
        return Ok(uri);
    }
    Err(BadRealm::OtherSite)
}

/// Whether a host (as written in an address, IPv6 in brackets) is this machine.
#[must_use]
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether two hosts are under one name that one owner holds: `auth.docker.io`
/// and `registry-1.docker.io`, `gitlab.com` and `registry.gitlab.com`.
///
/// Without a list of public suffixes this is a guess on the careful side: two
/// common labels do, three where the last two look like `co.uk`.
fn same_site(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let is_address = |host: &str| host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    if is_address(one) || is_address(other) {
        return false;
    }
    let labels = |host: &str| -> Vec<String> { host.rsplit('.').map(str::to_owned).collect() };
    let (one, other) = (labels(one), labels(other));
    let common = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let registered = match one.as_slice() {
        [country, second, ..] if country.len() == 2 && second.len() <= 3 => 3,
        _ => 2,
    };
    common >= registered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(realm: &str, registry: &str) -> Result<(), BadRealm> {
        judge(realm, &registry.parse().unwrap(), &[]).map(|_| ())
    }

    #[test]
    fn real_pairs_are_followed() {
        for (realm, registry) in [
            (
                "https://auth.docker.io/token",
                "https://registry-1.docker.io",
            ),
            ("https://ghcr.io/token", "https://ghcr.io"),
            ("https://gitlab.com/jwt/auth", "https://registry.gitlab.com"),
            ("https://quay.io/v2/auth", "https://quay.io"),
            ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000"),
            ("http://localhost:5001/token", "http://[::1]:5000"),
            (
                "https://reg.corp.example:8443/t",
                "https://reg.corp.example:5000",
            ),
            ("http://10.0.0.5:81/t", "http://10.0.0.5:5000"),
        ] {
            assert_eq!(verdict(realm, registry), Ok(()), "{realm} for {registry}");
        }
    }

    #[test]
    fn hostile_realms_are_not() {
        let registry = "https://registry.example.com";
        for (realm, reason) in [
            (
                "http://169.254.169.254/latest/meta-data",
                BadRealm::PlainHttp,
            ),
            ("https://169.254.169.254/latest", BadRealm::OtherSite),
            ("file:///etc/shadow", BadRealm::NotAnAddress),
            ("gopher://registry.example.com/", BadRealm::NotAnAddress),
            ("/token", BadRealm::NotAnAddress),
            (
                "https://registry.example.com@evil.test/",
                BadRealm::UserInfo,
            ),
            ("https://evil.test/token", BadRealm::OtherSite),
            (
                "https://registry.example.com.evil.test/",
                BadRealm::OtherSite,
            ),
            ("https://evil-example.com/", BadRealm::OtherSite),
            ("http://registry.example.com/token", BadRealm::PlainHttp),
        ] {
            assert_eq!(verdict(realm, registry), Err(reason), "{realm}");
        }
        let long = format!("https://registry.example.com/{}", "a".repeat(3000));
        assert_eq!(verdict(&long, registry), Err(BadRealm::TooLong));
        assert_eq!(
            verdict("https://a.co.uk/t", "https://b.co.uk"),
            Err(BadRealm::OtherSite)
        );
        assert_eq!(
            verdict("http://169.254.169.254/", "http://127.0.0.1:5000"),
            Err(BadRealm::OtherSite)
        );
    }

    #[test]
    fn a_host_the_user_names_is_followed() {
        let registry = "https://lscr.io".parse().unwrap();
        let allowed = ["ghcr.io".to_owned()];
        assert!(judge("https://ghcr.io/token", &registry, &allowed).is_ok());
        assert!(judge("http://ghcr.io/token", &registry, &allowed).is_err());
    }
}
