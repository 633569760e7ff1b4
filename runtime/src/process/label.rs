//! Labels of the Linux security modules: AppArmor's profile and SELinux's
//! context, which the process takes on at its execve(2).

use std::path::Path;

use crate::error::Error;
use crate::init::{Failure, Step};
use crate::spec::{Process, invalid};

/// What modules the host runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modules {
    /// AppArmor, on and visible.
    pub apparmor: fn() -> bool,
    /// SELinux, on.
    pub selinux: fn() -> bool,
}

/// The host's. Asked only where there is a label.
pub(super) const HOST: Modules = Modules {
    apparmor: || {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
        Path::new("/sys/kernel/security/apparmor").exists()
            && enabled.is_ok_and(|text| text.starts_with(b"Y"))
    },
    selinux,
};

/// Whether the host runs SELinux.
pub(crate) fn selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// One file below `/proc/self/attr`, and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    what: &'static str,
    /// The file; after it another that older kernels have.
    files: [&'static str; 2],
    text: String,
}

/// What is to be written for a process. A label that no module would read is
/// an error: the process would run without the confinement it was given.
pub(super) fn plan(process: &Process, host: Modules) -> Result<Vec<Label>, Error> {
    let mut labels = Vec::new();
    if !process.apparmor_profile.is_empty() {
        if !(host.apparmor)() {
            return Err(invalid(
                "process.apparmorProfile",
                "unable to apply apparmor profile: apparmor: config provided but apparmor not supported",
            ));
        }
        labels.push(Label {
            what: "apparmor profile",
            files: ["self/attr/apparmor/exec", "self/attr/exec"],
            text: format!("exec {}", process.apparmor_profile),
        });
    }
    if !process.selinux_label.is_empty() {
        if !(host.selinux)() {
            return Err(invalid(
                "process.selinuxLabel",
                "selinux label is specified in config, but selinux is disabled or not supported",
            ));
        }
        labels.push(Label {
            what: "selinux label",
            files: ["self/attr/exec"; 2],
            text: process.selinux_label.clone(),
        });
    }
    Ok(labels)
}

/// What is to be written before a keyring is made for a process, as runc does;
/// [`plan`] has seen that it is read.
pub(super) fn of_keys(process: &Process) -> Option<Label> {
    let label = || Label {
        what: "selinux label of keys",
        files: ["self/attr/keycreate"; 2],
        text: process.selinux_label.clone(),
    };
    (!process.selinux_label.is_empty()).then(label)
}

impl Label {
    /// Writes it to this process's own file, of a procfs that is checked to be one.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        let fail = || format!("{} {:?}", self.what, self.text);
        let proc = crate::proc::open().map_err(Step::Label.on(fail()))?;
        let [file, older] = self.files;
        let written = match crate::proc::write(&proc, file, self.text.as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                crate::proc::write(&proc, older, self.text.as_bytes())
            }
            result => result,
        };
        written.map_err(Step::Label.on(fail()))
    }

    /// Takes it back: the module has its own rule again. An empty text would
    /// write nothing, and a line break says the same to SELinux.
    pub(super) fn reset(&self) -> std::io::Result<()> {
        crate::proc::write(&crate::proc::open()?, self.files[0], b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Modules = Modules {
        apparmor: || true,
        selinux: || true,
    };
    const NONE: Modules = Modules {
        apparmor: || false,
        selinux: || false,
    };

    fn process(apparmor: &str, selinux: &str) -> Process {
        Process {
            apparmor_profile: apparmor.into(),
            selinux_label: selinux.into(),
            ..Process::default()
        }
    }

    #[test]
    fn each_module_has_its_file() {
        let labels = plan(&process("docker-default", "u:r:t:s0"), ALL).unwrap();
        let written: Vec<_> = labels
            .iter()
            .map(|l| (l.files[0], l.text.as_str()))
            .collect();
        assert_eq!(
            written,
            [
                ("self/attr/apparmor/exec", "exec docker-default"),
                ("self/attr/exec", "u:r:t:s0"),
            ]
        );
    }

    #[test]
    fn keys_have_the_label_of_the_process() {
        let label = of_keys(&process("docker-default", "u:r:t:s0")).unwrap();
        assert_eq!(
            (label.files, label.text.as_str()),
            (["self/attr/keycreate"; 2], "u:r:t:s0")
        );
        assert_eq!(of_keys(&process("docker-default", "")), None);
    }

    /// Where no module reads it the file refuses: as any does (EINVAL), or because
    /// a test's thread is not the process that `self` names (EACCES).
    #[test]
    fn the_file_of_keys_is_written_and_reset() {
        if (HOST.selinux)() {
            return eprintln!("SKIPPED keycreate: SELinux is on and knows no such label");
        }
        let refusals = [libc::EINVAL, libc::EACCES];
        let label = of_keys(&process("", "u:r:t:s0")).unwrap();
        let failure = label.apply().unwrap_err();
        assert!(refusals.contains(&failure.errno), "{failure:?}");
        let refused = label.reset().unwrap_err().raw_os_error();
        assert!(refusals.contains(&refused.unwrap()), "{refused:?}");
    }

    #[test]
    fn a_label_that_nobody_reads_is_refused_in_runcs_words() {
        assert_eq!(plan(&process("", ""), NONE).unwrap(), []);
        let error = plan(&process("x", ""), NONE).unwrap_err().to_string();
        assert!(error.contains("apparmor not supported"), "{error}");
        let error = plan(&process("", "x"), NONE).unwrap_err().to_string();
        assert!(
            error.contains("selinux is disabled or not supported"),
            "{error}"
        );
    }
}
