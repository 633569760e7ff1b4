//! Which proxy a request goes through, from the usual variables.

use std::net::IpAddr;
use ureq::Proxy;
use ureq::http::Uri;

/// The proxy for `uri`, from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
/// `NO_PROXY` (lower case too; lower case wins, as in curl). This machine's own
/// addresses are never reached through one.
#[must_use]
pub(super) fn for_uri(uri: &Uri) -> Option<Proxy> {
    let text = choose(uri, |name| {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    })?;
    Proxy::new(&text).ok()
}

/// Pure part of [`for_uri`].
fn choose(uri: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let either = |name: &str| variable(&name.to_ascii_lowercase()).or_else(|| variable(name));
    let host = uri.host().unwrap_or_default();
    if super::realm::is_loopback(host) {
        return None;
    }
    if either("NO_PROXY").is_some_and(|list| is_exempt(host, uri.port_u16(), &list)) {
        return None;
    }
    let own = match uri.scheme_str() {
        Some("https") => either("HTTPS_PROXY"),
        _ => either("HTTP_PROXY"),
    };
    own.or_else(|| either("ALL_PROXY"))
}

/// Whether `list` names `host`: `*`, a name (its subdomains too), `.name`,
/// an address, a block of addresses, each with an optional port.
fn is_exempt(host: &str, port: Option<u16>, list: &str) -> bool {
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    let address = host.parse::<IpAddr>().ok();
    list.split([',', ' '])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            if entry == "*" {
                return true;
            }
            let entry = entry.to_ascii_lowercase();
            if let (Some(address), Some((network, bits))) = (address, entry.split_once('/')) {
                return in_block(address, network, bits);
            }
            let (name, wanted_port) = match entry.rsplit_once(':') {
                Some((name, digits)) if !name.contains(':') => {
                    (name.to_owned(), digits.parse().ok())
                }
                _ => (entry.clone(), None),
            };
            let name = name
                .trim_start_matches("*.")
                .trim_start_matches('.')
                .trim_matches(['[', ']']);
            let matches = host == name
                || host
                    .strip_suffix(name)
                    .is_some_and(|rest| rest.ends_with('.'));
            matches && (wanted_port.is_none() || wanted_port == port)
        })
}

/// Whether an address lies in `network/bits`.
fn in_block(address: IpAddr, network: &str, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else {
        return false;
    };
    match (address, network.parse::<IpAddr>()) {
        (IpAddr::V4(a), Ok(IpAddr::V4(n))) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(a) & mask == u32::from(n) & mask
        }
        (IpAddr::V6(a), Ok(IpAddr::V6(n))) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(a) & mask == u128::from(n) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(uri: &str, variables: &[(&str, &str)]) -> Option<String> {
        choose(&uri.parse().unwrap(), |name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_scheme_chooses() {
        let all = [
            ("HTTPS_PROXY", "s"),
            ("http_proxy", "p"),
            ("HTTP_PROXY", "P"),
            ("ALL_PROXY", "a"),
        ];
        assert_eq!(chosen("https://r.test", &all).as_deref(), Some("s"));
        assert_eq!(chosen("http://r.test", &all).as_deref(), Some("p"));
        assert_eq!(chosen("https://r.test", &all[3..]).as_deref(), Some("a"));
        assert_eq!(chosen("https://127.0.0.1:5000", &all), None);
        assert_eq!(chosen("http://localhost:5000", &all), None);
        assert_eq!(chosen("https://r.test", &[]), None);
    }

    #[test]
    fn exempt_hosts() {
        let list =
            "corp.example, .lab.test,10.0.0.0/8 *.wild.test,only.test:5000,[fd00::1],2001:db8::/32";
        for host in [
            "corp.example",
            "r.corp.example",
            "x.lab.test",
            "10.2.3.4",
            "a.wild.test",
            "[fd00::1]",
            "[2001:db8::7]",
        ] {
            assert!(is_exempt(host, None, list), "{host}");
        }
        for host in [
            "notcorp.example",
            "11.0.0.1",
            "only.test",
            "[fd00::2]",
            "corp.example.evil.test",
        ] {
            assert!(!is_exempt(host, Some(443), list), "{host}");
        }
        assert!(is_exempt("only.test", Some(5000), list));
        assert!(is_exempt("any.test", None, "*"));
    }
}
