//! Processes are described and started.

use std::rc::Rc;

use super::call::{Call, Making};
use super::job::{self, Ended};
use super::life::{Event, Wish};
use super::pod::{Process, Stdio, Who};
use super::service::{Purpose, Service, failed, message, number};
use crate::Error;
use crate::containerd::bundle;
use crate::containerd::proto::Empty;
use crate::containerd::proto::events::TaskExecAdded;
use crate::containerd::proto::task::{ExecProcessRequest, StartResponse};
use crate::containerd::proto::ttrpc::{Code, Status};
use crate::containerd::stdio::{Context, Streams};
use crate::containerd::ttrpc::server::{Answer, Reply};
use crate::error::chain;

/// Kind of the file with an exec's pid: not `pid`, or an exec called `init` had the container's.
const PID: &str = "exec.pid";

impl Service {
    pub(super) fn begin_start(&mut self, who: &Who, reply: Option<Reply>) -> Result<(), Status> {
        self.permit(who, Wish::Start)?;
        if who.which.is_some() {
            self.open_exec(who)?;
        }
        self.step(who, Event::Starting);
        if who.which.is_some() {
            self.open(who, reply);
            return Ok(());
        }
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return Ok(());
        };
        let (call, streams, purpose) = match &container.image {
            None => (Call::Start, job::Streams::Ours(Vec::new()), Purpose::Start),
            Some(image) => {
                let (console, streams) = container.init.child_ends();
                let making = Making {
                    console,
                    ..container.making.clone()
                };
                let call = Call::Restore(making, image.clone());
                (call, streams, Purpose::Restore)
            }
        };
        self.call(who, reply, &call, streams, purpose);
        Ok(())
    }

    fn open_exec(&mut self, who: &Who) -> Result<(), Status> {
        let namespace = self.namespace.clone();
        let container = self.pod.container(&who.container)?;
        let (folder, owner) = (Rc::clone(&container.bundle), container.owner);
        let Some((process, exec)) = container.process_mut(&who.which).zip(who.which.as_deref())
        else {
            return Ok(());
        };
        let invalid =
            |err: &dyn std::error::Error| failed("failed to create init process I/O", err);
        let plan = process.stdio.plan().map_err(|err| invalid(&err))?;
        let context = Context {
            id: exec,
            namespace: &namespace,
            bundle: &folder,
            owner,
        };
        process.streams = Some(Streams::open(&plan, &context).map_err(|err| invalid(&err))?);
        Ok(())
    }

    /// Calls the runtime to run an exec, its streams being ready.
    pub(super) fn run_exec(&mut self, who: &Who, reply: Option<Reply>) {
        let Some((container, exec)) = self
            .pod
            .containers
            .get_mut(&who.container)
            .zip(who.which.as_deref())
        else {
            return;
        };
        let folder = Rc::clone(&container.bundle);
        let Some(process) = container.process_mut(&who.which) else {
            return;
        };
        let description = bundle::of_exec(&folder, exec, "process.json");
        let written = bundle::write_private(&description, &process.spec);
        let (console, streams) = process.child_ends();
        let call = Call::Exec {
            process: description,
            console,
            pid_file: bundle::of_exec(&folder, exec, PID),
        };
        match written {
            Ok(()) => self.call(who, reply, &call, streams, Purpose::Exec),
            Err(err) => self.called(who, reply, Purpose::Exec, Ended::Badly(chain(&err))),
        }
    }

    pub(super) fn started(
        &mut self,
        who: &Who,
        reply: Option<Reply>,
        purpose: &Purpose,
        ended: Ended,
    ) {
        let ended = match ended {
            Ended::Badly(words) => Err(words),
            Ended::Well(_) => match purpose {
                Purpose::Start => Ok(self.pod.process(who).map_or(0, |process| process.pid)),
                Purpose::Restore => self.take_over(who).map_err(|err| chain(&err)),
                _ => self.take_exec(who).map_err(|err| chain(&err)),
            },
        };
        if who.which.is_some() {
            self.clear_exec(who, ended.is_err());
        }
        match ended {
            Ok(pid) => {
                self.step(who, Event::Started);
                self.answer_to(reply, Ok(message(&StartResponse { pid: number(pid) })));
                self.meet_early(who, pid);
            }
            Err(words) => {
                let verb = match purpose {
                    Purpose::Start => "start",
                    Purpose::Restore => "restore",
                    _ => "exec",
                };
                let text = format!("OCI runtime {verb} failed: {words}");
                self.answer_to(reply, Err(Status::new(Code::Unknown, text)));
                self.step(who, Event::NotStarted);
            }
        }
    }

    fn take_exec(&mut self, who: &Who) -> Result<i32, Error> {
        let gone = || Error::Invalid("the container is gone".to_owned());
        let exec = who.which.as_deref().ok_or_else(gone)?;
        let container = self
            .pod
            .containers
            .get_mut(&who.container)
            .ok_or_else(gone)?;
        let pid = bundle::read_pid(&bundle::of_exec(&container.bundle, exec, PID))?;
        let process = container.process_mut(&who.which).ok_or_else(gone)?;
        process.pid = pid;
        if let Some(streams) = &mut process.streams {
            streams.started()?;
        }
        self.pids.insert(pid, who.clone());
        Ok(pid)
    }

    /// Removes what an exec's start needed, and its streams where it failed.
    fn clear_exec(&mut self, who: &Who, failed: bool) {
        let Some((container, exec)) = self
            .pod
            .containers
            .get_mut(&who.container)
            .zip(who.which.as_deref())
        else {
            return;
        };
        let folder = Rc::clone(&container.bundle);
        for kind in ["process.json", "log.json", PID] {
            let _: std::io::Result<()> = std::fs::remove_file(bundle::of_exec(&folder, exec, kind));
        }
        if let Some(process) = container.process_mut(&who.which) {
            process.spec = Vec::new();
            if failed {
                self.retired.extend(process.streams.take());
            }
        }
    }

    pub(super) fn describe(&mut self, who: &Who, asked: ExecProcessRequest) -> Answer {
        let key = self.pod.new_key(Who {
            container: Rc::clone(&who.container),
            which: Some(asked.exec_id.clone()),
        });
        let added = self.add_exec(who, key, asked);
        if added.is_err() {
            self.pod.forget_key(key);
        }
        added
    }

    fn add_exec(&mut self, who: &Who, key: u32, asked: ExecProcessRequest) -> Answer {
        let container = self.pod.container(&who.container)?;
        let exec = asked.exec_id;
        if container.execs.contains_key(&exec) {
            return Err(Status::new(
                Code::AlreadyExists,
                format!("id {exec}: already exists"),
            ));
        }
        container.life.permit(&None, Wish::Exec)?;
        let spec = describe(&asked.spec.unwrap_or_default().value, asked.terminal)?;
        let stdio = Stdio {
            terminal: asked.terminal,
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
        };
        container.life.add(&exec);
        container.execs.insert(
            exec.clone(),
            Process {
                spec,
                ..Process::new(key, stdio)
            },
        );
        let event = TaskExecAdded {
            container_id: container.id.to_string(),
            exec_id: exec,
        };
        self.publisher
            .publish(&container.bundle, &container.id, &event);
        Ok(message(&Empty {}))
    }
}

/// An exec's description for the runtime: its terminal is asked for beside it.
fn describe(spec: &[u8], terminal: bool) -> Result<Vec<u8>, Status> {
    let invalid = |text: String| Status::new(Code::InvalidArgument, text);
    let mut spec: serde_json::Value = serde_json::from_slice(spec)
        .map_err(|err| invalid(format!("the process's description: {err}")))?;
    let fields = spec
        .as_object_mut()
        .ok_or_else(|| invalid("the process's description is no object".to_owned()))?;
    fields.insert("terminal".to_owned(), terminal.into());
    serde_json::to_vec(&spec).map_err(|err| invalid(err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_gets_the_terminal_that_was_asked_for() {
        let spec = describe(br#"{"args":["a"],"terminal":false,"unknown":1}"#, true).unwrap();
        let spec: serde_json::Value = serde_json::from_slice(&spec).unwrap();
        assert_eq!(
            spec,
            serde_json::json!({"args": ["a"], "terminal": true, "unknown": 1})
        );
        assert!(describe(b"[]", false).is_err());
        assert!(describe(b"", false).is_err());
    }
}
