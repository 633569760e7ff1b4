//! A container that is a service, whose manager wants to hear when it is ready
//! (sd_notify(3)).

pub(crate) mod notify;

use std::ffi::OsString;
use std::path::Path;

use crate::spec::{Mount, Spec};

/// The environment of the runtime, as far as a service manager has set it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// Socket of the manager, which hears what the container says.
    pub notify: Option<OsString>,
}

impl Service {
    /// What this process was given.
    pub(crate) fn of_this_process() -> Service {
        Service::read(std::env::var_os("NOTIFY_SOCKET"))
    }

    fn read(socket: Option<OsString>) -> Service {
        Service {
            notify: socket.filter(|socket| !socket.is_empty()),
        }
    }

    /// Puts it into the configuration of a container whose state is kept in
    /// `state`: a socket of its own, in a folder that is mounted.
    pub(crate) fn hand_on(&self, spec: &mut Spec, state: &Path) {
        let (Some(process), Some(_)) = (&mut spec.process, &self.notify) else {
            return;
        };
        process
            .env
            .push(format!("NOTIFY_SOCKET={}", notify::INSIDE));
        spec.mounts.push(Mount {
            destination: notify::FOLDER_INSIDE.into(),
            kind: "bind".into(),
            source: state.join(notify::FOLDER).display().to_string(),
            options: ["bind", "nosuid", "noexec", "nodev", "ro"]
                .map(str::to_owned)
                .to_vec(),
            ..Mount::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed_on(socket: &str) -> (Vec<String>, usize) {
        let text =
            br#"{"ociVersion":"1.0.2","root":{"path":"r"},"process":{"args":["x"],"cwd":"/"}}"#;
        let mut spec = Spec::parse(text).unwrap();
        Service::read(Some(socket.into())).hand_on(&mut spec, Path::new("/run/r/id"));
        (spec.process.unwrap().env, spec.mounts.len())
    }

    #[test]
    fn the_container_gets_a_socket_of_its_own() {
        let (env, mounts) = handed_on("/run/host");
        assert_eq!(env, ["NOTIFY_SOCKET=/run/notify/notify.sock"]);
        assert_eq!(mounts, 1);
        assert_eq!(handed_on(""), (Vec::new(), 0));
    }
}
