//! A post for a monitor to stand at: a bundle, a runtime whose container is a
//! plain process, and pipes that are files.

use std::path::PathBuf;
use std::process::Command;
use teu_integration_tests::command::{TIME_LIMIT, run_limited};
use teu_integration_tests::{Outcome, Scene, binary, missing_command};

/// The container's id, long enough for the journal.
pub(crate) const ID: &str = "0123456789abcdef0123456789abcdef";

/// Makes a process of BUNDLE/program, or of the process description; what it
/// was called with is written down. The program begins when the runtime has ended:
/// this shell would reap what ends before itself, and its status with it.
const RUNTIME: &str = r#"#!/bin/sh
home=${0%/*}
echo "$*" >>"$home/calls"
if [ -e "$home/refuses" ]; then cat "$home/refuses" >&2; exit 3; fi
while [ $# -gt 0 ]; do
	case $1 in
	--pid-file) pid=$2 ;;
	--bundle) program=$2/program ;;
	--process) program=$2 ;;
	esac
	shift
done
exec 9<&0
HOME_OF_TEST=$home setsid sh -c 'while kill -0 $1 2>/dev/null; do :; done; exec sh "$2"' sh $$ "$program" <&9 9<&- &
echo $! >"$pid"
"#;

/// One monitor's place.
pub(crate) struct Post<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) monitor: PathBuf,
    pub(crate) home: PathBuf,
}

/// The place of teu-shim.
pub(crate) fn ours<'a>(scene: &'a Scene) -> Post<'a> {
    Post::new(scene, "ours", binary("teu-shim"))
}

/// Has both monitors do the same and compares what `observe` saw of each.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    scene: &Scene,
    observe: impl Fn(&Post) -> T,
) -> T {
    let seen = observe(&ours(scene));
    if missing_command("conmon") {
        teu_integration_tests::skipped(scene.name(), "no conmon to compare with");
        return seen;
    }
    let theirs = observe(&Post::new(scene, "conmon", "conmon".into()));
    assert_eq!(seen, theirs, "ours and conmon's");
    seen
}

impl<'a> Post<'a> {
    fn new(scene: &'a Scene, name: &str, monitor: PathBuf) -> Self {
        let home = scene.path(name);
        for folder in ["bundle", "exits", "persist"] {
            std::fs::create_dir_all(home.join(folder)).unwrap();
        }
        let post = Self {
            scene,
            monitor,
            home,
        };
        post.write("runtime", RUNTIME);
        scene.shell(&format!(
            "chmod +x {0}/runtime; test -e {0}/start || mkfifo {0}/start",
            post.home.display()
        ));
        post
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// What a file holds; nothing where there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    /// The script that is the container.
    pub(crate) fn program(&self, script: &str) -> &Self {
        self.write("bundle/program", script);
        self
    }

    /// The usual options, and more. Each `@` stands for this place's folder.
    pub(crate) fn command(&self, more: &str) -> Command {
        let usual = format!(
            "--api-version 1 -c {ID} -u {ID} -n name -r @/runtime -p @/pid -P @/monitor \
             --exit-dir @/exits --persist-dir @/persist --full-attach"
        );
        let home = self.home.display().to_string();
        let words = format!("{usual} {more}").replace('@', &home);
        let words = words.split_whitespace().map(str::to_owned);
        let open = r#"exec "$@" 3>>"$HOME_OF_TEST/sync" 4<>"$HOME_OF_TEST/start" 5>>"$HOME_OF_TEST/attach""#;
        let monitor = self.monitor.display().to_string();
        let line = ["-c".to_owned(), open.to_owned(), "sh".to_owned(), monitor];
        let mut command = self.scene.command("sh", line.into_iter().chain(words));
        command
            .current_dir(&self.home)
            .env("HOME_OF_TEST", &self.home)
            .env("_OCI_SYNCPIPE", "3")
            .env("_OCI_ATTACHPIPE", "5");
        command
    }

    /// Starts a monitor with a bundle and `more`; it has left its caller when this returns.
    pub(crate) fn start(&self, more: &str) -> Outcome {
        let command = self.command(&format!("-b @/bundle {more}"));
        run_limited(command, b"", TIME_LIMIT)
    }

    /// The monitor's pid.
    pub(crate) fn pid(&self) -> i32 {
        self.read("monitor").trim().parse().unwrap()
    }

    pub(crate) fn is_there(&self) -> bool {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        state.is_ok_and(|text| !text.contains(") Z "))
    }

    /// Waits until the monitor has left.
    pub(crate) fn wait(&self) -> &Self {
        self.scene
            .wait_until("the monitor has left", || !self.is_there());
        self
    }

    /// Waits until `file` holds `part`.
    pub(crate) fn wait_for(&self, file: &str, part: &str) -> &Self {
        let what = format!("{part:?} in {file}");
        self.scene
            .wait_until(&what, || self.read(file).contains(part));
        self
    }

    /// Starts `script` as container with a k8s-file log, waits for its end.
    pub(crate) fn run(&self, script: &str, more: &str) -> &Self {
        self.program(script);
        self.start(&format!("-l k8s-file:@/log {more}")).succeeds();
        self.wait()
    }

    /// The log's entries, without their times.
    pub(crate) fn entries(&self) -> Vec<String> {
        let cut = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
        self.read("log").lines().filter_map(cut).collect()
    }

    /// The container's pid becomes a word that is the same everywhere, as does this place's folder.
    pub(crate) fn plain(&self, text: &str) -> String {
        let pid = self.read("pid");
        let text = match pid.trim() {
            "" => text.to_owned(),
            pid => text.replace(&format!(": {pid}}}"), ": PID}"),
        };
        text.replace(&self.home.display().to_string(), "@")
    }
}

/// What log files hold of `stream`, byte for byte.
pub(crate) fn output(files: &[PathBuf], stream: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for file in files {
        let text = std::fs::read(file).unwrap();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap();
            let parts: Vec<&[u8]> = line.splitn(4, |byte| *byte == b' ').collect();
            let [_, of, tag, text] = parts[..] else {
                panic!("no entry: {:?}", String::from_utf8_lossy(line));
            };
            if of == stream.as_bytes() {
                bytes.extend_from_slice(text);
                if tag == b"F" {
                    bytes.push(b'\n');
                }
            }
        }
    }
    bytes
}
