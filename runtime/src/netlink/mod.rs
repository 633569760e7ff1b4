//! Network devices of the host for the container (config-linux.md, "Network
//! Devices"), through rtnetlink(7).
//!
//! Four kinds of requests are all that is needed, so they are built here: the
//! libraries for netlink bring an asynchronous runtime or a table of every
//! attribute there is.

mod device;
mod message;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use message::{ACK, Answer, CREATE_NEW, DUMP, GET_ADDRESS, GET_LINK, NEW_ADDRESS, NEW_LINK};
use message::{Request, answers, attributes, link, text};

pub(crate) use device::{Moved, Wish, hand_over, plan};

/// Largest packet that the kernel sends of a dump, in bytes (`netlink_dump`).
const PACKET_BYTES_MAX: usize = 32 * 1024;

/// Attributes of a device (`linux/if_link.h`).
const IFLA_IFNAME: u16 = 3;
/// The namespace that it moves to.
const IFLA_NET_NS_FD: u16 = 28;
/// All flags of an address, where eight bits are too few (`linux/if_addr.h`).
const IFA_FLAGS: u16 = 8;
/// Name under which IPv4 shows an address: that of a device.
const IFA_LABEL: u16 = 3;
/// Times for which an address is valid, and counters of its age.
const IFA_CACHEINFO: u16 = 6;

/// Flags of an address: it has no end, and makes no route.
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// Bytes of `struct ifaddrmsg`.
const ADDRESS_BYTES: usize = 8;

/// A connection to the network stack of one namespace.
#[derive(Debug)]
pub(super) struct Route(OwnedFd);

/// A device as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    /// Its number in the namespace.
    index: i32,
    /// Its name there.
    name: String,
    /// Whether it is up.
    up: bool,
}

/// An address of a device, without what belongs to the device and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    /// `struct ifaddrmsg`, whose device is still to be filled in.
    fixed: [u8; ADDRESS_BYTES],
    /// Attributes as they were.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Route {
    /// A connection to the namespace that this process is in.
    fn here() -> rustix::io::Result<Route> {
        let flags = SocketFlags::CLOEXEC;
        // NETLINK_ROUTE is protocol 0.
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Route(socket))
    }

    /// A connection to another namespace, which this process enters for a
    /// moment; `own` is the one to come back to.
    fn there(namespace: BorrowedFd<'_>, own: BorrowedFd<'_>) -> rustix::io::Result<Route> {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace, kind)?;
        let route = Route::here();
        move_into_link_name_space(own, kind)?;
        route
    }

    /// Sends a request and gives each message of the answer to `content`.
    fn ask(&self, request: Request, mut content: impl FnMut(u16, &[u8])) -> rustix::io::Result<()> {
        rustix::net::send(&self.0, &request.finish(), SendFlags::empty())?;
        let mut packet = vec![0; PACKET_BYTES_MAX];
        loop {
            let receive = || rustix::net::recv(&self.0, &mut packet[..], RecvFlags::empty());
            let (_, length) = rustix::io::retry_on_intr(receive)?;
            for answer in answers(&packet[..length.min(PACKET_BYTES_MAX)]) {
                match answer {
                    Answer::Content(kind, body) => content(kind, body),
                    Answer::End(0) => return Ok(()),
                    Answer::End(number) => return Err(Errno::from_raw_os_error(number)),
                }
            }
        }
    }

    /// The device of this name.
    fn link(&self, name: &str) -> rustix::io::Result<Link> {
        let request = Request::new(GET_LINK, ACK, &link(0, 0, 0)).name(IFLA_IFNAME, name);
        let mut found = None;
        self.ask(request, |_, body| found = found.take().or(read_link(body)))?;
        found.ok_or(Errno::NODEV)
    }

    /// All devices.
    fn links(&self) -> rustix::io::Result<Vec<Link>> {
        let mut all = Vec::new();
        let request = Request::new(GET_LINK, DUMP, &link(0, 0, 0));
        self.ask(request, |_, body| all.extend(read_link(body)))?;
        Ok(all)
    }

    /// Switches a device on or off.
    fn set_up(&self, index: i32, up: bool) -> rustix::io::Result<()> {
        let flag = libc::IFF_UP as u32;
        let fixed = link(index, if up { flag } else { 0 }, flag);
        self.ask(Request::new(NEW_LINK, ACK, &fixed), |_, _| ())
    }

    /// Moves a device to another namespace and renames it in one step, so that
    /// no other device there can be in its way in between.
    fn send_to(&self, index: i32, target: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
        let request = Request::new(NEW_LINK, ACK, &link(index, 0, 0))
            .name(IFLA_IFNAME, name)
            .attribute(IFLA_NET_NS_FD, &target.as_raw_fd().to_ne_bytes());
        self.ask(request, |_, _| ())
    }

    /// The addresses of a device that are meant to stay: permanent ones that
    /// are valid everywhere.
    fn lasting_addresses(&self, index: i32) -> rustix::io::Result<Vec<Address>> {
        let mut all = Vec::new();
        let request = Request::new(GET_ADDRESS, DUMP, &[0; ADDRESS_BYTES]);
        self.ask(request, |kind, body| {
            if kind == NEW_ADDRESS {
                all.extend(read_address(body, index));
            }
        })?;
        Ok(all)
    }

    /// Gives a device an address; one that it has already is no error.
    fn add_address(&self, index: i32, address: &Address) -> rustix::io::Result<()> {
        let mut fixed = address.fixed;
        fixed[4..].copy_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(NEW_ADDRESS, ACK | CREATE_NEW, &fixed);
        for (kind, value) in &address.attributes {
            request = request.attribute(*kind, value);
        }
        match self.ask(request, |_, _| ()) {
            Err(Errno::EXIST) => Ok(()),
            result => result,
        }
    }
}

