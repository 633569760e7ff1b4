//! ttrpc as simply as it can be done: a client that waits, and a receiver of events.
//!
//! Written from ttrpc's `PROTOCOL.md` and apart from the shim's own, so that a
//! mistake of the one is not shared by the other.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;

use super::messages::{Empty, Envelope, ForwardRequest, Request, Response, Status};

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
/// How long an answer may take before the test fails.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

fn write_frame(stream: &mut UnixStream, number: u32, kind: u8, data: &[u8]) -> io::Result<()> {
    let mut frame = (data.len() as u32).to_be_bytes().to_vec();
    frame.extend(number.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(data);
    stream.write_all(&frame)
}

fn read_frame(stream: &mut UnixStream) -> io::Result<(u32, u8, Vec<u8>)> {
    let mut header = [0; 10];
    stream.read_exact(&mut header)?;
    let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = header;
    let mut data = vec![0; u32::from_be_bytes([l0, l1, l2, l3]) as usize];
    stream.read_exact(&mut data)?;
    Ok((u32::from_be_bytes([s0, s1, s2, s3]), kind, data))
}

/// A connection to a service.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    next: u32,
    early: HashMap<u32, Response>,
}

/// A call whose answer was not taken yet.
#[derive(Debug, Clone, Copy)]
pub struct Call(u32);

impl Client {
    /// Connects to a socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self {
            stream,
            next: 1,
            early: HashMap::new(),
        })
    }

    /// Sends a call without waiting for its answer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn send(
        &mut self,
        service: &str,
        method: &str,
        message: &impl Message,
    ) -> io::Result<Call> {
        let request = Request {
            service: service.into(),
            method: method.into(),
            payload: message.encode_to_vec(),
            timeout_nano: 0,
        };
        let number = self.next;
        self.next += 2;
        write_frame(&mut self.stream, number, REQUEST, &request.encode_to_vec())?;
        Ok(Call(number))
    }

    /// Waits for the answer of a call, whichever come before.
    ///
    /// # Errors
    /// What the kernel says, also that nothing came in time.
    pub fn receive<M: Message + Default>(&mut self, call: Call) -> io::Result<Result<M, Status>> {
        let response = loop {
            if let Some(response) = self.early.remove(&call.0) {
                break response;
            }
            let (number, kind, data) = read_frame(&mut self.stream)?;
            if kind == RESPONSE {
                let response = Response::decode(&data[..]).map_err(io::Error::other)?;
                self.early.insert(number, response);
            }
        };
        match response.status.filter(|status| status.code != 0) {
            Some(status) => Ok(Err(status)),
            None => Ok(Ok(
                M::decode(&response.payload[..]).map_err(io::Error::other)?
            )),
        }
    }

    /// [`Client::send`] and [`Client::receive`].
    ///
    /// # Errors
    /// What the kernel says, also that nothing came in time.
    pub fn call<M: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        message: &impl Message,
    ) -> io::Result<Result<M, Status>> {
        let call = self.send(service, method, message)?;
        self.receive(call)
    }
}

/// What containerd is for a shim: who takes its events.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Envelope>>>);

impl Events {
    /// Listens at `socket` and acknowledges whatever comes, for the rest of the test.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen(socket: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let events = Self::default();
        let all = events.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let events = all.clone();
                std::thread::spawn(move || events.take_from(stream));
            }
        });
        Ok(events)
    }

    fn take_from(&self, mut stream: UnixStream) {
        while let Ok((number, _, data)) = read_frame(&mut stream) {
            let Ok(request) = Request::decode(&data[..]) else {
                return;
            };
            let forwarded = ForwardRequest::decode(&request.payload[..]).unwrap_or_default();
            if let Ok(mut all) = self.0.lock() {
                all.extend(forwarded.envelope);
            }
            let response = Response {
                status: None,
                payload: Empty {}.encode_to_vec(),
            };
            if write_frame(&mut stream, number, RESPONSE, &response.encode_to_vec()).is_err() {
                return;
            }
        }
    }

    /// Those that came so far.
    #[must_use]
    pub fn all(&self) -> Vec<Envelope> {
        self.0.lock().map(|all| all.clone()).unwrap_or_default()
    }

    /// Their topics, in order.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        let topic = |event: Envelope| event.topic;
        self.all().into_iter().map(topic).collect()
    }
}
