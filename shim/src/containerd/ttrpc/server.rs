//! The connections of containerd, and of whoever else may use the socket.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use prost::Message as _;
use rustix::event::epoll::EventFlags;

use super::frame::{Frame, Header, Kind};
use super::wire::{Gone, Wire};
use crate::containerd::proto::ttrpc::{Code, Request, Response, Status};

/// Most connections at once; containerd has one for each pod, tools add a few.
const CONNECTIONS_MAX: usize = 256;
/// Most calls of one connection that are not answered: one `Wait` for each
/// process, and a pod has fewer processes than this.
const CALLS_MAX: usize = 32 * 1024;
/// A request's flag: the client sends more on this stream.
const FLAG_REMOTE_OPEN: u8 = 0x02;

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reply {
    /// Which connection.
    pub connection: u32,
    /// Which call on it.
    pub stream: u32,
}

/// A message's bytes, or an error.
pub type Answer = Result<Vec<u8>, Status>;

/// What a connection brought.
#[derive(Debug, Default)]
pub struct Heard {
    /// Calls, in order.
    pub calls: Vec<(Reply, Request)>,
    /// The connection is closed: nobody waits for its answers.
    pub gone: bool,
}

#[derive(Debug)]
struct Connection {
    wire: Wire,
    last_stream: u32,
    unanswered: usize,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Server {
    connections: BTreeMap<u32, Connection>,
    last: u32,
}

impl Server {
    /// Takes a connection; its number, for the poller. `None`: there are too many.
    pub fn add(&mut self, fd: OwnedFd) -> Option<(u32, &OwnedFd)> {
        if self.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        // 0 is nobody's, for calls that come from within.
        let mut number = self.last.wrapping_add(1);
        while number == 0 || self.connections.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        self.last = number;
        let connection = Connection {
            wire: Wire::new(fd),
            last_stream: 0,
            unanswered: 0,
        };
        let connection = self.connections.entry(number).or_insert(connection);
        Some((number, &connection.wire.fd))
    }

    /// A connection is ready.
    pub fn ready(&mut self, number: u32, flags: EventFlags) -> Heard {
        let mut heard = Heard::default();
        let Some(connection) = self.connections.get_mut(&number) else {
            return heard;
        };
        let mut result = Ok(());
        if flags.contains(EventFlags::OUT) {
            result = connection.wire.flush();
        }
        if result.is_ok() && flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            result = connection.read(number, &mut heard.calls);
        }
        if result.is_err() {
            self.connections.remove(&number);
            heard.gone = true;
        }
        heard
    }

    /// Answers a call. That nobody listens any more is no error.
    pub fn answer(&mut self, to: Reply, answer: Answer) {
        if let Some(connection) = self.connections.get_mut(&to.connection) {
            connection.unanswered = connection.unanswered.saturating_sub(1);
            // A connection that broke is noticed when it is read next.
            let _: Result<(), Gone> = connection.answer(to.stream, answer);
        }
    }

    /// Tells the poller what to wait for.
    ///
    /// # Errors
    /// What `watch` says.
    pub fn settle(
        &mut self,
        mut watch: impl FnMut(u32, &OwnedFd, EventFlags) -> io::Result<()>,
    ) -> io::Result<()> {
        for (number, connection) in &mut self.connections {
            connection
                .wire
                .settle(|fd, flags| watch(*number, fd, flags))?;
        }
        Ok(())
    }
}

impl Connection {
    fn read(&mut self, number: u32, calls: &mut Vec<(Reply, Request)>) -> Result<(), Gone> {
        let mut frames = Vec::new();
        self.wire.read(|frame| frames.push(frame))?;
        for frame in frames {
            match self.understand(frame) {
                Ok(Some((stream, request))) => {
                    self.unanswered += 1;
                    let connection = number;
                    calls.push((Reply { connection, stream }, request));
                }
                Ok(None) => {}
                Err((stream, status)) => self.answer(stream, Err(status))?,
            }
        }
        Ok(())
    }

    /// The call in a frame; `None` for what may be passed over.
    fn understand(&mut self, frame: Frame) -> Result<Option<(u32, Request)>, (u32, Status)> {
        let (header, data) = match frame {
            Frame::Whole(header, data) => (header, data),
            Frame::TooLarge(header) => {
                let text = format!(
                    "message of {} bytes is larger than ttrpc allows",
                    header.length
                );
                return Err((header.stream, Status::new(Code::ResourceExhausted, text)));
            }
        };
        match header.kind {
            Kind::Request => self
                .admit(header, &data)
                .map_err(|status| (header.stream, status))
                .map(Some),
            Kind::Data => Err((
                header.stream,
                Status::new(Code::InvalidArgument, "no such stream"),
            )),
            Kind::Response | Kind::Unknown(_) => Ok(None),
        }
    }

