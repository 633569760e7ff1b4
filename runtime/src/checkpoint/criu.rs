//! CRIU as a child process, and the talk with it.

use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType};

use super::Error;
use super::rpc::{Features, Kind, Notify, Request, Response, Version};
use crate::init::protocol::receive_with_fd;
use crate::log::Log;

/// Largest answer that is read, in bytes. CRIU's longest holds one line of its
/// log; runc takes as much.
const RESPONSE_BYTES_MAX: usize = 40_960;

/// What is kept of CRIU's standard error for an error message, in bytes: the
/// last lines name the reason.
const STDERR_BYTES_MAX: u64 = 64 * 1024;

/// The oldest CRIU that is used: the first that tells its version this way.
const OLDEST: Version = Version(30_000);

/// What is done with each piece of news, and the descriptor that came with it.
pub(super) type Listener<'a> =
    dyn FnMut(&Notify, Option<OwnedFd>) -> Result<(), crate::error::Error> + 'a;

/// A running `criu swrk`. Dropped, it sees the end of the talk and gives up.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    socket: Option<OwnedFd>,
    stderr: Option<std::fs::File>,
}

impl Worker {
    /// Starts CRIU, which then waits for a request. It has its own streams; with
    /// `streams` it has ours, to hand them to the processes that it restores.
    ///
    /// Descriptors without the close-on-exec flag are CRIU's under the same
    /// number.
    pub(super) fn start(program: &Path, streams: bool) -> Result<Self, Error> {
        let pair = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) = pair.map_err(|errno| Error::Start(errno.into()))?;
        // The copy has no close-on-exec flag and is gone when CRIU has it.
        let theirs = rustix::io::dup(&theirs).map_err(|errno| Error::Start(errno.into()))?;
        let mut command = Command::new(program);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        let mut stderr = None;
        if !streams {
            let memory = rustix::fs::memfd_create("criu-stderr", MemfdFlags::CLOEXEC)
                .map_err(|errno| Error::Start(errno.into()))?;
            let file = std::fs::File::from(memory);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(file.try_clone().map_err(Error::Start)?);
            stderr = Some(file);
        }
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Missing(program.to_owned()),
            _ => Error::Start(error),
        })?;
        Ok(Self {
            child,
            socket: Some(ours),
            stderr,
        })
    }

    /// CRIU's pid.
    pub(super) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends `request` and handles all news until its answer comes.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        listener: &mut Listener<'_>,
    ) -> Result<Response, crate::error::Error> {
        self.send(request)?;
        loop {
            let (response, descriptor) = self.receive()?;
            if !response.success {
                return Err(failed(&response).into());
            }
            match (response.kind, &response.notify) {
                (Kind::Notify, Some(notify)) => {
                    listener(notify, descriptor)?;
                    self.send(&Request::acknowledge())?;
                }
                (Kind::Notify, None) => {
                    return Err(Error::Unexpected {
                        kind: response.kind,
                    }
                    .into());
                }
                _ => return Ok(response),
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), Error> {
        let Some(socket) = &self.socket else {
            return Err(self.gone());
        };
        match rustix::net::send(socket, request.as_bytes(), SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(self.gone()),
            Err(errno) => Err(Error::Talk(errno.into())),
        }
    }

    fn receive(&mut self) -> Result<(Response, Option<OwnedFd>), Error> {
        let Some(socket) = &self.socket else {
            return Err(self.gone());
        };
        let mut packet = vec![0; RESPONSE_BYTES_MAX];
        let (length, descriptor) = receive_with_fd(socket, &mut packet).map_err(Error::Talk)?;
        if length == 0 {
            return Err(self.gone());
        }
        if length == packet.len() {
            let kind = std::io::ErrorKind::FileTooLarge;
            return Err(Error::Talk(kind.into()));
        }
        Ok((Response::decode(&packet[..length])?, descriptor))
    }

    /// Ends the talk and waits until CRIU has ended.
    pub(super) fn finish(mut self) -> Result<ExitStatus, Error> {
        if let Some(socket) = &self.socket {
            let _ = rustix::net::shutdown(socket, Shutdown::Write);
        }
        let status = self.child.wait().map_err(Error::Talk);
        self.socket = None;
        status
    }

    /// CRIU has closed its side without an answer: says how it ended.
    fn gone(&mut self) -> Error {
        self.socket = None;
        let how = match self.child.wait() {
            Ok(status) => ended(status),
            Err(error) => format!("could not be waited for ({error})"),
        };
        let said = self.last_words();
        Error::Gone { how, said }
    }

    /// The last line of CRIU's standard error.
    fn last_words(&mut self) -> String {
        let mut text = Vec::new();
        if let Some(file) = &mut self.stderr {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            let start = length.saturating_sub(STDERR_BYTES_MAX);
            let read = file.seek(SeekFrom::Start(start));
            let _ = read.and_then(|_| file.take(STDERR_BYTES_MAX).read_to_end(&mut text));
        }
        let text = String::from_utf8_lossy(&text);
        match text.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) => format!(": {}", line.trim()),
            None => String::new(),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.socket.take().is_some() {
            let _ = self.child.wait();
        }
    }
}

