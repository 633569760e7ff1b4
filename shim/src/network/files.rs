//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container with a
//! network of its own: made per container, mounted over the image's.

use std::net::IpAddr;
use std::path::Path;

use crate::Error;
use crate::container::Folder;
use crate::error::At as _;

/// Where the servers behind a local stub resolver are listed: systemd-resolved(8).
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// The host's own.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Largest resolv.conf that is read, in bytes; glibc uses three servers of it.
const RESOLV_CONF_BYTES_MAX: usize = 64 * 1024;

/// A file of the container's folder and where it is mounted.
pub const MOUNTS: [(&str, &str); 3] = [
    ("hosts", "/etc/hosts"),
    ("hostname", "/etc/hostname"),
    ("resolv.conf", "/etc/resolv.conf"),
];

/// Writes the three files.
///
/// # Errors
/// I/O errors.
pub fn write(folder: &Folder, hostname: &str) -> Result<(), Error> {
    let put = |name: &str, text: &str| {
        let path = folder.path.join(name);
        std::fs::write(&path, text).at("write", &path)
    };
    put(
        "hosts",
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    )?;
    put("hostname", &format!("{hostname}\n"))?;
    let reachable = [RESOLV_CONF, BEHIND_STUB]
        .iter()
        .map(|path| reachable(&read(Path::new(path))))
        .find(|text| text.lines().any(|line| server(line).is_some()));
    put("resolv.conf", &reachable.unwrap_or_default())
}

fn read(path: &Path) -> String {
    let mut bytes = std::fs::read(path).unwrap_or_default();
    bytes.truncate(RESOLV_CONF_BYTES_MAX);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The address of a `nameserver` line.
fn server(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next()? == "nameserver").then(|| words.next()?.split('%').next()?.parse().ok())?
}

/// `resolv.conf` without the servers that only the host can reach, its own loopback addresses.
fn reachable(text: &str) -> String {
    let keep = |line: &&str| server(line).is_none_or(|address| !address.is_loopback());
    text.lines()
        .filter(keep)
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_left_out() {
        let text =
            "search x\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\noptions edns0";
        assert_eq!(
            reachable(text),
            "search x\nnameserver 10.0.0.1\noptions edns0\n"
        );
        assert_eq!(server("nameserver fe80::1%eth0"), "fe80::1".parse().ok());
        assert_eq!(server("# nameserver 1.1.1.1"), None);
    }
}
