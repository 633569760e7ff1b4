//! What others find when it is over.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use super::cli::Options;
use crate::Error;
use crate::error::At as _;

/// Replaces a file whole: readers see the old one, or the new one, never half.
///
/// # Errors
/// I/O errors; then the old one stands.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut space = path.as_os_str().to_owned();
    space.push(format!(".{}", std::process::id()));
    let space = PathBuf::from(space);
    std::fs::write(&space, content).at("write", &space)?;
    std::fs::rename(&space, path).at("rename", &space)
}

/// Writes the exit status where callers look for it: `persist-dir/exit` and `exit-dir/ID`.
///
/// # Errors
/// The first failure; what comes after it was tried nevertheless.
pub fn write_status(options: &Options, status: i32) -> Result<(), Error> {
    let text = status.to_string();
    let id = options.cid.as_deref().unwrap_or_default();
    let persistent = options
        .persist_dir
        .as_ref()
        .map(|folder| folder.join("exit"));
    let announced = options.exit_dir.as_ref().map(|folder| folder.join(id));
    let files = [persistent, announced];
    let results = files
        .iter()
        .flatten()
        .map(|path| replace(path, text.as_bytes()));
    results.fold(Ok(()), Result::and)
}

/// Writes down that the kernel killed for want of memory: an empty file `oom`
/// in the bundle, where podman looks, and in the persistent folder, where
/// cri-o does.
///
/// # Errors
/// The first failure; what comes after it was tried nevertheless.
pub fn write_oom(options: &Options, bundle: Option<&Path>) -> Result<(), Error> {
    let folders = [bundle, options.persist_dir.as_deref()];
    let results = folders.iter().flatten().map(|folder| {
        let path = folder.join("oom");
        std::fs::write(&path, b"").at("write", &path)
    });
    results.fold(Ok(()), Result::and)
}

/// Starts the exit command, if there is one.
///
/// It may start programs that go on: they are not ours to wait for, so we are
/// no longer who inherits processes.
///
/// # Errors
/// Why it cannot be executed.
pub fn exit_command(options: &Options) -> Result<Option<Child>, Error> {
    let Some(program) = &options.exit_command else {
        return Ok(None);
    };
    rustix::process::set_child_subreaper(None).call("prctl")?;
    let mut command = Command::new(program);
    command.args(&options.exit_command_args);
    crate::sys::before_exec(&mut command, crate::sys::unblock_signals);
    command.spawn().at("execute", Path::new(program)).map(Some)
}

/// Kills a process with its process group, where it leads one.
pub fn kill_group(pid: rustix::process::Pid) {
    use rustix::process::{Signal, getpgid, kill_process, kill_process_group};
    let leads = getpgid(Some(pid)).is_ok_and(|group| group == pid);
    let _: rustix::io::Result<()> = if leads {
        kill_process_group(pid, Signal::KILL)
    } else {
        kill_process(pid, Signal::KILL)
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn files_are_where_callers_look() {
        let folder = tempfile::tempdir().unwrap();
        let (bundle, exits) = (folder.path().join("bundle"), folder.path().join("exits"));
        std::fs::create_dir(&bundle).unwrap();
        std::fs::create_dir(&exits).unwrap();
        let options = Options {
            cid: Some("id".into()),
            persist_dir: Some(folder.path().to_owned()),
            exit_dir: Some(exits.clone()),
            ..Options::default()
        };
        write_status(&options, 137).unwrap();
        write_oom(&options, Some(&bundle)).unwrap();
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(exits.join("id")), "137");
        assert_eq!(read(folder.path().join("exit")), "137");
        assert_eq!(
            read(bundle.join("oom")) + &read(folder.path().join("oom")),
            ""
        );
        assert_eq!(std::fs::read_dir(&exits).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_gone_does_not_keep_the_other_file_away() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            cid: Some("id".into()),
            persist_dir: Some("/nonexistent".into()),
            exit_dir: Some(folder.path().to_owned()),
            ..Options::default()
        };
        assert!(write_status(&options, 0).is_err());
        assert_eq!(
            std::fs::read_to_string(folder.path().join("id")).unwrap(),
            "0"
        );
    }

    #[test]
    fn a_group_is_killed_whole() {
        use std::os::unix::process::CommandExt as _;
        let mut shell = Command::new("/bin/sh");
        let mut child = shell
            .args(["-c", "sleep 100"])
            .process_group(0)
            .spawn()
            .unwrap();
        kill_group(rustix::process::Pid::from_child(&child));
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
