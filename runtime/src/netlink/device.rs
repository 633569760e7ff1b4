//! Moving devices: what is wished, done, and undone when the container does
//! not come to be. When it ends nothing is moved: the namespace's owner decides
//! about its devices, and the kernel about those of a namespace that is gone
//! (config-linux.md, "Namespace Lifecycle and Container Termination").

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Link, Route};
use crate::error::Error;
use crate::spec::{Linux, NamespaceType, invalid};

/// Longest name of a device, in bytes (`IFNAMSIZ` without the NUL).
const NAME_BYTES_MAX: usize = 15;

/// What a template for names ends with; the kernel puts a number there.
const TEMPLATE: &str = "%d";

/// One device to be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Its name on the host.
    from: String,
    /// Its name, or a template for it, in the container.
    to: String,
}

/// Reads which devices are to be moved. Touches nothing.
pub(crate) fn plan(linux: &Linux, rootless: bool) -> Result<Vec<Wish>, Error> {
    let field = "linux.netDevices";
    if linux.net_devices.is_empty() {
        return Ok(Vec::new());
    }
    if linux.namespace(NamespaceType::Network).is_none() {
        let reason = "unable to move network devices without a NET namespace";
        return Err(invalid(field, reason));
    }
    if rootless {
        let reason = "network devices are not supported for rootless containers";
        return Err(invalid(field, reason));
    }
    let wish = |(from, device): (&String, &crate::spec::NetDevice)| {
        let to = match device.name.as_str() {
            "" => from,
            name => name,
        };
        for name in [from, to] {
            if !is_name(name) {
                return Err(invalid(
                    field,
                    &format!("invalid network device name {name:?}"),
                ));
            }
        }
        Ok(Wish {
            from: from.clone(),
            to: to.to_owned(),
        })
    };
    linux.net_devices.iter().map(wish).collect()
}

/// What the kernel takes for a name (`dev_valid_name`).
fn is_name(name: &str) -> bool {
    let forbidden = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && !name.bytes().any(forbidden)
}

/// Devices that are in the container's namespace now.
#[derive(Debug)]
pub(crate) struct Moved {
    host: Route,
    own: OwnedFd,
    there: Route,
    /// Each as it was here, and its number there.
    devices: Vec<(Link, i32)>,
}

/// Moves all wished devices from the namespace of this process to the one at
/// `path`, with their lasting addresses, and switches them on there. Where one
/// cannot be moved those before it come back.
pub(crate) fn hand_over(wishes: &[Wish], path: &Path) -> Result<Moved, Error> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(Error::on("open namespace", path))
    };
    let namespace = open(path)?;
    let own = open(Path::new("/proc/self/ns/net"))?;
    let socket = || Error::at("open", "netlink socket");
    let mut moved = Moved {
        host: Route::here().map_err(socket())?,
        there: Route::there(namespace.as_fd(), own.as_fd())
            .map_err(Error::on("enter network namespace", path))?,
        own,
        devices: Vec::new(),
    };
    for wish in wishes {
        if let Err(error) = moved.take(wish, &namespace, path) {
            moved.give_back();
            return Err(error);
        }
    }
    Ok(moved)
}

impl Moved {
    fn take(&mut self, wish: &Wish, namespace: &OwnedFd, path: &Path) -> Result<(), Error> {
        let Wish { from, to } = wish;
        let link = self
            .host
            .link(from)
            .map_err(Error::on("link not found for interface", from))?;
        // Before it goes down, which takes addresses of IPv6 away.
        let addresses = self.host.lasting_addresses(link.index);
        let addresses = addresses.map_err(Error::on("get ip addresses of", from))?;
        let template = to.ends_with(TEMPLATE);
        let failed = || Error::on("list the network devices of", path);
        let before = match template {
            true => self.there.links().map_err(failed())?,
            false => Vec::new(),
        };
        self.host
            .set_up(link.index, false)
            .map_err(Error::on("set link down", from))?;
        if let Err(errno) = self.host.send_to(link.index, namespace.as_fd(), to) {
            let _ = self.host.set_up(link.index, link.up);
            let what = format!("{from} to {to} in network namespace {}", path.display());
            return Err(Error::on("move network device", what)(errno));
        }
        let arrived = match template {
            true => self.there.links().map(|after| new_one(&before, after)),
            false => self.there.link(to).map(Some),
        };
        let arrived = arrived.map_err(failed())?;
        let index = arrived.map_or(link.index, |link| link.index);
        self.devices.push((link, index));
        for address in &addresses {
            self.there
                .add_address(index, address)
                .map_err(Error::on("set up an address of", to))?;
        }
        self.there
            .set_up(index, true)
            .map_err(Error::on("set up interface", to))
    }

    /// Brings all devices back as they were, as far as that goes: the reason
    /// why is worth more than what may fail here.
    pub(crate) fn give_back(self) {
        for (link, index) in self.devices.iter().rev() {
            let addresses = self.there.lasting_addresses(*index).unwrap_or_default();
            let _ = self.there.set_up(*index, false);
            if self
                .there
                .send_to(*index, self.own.as_fd(), &link.name)
                .is_err()
            {
                continue;
            }
            let Ok(back) = self.host.link(&link.name) else {
                continue;
            };
            for address in &addresses {
                let _ = self.host.add_address(back.index, address);
            }
            let _ = self.host.set_up(back.index, link.up);
        }
    }
}

/// The device that was not there before.
fn new_one(before: &[Link], after: Vec<Link>) -> Option<Link> {
    let known = |link: &Link| before.iter().any(|other| other.index == link.index);
    after.into_iter().find(|link| !known(link))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(linux: &str, rootless: bool) -> Result<Vec<Wish>, String> {
        let linux = serde_json::from_str(linux).unwrap();
        plan(&linux, rootless).map_err(|error| error.to_string())
    }

    #[test]
    fn devices_keep_their_names_unless_they_get_another() {
        let linux = r#"{"netDevices":{"eth0":{},"eth1":{"name":"ctr%d"}},
                        "namespaces":[{"type":"network"}]}"#;
        let wish = |from: &str, to: &str| Wish {
            from: from.into(),
            to: to.into(),
        };
        let expected = [wish("eth0", "eth0"), wish("eth1", "ctr%d")];
        assert_eq!(wishes(linux, false).unwrap(), expected);
        let refused = wishes(linux, true).unwrap_err();
        assert!(refused.contains("rootless"), "{refused}");
    }

    #[test]
    fn devices_need_a_namespace_to_go_to() {
        let refused = wishes(r#"{"netDevices":{"eth0":{}}}"#, false).unwrap_err();
        assert!(refused.contains("unable to move network devices without a NET namespace"));
        assert_eq!(wishes(r#"{"netDevices":{}}"#, true), Ok(Vec::new()));
    }

    #[test]
    fn names_are_what_the_kernel_takes() {
        for good in ["eth0", "a", "ctr%d", "fifteen-letters"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-letters-"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
