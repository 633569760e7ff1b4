//! `Create`, from the request to the pid.

use std::path::Path;
use std::rc::Rc;

use serde::Deserialize;

use super::call::{Call, Making, PID_FILE, Runtime};
use super::job::Ended;
use super::life::Event;
use super::pod::{Busy, Container, Who};
use super::service::{Purpose, Service, complain, failed, message, number};
use crate::Error;
use crate::containerd::events::publisher::Publisher;
use crate::containerd::proto::events::{TaskCreate, TaskIo};
use crate::containerd::proto::task::{CreateTaskRequest, CreateTaskResponse};
use crate::containerd::proto::ttrpc::{Code, Status};
use crate::containerd::record::Record;
use crate::containerd::stdio::{Context, Streams};
use crate::containerd::ttrpc::server::Reply;
use crate::containerd::{bundle, options, rootfs};
use crate::error::{At as _, chain};
use crate::supervisor::cgroups::Cgroups;
use crate::supervisor::oom::Watch;

/// Largest `config.json` read, in bytes. The runtime refuses larger ones too.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

impl Service {
    pub(super) fn create(&mut self, reply: Reply, request: Box<CreateTaskRequest>) {
        match self.prepare(&request) {
            Ok(mut container) => {
                let who = Who {
                    container: Rc::clone(&container.id),
                    which: None,
                };
                container.request = Some((Some(reply), request));
                self.pod
                    .containers
                    .insert(Rc::clone(&container.id), container);
                self.open(&who, Some(reply));
            }
            Err(status) => self.answer(reply, Err(status)),
        }
    }

    /// Everything up to the runtime's call. On failure nothing is left but files in the bundle.
    fn prepare(&mut self, request: &CreateTaskRequest) -> Result<Container, Status> {
        if self.leaving {
            return Err(Status::new(Code::Unavailable, "the shim leaves"));
        }
        let id: Rc<str> = request.id.as_str().into();
        if self.pod.containers.contains_key(&id) {
            return Err(Status::new(
                Code::AlreadyExists,
                format!("container {id}: already exists"),
            ));
        }
        let options = options::of(&request.options.clone().unwrap_or_default())
            .map_err(|err| Status::new(Code::InvalidArgument, chain(&err)))?;
        let folder = Path::new(&request.bundle);
        bundle::write_options(folder, &options)
            .map_err(|err| failed("write the options down", &err))?;
        let runtime = Runtime::new(&options, &self.namespace, &self.default_runtime);
        let shares_pids = shares_pids(folder);
        let key = self.pod.new_key(Who {
            container: id,
            which: None,
        });
        let mut container = Container::new(request, &options, runtime, key, shares_pids);
        let result = mount(request).and_then(|()| {
            open_streams(&mut container, &self.namespace).inspect_err(|_| unmount(folder, request))
        });
        match result {
            Ok(()) => Ok(container),
            Err(status) => {
                self.pod.forget_key(key);
                Err(status)
            }
        }
    }