    fn admit(&mut self, header: Header, data: &[u8]) -> Result<(u32, Request), Status> {
        let invalid = |text: &str| Err(Status::new(Code::InvalidArgument, text));
        let stream = header.stream;
        if stream % 2 != 1 {
            return invalid("streams of clients have odd numbers");
        }
        if stream <= self.last_stream {
            return invalid("numbers of streams must grow");
        }
        self.last_stream = stream;
        let request = Request::decode(data).map_err(|err| {
            Status::new(Code::InvalidArgument, format!("not a ttrpc request: {err}"))
        })?;
        if header.flags & FLAG_REMOTE_OPEN != 0 {
            return Err(Status::new(Code::Unimplemented, "no method takes a stream"));
        }
        if self.unanswered >= CALLS_MAX {
            return Err(Status::new(
                Code::ResourceExhausted,
                "too many calls are waiting",
            ));
        }
        Ok((stream, request))
    }

    fn answer(&mut self, stream: u32, answer: Answer) -> Result<(), Gone> {
        let response = match answer {
            Ok(payload) => Response {
                status: None,
                payload,
            },
            Err(status) => Response {
                status: Some(status),
                payload: Vec::new(),
            },
        };
        self.wire
            .write(Kind::Response, stream, &response.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame;
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn connected() -> (Server, u32, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let mut server = Server::default();
        let number = server.add(ours).unwrap().0;
        (server, number, theirs)
    }

    fn send(fd: &OwnedFd, stream: u32, method: &str) {
        let request = Request {
            service: "s".into(),
            method: method.into(),
            ..Request::default()
        };
        let mut bytes = Vec::new();
        frame::encode(Kind::Request, stream, &request.encode_to_vec(), &mut bytes);
        rustix::io::write(fd, &bytes).unwrap();
    }

    /// What was answered: stream, code, payload.
    fn answers(fd: &OwnedFd) -> Vec<(u32, i32, Vec<u8>)> {
        let (mut decoder, mut out) = (frame::Decoder::default(), Vec::new());
        let mut bytes = vec![0; 1 << 20];
        while let Ok(n @ 1..) = rustix::io::read(fd, &mut bytes[..]) {
            let mut piece = &bytes[..n];
            while let Some(Frame::Whole(header, data)) = decoder.next(&mut piece) {
                let response = Response::decode(&data[..]).unwrap();
                out.push((
                    header.stream,
                    response.status.map_or(0, |status| status.code),
                    response.payload,
                ));
            }
        }
        out
    }

    #[test]
    fn calls_are_answered_in_any_order() {
        let (mut server, number, peer) = connected();
        send(&peer, 1, "A");
        send(&peer, 3, "B");
        let heard = server.ready(number, EventFlags::IN);
        let methods: Vec<_> = heard
            .calls
            .iter()
            .map(|(_, request)| request.method.as_str())
            .collect();
        assert_eq!(methods, ["A", "B"]);
        server.answer(heard.calls[1].0, Ok(b"b".to_vec()));
        server.answer(heard.calls[0].0, Err(Status::new(Code::NotFound, "a")));
        assert_eq!(answers(&peer), [(3, 0, b"b".to_vec()), (1, 5, Vec::new())]);
    }

    #[test]
    fn what_is_not_a_call_is_answered_with_an_error() {
        let (mut server, number, peer) = connected();
        send(&peer, 2, "even");
        send(&peer, 5, "fine");
        send(&peer, 5, "again");
        let mut bytes = Vec::new();
        frame::encode(Kind::Data, 5, b"", &mut bytes);
        frame::encode(Kind::Request, 7, b"\xff\xff", &mut bytes);
        rustix::io::write(&peer, &bytes).unwrap();
        let heard = server.ready(number, EventFlags::IN);
        assert_eq!(heard.calls.len(), 1);
        let codes: Vec<_> = answers(&peer)
            .iter()
            .map(|(stream, code, _)| (*stream, *code))
            .collect();
        assert_eq!(codes, [(2, 3), (5, 3), (5, 3), (7, 3)]);
    }

    #[test]
    fn who_takes_no_answers_is_not_read_until_it_does() {
        let (mut server, number, peer) = connected();
        let mut stream = 1;
        let mut reading = true;
        let mut asked = 0;
        while reading {
            send(&peer, stream, "A");
            stream += 2;
            for (reply, _) in server.ready(number, EventFlags::IN).calls {
                asked += 1;
                server.answer(reply, Ok(vec![0; 10_000]));
            }
            server
                .settle(|_, _, flags| {
                    reading = flags.contains(EventFlags::IN);
                    Ok(())
                })
                .unwrap();
            assert!(asked < 1000, "it is read without end");
        }
        let mut got = answers(&peer).len();
        while got < asked {
            server.ready(number, EventFlags::OUT);
            got += answers(&peer).len();
        }
        server
            .settle(|_, _, flags| {
                reading = flags == EventFlags::IN;
                Ok(())
            })
            .unwrap();
        assert!(reading);
    }

    #[test]
    fn a_closed_connection_is_forgotten() {
        let (mut server, number, peer) = connected();
        send(&peer, 1, "A");
        let heard = server.ready(number, EventFlags::IN);
        drop(peer);
        assert!(server.ready(number, EventFlags::IN | EventFlags::HUP).gone);
        server.answer(heard.calls[0].0, Ok(Vec::new()));
        assert!(server.connections.is_empty());
    }
}
