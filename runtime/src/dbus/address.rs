//! Where a bus listens (D-Bus specification, "Server Addresses").

use std::path::PathBuf;

use rustix::net::SocketAddrUnix;

use super::Error;

/// One place where a bus may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// `unix:path=`
    File(PathBuf),
    /// `unix:abstract=`
    Abstract(Vec<u8>),
}

impl Place {
    /// The places of an address, in the order in which they are to be tried.
    /// Those of other kinds (tcp, unixexec) are passed over; at least one must
    /// be a socket of this host.
    pub(crate) fn parse_all(address: &str) -> Result<Vec<Self>, Error> {
        let bad = |why| Error::Address {
            address: address.to_owned(),
            why,
        };
        let mut places = Vec::new();
        for one in address.split(';').filter(|one| !one.is_empty()) {
            let Some(pairs) = one.strip_prefix("unix:") else {
                continue;
            };
            for pair in pairs.split(',') {
                let (key, value) = pair
                    .split_once('=')
                    .ok_or_else(|| bad("a key lacks its value"))?;
                let value =
                    unescape(value).ok_or_else(|| bad("a value is not escaped as it must be"))?;
                match key {
                    "path" => {
                        use std::os::unix::ffi::OsStringExt;
                        places.push(Self::File(std::ffi::OsString::from_vec(value).into()));
                    }
                    "abstract" => places.push(Self::Abstract(value)),
                    _ => {}
                }
            }
        }
        if places.is_empty() {
            return Err(bad("it names no unix socket by path= or abstract="));
        }
        Ok(places)
    }

    /// The address for connect(2).
    pub(crate) fn socket(&self) -> rustix::io::Result<SocketAddrUnix> {
        match self {
            Self::File(path) => SocketAddrUnix::new(path),
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// `%41` is `A`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push((digit()? << 4 | digit()?) as u8);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_tried_in_their_order() {
        let places = Place::parse_all(
            "tcp:host=x,port=1;unix:path=/run/a%20b,guid=00;unix:abstract=/tmp/dbus-1",
        );
        assert_eq!(
            places.unwrap(),
            [
                Place::File("/run/a b".into()),
                Place::Abstract(b"/tmp/dbus-1".to_vec())
            ]
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "",
            "tcp:host=x",
            "unix:",
            "unix:path",
            "unix:path=%4",
            "unix:path=%zz",
            "/run/bus",
        ] {
            assert!(Place::parse_all(bad).is_err(), "{bad:?}");
        }
    }
}