/// How a program has ended, in words.
pub(super) fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".into(),
    }
}

fn failed(response: &Response) -> Error {
    let message = match response.message.trim() {
        "" => String::new(),
        text => format!(": {}", text.lines().next().unwrap_or(text)),
    };
    Error::Failed {
        kind: response.kind,
        errno: response.errno,
        message,
    }
}

/// The CRIU of this host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Criu {
    version: Version,
}

impl Criu {
    /// Asks for its version; a `program` without a slash is looked for in `PATH`.
    pub(super) fn find(program: &Path, log: &Log) -> Result<Self, crate::error::Error> {
        let wrap = |error| Error::VersionCheck(Box::new(error));
        let response = simple(program, &Request::bare(Kind::Version)).map_err(wrap)?;
        let version = response
            .version
            .ok_or(Error::Unexpected {
                kind: response.kind,
            })
            .map_err(wrap)?;
        log.debug(|| format!("Using CRIU {}", version.0));
        let criu = Self { version };
        criu.needs(OLDEST)?;
        Ok(criu)
    }

    /// Whether it is at least this version.
    pub(super) fn is(self, version: Version) -> bool {
        self.version >= version
    }

    /// Refuses an older one.
    pub(super) fn needs(self, version: Version) -> Result<(), Error> {
        if self.is(version) {
            return Ok(());
        }
        Err(Error::TooOld {
            have: self.version,
            need: version,
        })
    }

    /// Refuses a kernel or a CRIU without these features.
    pub(super) fn needs_features(self, program: &Path, wanted: Features) -> Result<(), Error> {
        let wrap = |error| Error::FeatureCheck(Box::new(error));
        let there = simple(program, &Request::features(wanted))
            .map_err(wrap)?
            .features;
        for (feature, wanted, there) in [
            ("MemTrack", wanted.mem_track, there.mem_track),
            ("LazyPages", wanted.lazy_pages, there.lazy_pages),
        ] {
            if wanted && !there {
                return Err(Error::NoFeature { feature });
            }
        }
        Ok(())
    }
}

/// One question to a CRIU of its own, without news on the way.
fn simple(program: &Path, request: &Request) -> Result<Response, Error> {
    let mut worker = Worker::start(program, false)?;
    worker.send(request)?;
    let (response, _) = worker.receive()?;
    if !response.success {
        return Err(failed(&response));
    }
    worker.finish()?;
    Ok(response)
}

/// A descriptor that CRIU gets under the same number, until this is dropped.
pub(super) fn for_criu(descriptor: impl AsFd) -> Result<OwnedFd, Error> {
    rustix::io::dup(descriptor).map_err(|errno| Error::Start(errno.into()))
}
