//! What may be asked of the task service.
//!
//! Version 3 has one method more, `Events`, a stream in place of the shim's own calls of
//! `Forward`. It is the shim's to offer, as a feature in its answer to `start`, and is not offered:
//! nothing on a stream is acknowledged, so an event could be lost with a containerd that dies.

use prost::Message;

use crate::containerd::flags::is_name;
use crate::containerd::proto::task::{
    CheckpointTaskRequest, CloseIoRequest, ContainerRequest, CreateTaskRequest, ExecProcessRequest,
    KillRequest, ProcessRequest, ResizePtyRequest, ShutdownRequest, UpdateTaskRequest,
};
use crate::containerd::proto::ttrpc::{Code, Status};

/// A call, its message parsed and its names checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// What is the process doing?
    State(ProcessRequest),
    /// Make a container.
    Create(Box<CreateTaskRequest>),
    /// Run a process.
    Start(ProcessRequest),
    /// Remove a process, or a container.
    Delete(ProcessRequest),
    /// Which processes are in the container?
    Pids(ContainerRequest),
    /// Freeze the container.
    Pause(ContainerRequest),
    /// Let it go on.
    Resume(ContainerRequest),
    /// Write it down.
    Checkpoint(CheckpointTaskRequest),
    /// Send a signal.
    Kill(KillRequest),
    /// Describe a further process.
    Exec(ExecProcessRequest),
    /// Its terminal has another size.
    ResizePty(ResizePtyRequest),
    /// Its input ends.
    CloseIo(CloseIoRequest),
    /// Change limits.
    Update(UpdateTaskRequest),
    /// Answer when the process has ended.
    Wait(ProcessRequest),
    /// What does the container use?
    Stats(ContainerRequest),
    /// Who are you?
    Connect(ContainerRequest),
    /// Leave, if nothing is left.
    Shutdown(ShutdownRequest),
}

impl Request {
    /// Whether containerd asks this for a client alone. The rest it asks of itself, too, when it
    /// begins and looks for what it had.
    #[must_use]
    pub fn is_a_clients(&self) -> bool {
        matches!(
            self,
            Self::Create(_)
                | Self::Start(_)
                | Self::Exec(_)
                | Self::Pause(_)
                | Self::Resume(_)
                | Self::Checkpoint(_)
                | Self::Update(_)
                | Self::ResizePty(_)
                | Self::CloseIo(_)
        )
    }
}

/// Parses the message of `method`.
///
/// # Errors
/// Unimplemented for another method, InvalidArgument for another message or
/// a name that cannot be one.
pub fn parse(method: &str, payload: &[u8]) -> Result<Request, Status> {
    Ok(match method {
        "State" => Request::State(process(payload)?),
        "Create" => {
            let request: CreateTaskRequest = decode(payload)?;
            check(&request.id)?;
            Request::Create(Box::new(request))
        }
        "Start" => Request::Start(process(payload)?),
        "Delete" => Request::Delete(process(payload)?),
        "Pids" => Request::Pids(decode(payload)?),
        "Pause" => Request::Pause(decode(payload)?),
        "Resume" => Request::Resume(decode(payload)?),
        "Checkpoint" => Request::Checkpoint(decode(payload)?),
        "Kill" => Request::Kill(decode(payload)?),
        "Exec" => {
            let request: ExecProcessRequest = decode(payload)?;
            check(&request.exec_id)?;
            Request::Exec(request)
        }
        "ResizePty" => Request::ResizePty(decode(payload)?),
        "CloseIO" => Request::CloseIo(decode(payload)?),
        "Update" => Request::Update(decode(payload)?),
        "Wait" => Request::Wait(process(payload)?),
        "Stats" => Request::Stats(decode(payload)?),
        "Connect" => Request::Connect(decode(payload)?),
        "Shutdown" => Request::Shutdown(decode(payload)?),
        _ => return Err(Status::new(Code::Unimplemented, format!("method {method}"))),
    })
}

fn process(payload: &[u8]) -> Result<ProcessRequest, Status> {
    decode(payload)
}

/// A message.
///
/// # Errors
/// InvalidArgument for bytes that are none.
pub fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|err| {
        Status::new(
            Code::InvalidArgument,
            format!("not the message of this method: {err}"),
        )
    })
}

/// Names become names of files in the bundle.
fn check(name: &str) -> Result<(), Status> {
    if is_name(name) {
        return Ok(());
    }
    Err(Status::new(
        Code::InvalidArgument,
        format!("{name:?} is not a name"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_are_refused() {
        let request = ExecProcessRequest {
            id: "c".into(),
            exec_id: "../x".into(),
            ..Default::default()
        };
        let refused = parse("Exec", &request.encode_to_vec()).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument as i32);
        assert!(
            parse(
                "Exec",
                &ExecProcessRequest {
                    exec_id: "x".into(),
                    ..request
                }
                .encode_to_vec()
            )
            .is_ok()
        );
    }

    #[test]
    fn what_nobody_knows_is_not_implemented() {
        assert_eq!(
            parse("Events", b"").unwrap_err().code,
            Code::Unimplemented as i32
        );
        assert_eq!(
            parse("Start", b"\xff").unwrap_err().code,
            Code::InvalidArgument as i32
        );
    }
}
