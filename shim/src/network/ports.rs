//! Ports of the host that a container has taken.
//!
//! The port map is a matter of the firewall, which lets two containers, or a
//! container and a program of the host, have the same port: one of them would
//! never be reached. Holding a socket on the port makes the kernel refuse the second.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use crate::Error;
use crate::container::record::Port;

/// Takes the ports for as long as the sockets are open. Nothing is accepted on
/// them: the firewall sees packets first. SCTP is not held, kernels often lack it.
///
/// # Errors
/// [`Error::Port`], for the first that someone else has or that is of an address that the host has not.
pub fn take(ports: &[Port]) -> Result<Vec<OwnedFd>, Error> {
    let mut held = Vec::new();
    for port in ports {
        held.extend(take_one(port).map_err(|source| Error::Port {
            port: show(port),
            source,
        })?);
    }
    Ok(held)
}

fn take_one(port: &Port) -> io::Result<Option<OwnedFd>> {
    let ip = match &port.host_ip {
        None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Some(text) => text.parse().map_err(io::Error::other)?,
    };
    let address = (ip, port.host_port);
    Ok(match port.protocol.as_str() {
        "tcp" => Some(TcpListener::bind(address)?.into()),
        "udp" => Some(UdpSocket::bind(address)?.into()),
        _ => None,
    })
}

fn show(port: &Port) -> String {
    let ip = port.host_ip.as_ref().map(|ip| format!("{ip}:"));
    format!(
        "{}{}/{}",
        ip.unwrap_or_default(),
        port.host_port,
        port.protocol
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once_until_it_is_let_go() {
        for protocol in ["tcp", "udp"] {
            let free = UdpSocket::bind("127.0.0.1:0").unwrap();
            let host_port = free.local_addr().unwrap().port();
            drop(free);
            let port = Port {
                host_port,
                container_port: 80,
                protocol: protocol.to_owned(),
                host_ip: Some("127.0.0.1".to_owned()),
            };
            let ports = std::slice::from_ref(&port);
            let held = take(ports).unwrap();
            assert_eq!(held.len(), 1);
            let message = take(ports).unwrap_err().to_string();
            let named = format!("127.0.0.1:{host_port}/{protocol}");
            assert!(message.contains(&named), "{message}");
            drop(held);
            assert!(take(ports).is_ok());
        }
    }
}
