//! Clients of an attach socket, whose packets are a stream's number and a block of output.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};

use super::sequence::Sequence;
use super::{Memory, PACE, Verdict, read_for};

/// Largest block of output in a packet.
const BLOCK_BYTES: usize = 8192;
/// The pace of a reader that hardly reads, in bytes a second.
const SLOW: u64 = 20_000;

/// One client.
struct Client {
    socket: OwnedFd,
    packet: Vec<u8>,
}

impl Client {
    /// Attached to the socket in `folder`, whose path may be long.
    fn attach(folder: &Path) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let socket = socket.expect("make a socket");
        let folder = std::fs::File::open(folder).expect("open the bundle");
        let path = format!("/proc/self/fd/{}/attach", folder.as_raw_fd());
        let address = SocketAddrUnix::new(path).expect("a short path");
        connect(&socket, &address).expect("attach");
        Self {
            socket,
            packet: vec![0; 1 + BLOCK_BYTES],
        }
    }

    /// The next block, where there is room for any.
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.len() < BLOCK_BYTES {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (len, _) = recv(&self.socket, &mut self.packet[..], RecvFlags::empty())?;
        let block = self.packet[..len].get(1..).unwrap_or_default();
        room[..block.len()].copy_from_slice(block);
        Ok(block.len())
    }
}

/// Reads as quickly as the output is due, hardly, not at all, and comes back, behind
/// the socket in `folder`. `width`: of the numbers.
pub(super) fn flood(
    verdict: &mut Verdict,
    case: &str,
    folder: &Path,
    width: usize,
    time: Duration,
    memory: &mut Memory,
) {
    let mut sequence = Sequence::padded(width);
    sequence.lose();
    let mut client = Client::attach(folder);
    let mut read = |sequence: &mut Sequence, time, pace, memory: &mut Memory| {
        read_for(|room| client.read(room), sequence, time, pace, memory)
    };
    let keeping_up = read(&mut sequence, time, PACE, memory);
    let bytes = sequence.bytes;
    println!("  {case}: {bytes} bytes in {} s", time.as_secs());
    let short = time / 10;
    let slow = read(&mut sequence, short, SLOW, memory);
    // One that is there and reads nothing holds the container back; one that is gone does not.
    std::thread::sleep(short);
    let after = read(&mut sequence, short, PACE, memory);
    drop(client);
    std::thread::sleep(short);
    let mut back = true;
    for _ in 0..10 {
        let mut client = Client::attach(folder);
        sequence.lose();
        let before = sequence.bytes;
        let read = |room: &mut [u8]| client.read(room);
        back &= read_for(read, &mut sequence, short / 10, PACE, memory);
        back &= sequence.bytes > before;
    }
    verdict.check(
        bytes >= time.as_secs() * PACE * 9 / 10,
        format!("{case}: 10 MB/s reach a client that keeps up"),
    );
    verdict.check(
        keeping_up && slow && after && back,
        format!("{case}: no byte is lost or moved by slow and dying clients"),
    );
    memory.judge(verdict, case);
}