impl AsFd for Route {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads a message about a device.
fn read_link(body: &[u8]) -> Option<Link> {
    let (fixed, rest) = body.split_first_chunk::<16>()?;
    let flags = u32::from_ne_bytes(*fixed[8..].first_chunk()?);
    let name = attributes(rest).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    Some(Link {
        index: i32::from_ne_bytes(*fixed[4..].first_chunk()?),
        name: text(name.1),
        up: flags & libc::IFF_UP as u32 != 0,
    })
}

/// Reads a message about an address, if it is one of the device and meant to
/// stay: permanent, and of universal scope.
fn read_address(body: &[u8], device: i32) -> Option<Address> {
    let (fixed, rest) = body.split_first_chunk::<ADDRESS_BYTES>()?;
    let [family, prefix, short_flags, scope, index @ ..] = *fixed;
    let long = attributes(rest).find(|(kind, _)| *kind == IFA_FLAGS);
    let flags = long
        .and_then(|(_, value)| value.first_chunk().copied())
        .map_or(u32::from(short_flags), u32::from_ne_bytes);
    let lasting = flags & IFA_F_PERMANENT != 0 && scope == libc::RT_SCOPE_UNIVERSE;
    if i32::from_ne_bytes(index) != device || !lasting {
        return None;
    }
    let kept = attributes(rest)
        .filter(|(kind, _)| ![IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS].contains(kind))
        .map(|(kind, value)| (kind, value.to_vec()));
    let flags = (flags & IFA_F_NOPREFIXROUTE).to_ne_bytes().to_vec();
    Some(Address {
        fixed: [family, prefix, 0, scope, 0, 0, 0, 0],
        attributes: kept.chain([(IFA_FLAGS, flags)]).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message about 10.0.0.2/24 of device 7.
    fn address(flags: u32, scope: u8, device: i32) -> Vec<u8> {
        let mut fixed = vec![2, 24, flags as u8, scope];
        fixed.extend_from_slice(&device.to_ne_bytes());
        let request = Request::new(NEW_ADDRESS, 0, &fixed)
            .attribute(2, &[10, 0, 0, 2])
            .name(IFA_LABEL, "eth0")
            .attribute(IFA_CACHEINFO, &[0; 16])
            .attribute(IFA_FLAGS, &flags.to_ne_bytes());
        request.finish()[16..].to_vec()
    }

    #[test]
    fn an_address_keeps_what_is_its_own() {
        let flags = IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE;
        let read = read_address(&address(flags, 0, 7), 7).unwrap();
        assert_eq!(read.fixed, [2, 24, 0, 0, 0, 0, 0, 0]);
        let kept = IFA_F_NOPREFIXROUTE.to_ne_bytes().to_vec();
        assert_eq!(read.attributes, [(2, vec![10, 0, 0, 2]), (IFA_FLAGS, kept)]);
    }

    #[test]
    fn other_addresses_stay_behind() {
        assert_eq!(read_address(&address(IFA_F_PERMANENT, 0, 8), 7), None);
        assert_eq!(read_address(&address(IFA_F_PERMANENT, 254, 7), 7), None);
        assert_eq!(read_address(&address(0, 0, 7), 7), None);
        assert_eq!(read_address(&[2, 24], 7), None);
    }

    #[test]
    fn loopback_is_found_in_every_namespace() {
        let route = Route::here().unwrap();
        let lo = route.link("lo").unwrap();
        assert!(route.links().unwrap().contains(&lo));
        assert_eq!(route.link("no-such-link"), Err(Errno::NODEV));
    }
}