    /// Calls the runtime, its streams being ready.
    pub(super) fn make(&mut self, who: &Who, reply: Option<Reply>) {
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return;
        };
        if container.image.is_some() {
            // CRIU makes the process at the start; there is nothing to make now.
            container.init.busy = Busy::Idle;
            self.made(who, reply, 0);
            return;
        }
        let (console, streams) = container.init.child_ends();
        let call = Call::Create(Making {
            console,
            ..container.making.clone()
        });
        self.call(who, reply, &call, streams, Purpose::Create);
    }

    /// The runtime has made it, or not.
    pub(super) fn created(&mut self, who: &Who, reply: Option<Reply>, ended: Ended) {
        match ended {
            Ended::Badly(words) => {
                self.abandon(who, reply, format!("OCI runtime create failed: {words}"))
            }
            Ended::Well(_) => match self.take_over(who) {
                Ok(pid) => self.made(who, reply, pid),
                Err(err) => {
                    self.abandon(who, reply, failed("take the container over", &err).message)
                }
            },
        }
    }

    /// Learns the first process's pid, and where it is counted.
    pub(super) fn take_over(&mut self, who: &Who) -> Result<i32, Error> {
        let gone = || Error::Invalid("the container is gone".to_owned());
        let container = self
            .pod
            .containers
            .get_mut(&who.container)
            .ok_or_else(gone)?;
        let pid = bundle::read_pid(&container.bundle.join(PID_FILE))?;
        if let Some(streams) = &mut container.init.streams {
            streams.started()?;
        }
        container.init.pid = pid;
        let record = Record::of(pid);
        complain(record.write(&container.bundle));
        container.record = Some(record);
        container.cgroups = Cgroups::of(pid);
        let watch = container.cgroups.as_ref().map(Watch::new);
        match watch.transpose().call("listen for the OOM killer") {
            Ok(watch) => container.oom = watch.flatten(),
            Err(err) => complain(Err(err)),
        }
        self.pids.insert(pid, who.clone());
        Ok(pid)
    }

    /// The container exists: says so to all.
    fn made(&mut self, who: &Who, reply: Option<Reply>, pid: i32) {
        let Some(container) = self.pod.containers.get_mut(&who.container) else {
            return;
        };
        if let Some((_, request)) = container.request.take() {
            publish_create(&mut self.publisher, container, *request, pid);
        }
        self.step(who, Event::Created);
        if let Some(reply) = reply {
            self.answer(reply, Ok(message(&CreateTaskResponse { pid: number(pid) })));
        }
        self.meet_early(who, pid);
    }

    /// It could not be made: takes back what was done for it.
    pub(super) fn abandon(&mut self, who: &Who, reply: Option<Reply>, text: String) {
        if let Some(container) = self.pod.containers.remove(&who.container) {
            if let Some((_, request)) = &container.request {
                unmount(&container.bundle, request);
            }
            self.retire(container);
        }
        if let Some(reply) = reply {
            self.answer(reply, Err(Status::new(Code::Unknown, text)));
        }
    }
}

fn publish_create(
    publisher: &mut Publisher,
    container: &Container,
    request: CreateTaskRequest,
    pid: i32,
) {
    let event = TaskCreate {
        container_id: request.id,
        bundle: request.bundle,
        rootfs: request.rootfs,
        io: Some(TaskIo {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        }),
        checkpoint: request.checkpoint,
        pid: number(pid),
    };
    publisher.publish(&container.bundle, &container.id, &event);
}

fn open_streams(container: &mut Container, namespace: &str) -> Result<(), Status> {
    let invalid = |err: &dyn std::error::Error| failed("failed to create init process I/O", err);
    let plan = container.init.stdio.plan().map_err(|err| invalid(&err))?;
    let context = Context {
        id: &container.id,
        namespace,
        bundle: &container.bundle,
        owner: container.owner,
    };
    container.init.streams = Some(Streams::open(&plan, &context).map_err(|err| invalid(&err))?);
    Ok(())
}

fn mount(request: &CreateTaskRequest) -> Result<(), Status> {
    if request.rootfs.is_empty() {
        return Ok(());
    }
    let target = Path::new(&request.bundle).join("rootfs");
    let refused = |err: &dyn std::error::Error| failed("failed to mount rootfs component", err);
    bundle::make_rootfs(&target).map_err(|err| refused(&err))?;
    rootfs::mount_all(&request.rootfs, &target).map_err(|err| refused(&err))
}

fn unmount(folder: &Path, request: &CreateTaskRequest) {
    if !request.rootfs.is_empty() {
        complain(rootfs::unmount_all(&folder.join("rootfs")));
    }
}

/// Whether nothing ends with the container's first process, because it has no
/// pid namespace of its own. One whose configuration cannot be read may be such.
fn shares_pids(folder: &Path) -> bool {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        linux: Linux,
    }
    #[derive(Deserialize, Default)]
    struct Linux {
        #[serde(default)]
        namespaces: Vec<Namespace>,
    }
    #[derive(Deserialize)]
    struct Namespace {
        r#type: String,
        #[serde(default)]
        path: String,
    }
    let config: Option<Config> = bundle::read_json(&folder.join("config.json"), CONFIG_BYTES_MAX);
    !config.is_some_and(|config| {
        let mut namespaces = config.linux.namespaces.iter();
        namespaces.any(|namespace| namespace.r#type == "pid" && namespace.path.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_namespace_of_its_own_is_told_from_a_shared_one() {
        let dir = tempfile::tempdir().unwrap();
        for (config, shares) in [
            (
                r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#,
                false,
            ),
            (
                r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#,
                true,
            ),
            (r#"{"linux":{}}"#, true),
            ("{}", true),
            ("{", true),
        ] {
            std::fs::write(dir.path().join("config.json"), config).unwrap();
            assert_eq!(shares_pids(dir.path()), shares, "{config}");
        }
    }
}
