//! The attach socket and the fifos.

use super::post::{ID, Post, ours, same};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, send, shutdown, socket_with,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use teu_integration_tests::Scene;

/// Somebody attached.
pub(crate) struct Client(OwnedFd);

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let folder = std::fs::File::open(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let flags = SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let short = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
        connect(&fd, &SocketAddrUnix::new(short).unwrap()).unwrap();
        Self(fd)
    }

    pub(crate) fn type_in(&self, text: &str) {
        send(&self.0, text.as_bytes(), SendFlags::empty()).unwrap();
    }

    pub(crate) fn end_input(&self) {
        shutdown(&self.0, Shutdown::Write).unwrap();
    }

    /// The next packet: its tag and what it holds. `None`: the end.
    pub(crate) fn packet(&self) -> Option<(u8, Vec<u8>)> {
        let mut packet = [0; 16 * 1024];
        let (n, _) = recv(&self.0, &mut packet[..], RecvFlags::empty()).unwrap();
        let (tag, text) = packet[..n].split_first()?;
        Some((*tag, text.to_vec()))
    }

    /// All standard output and all standard error, to the end.
    pub(crate) fn output(&self) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        while let Some((tag, text)) = self.packet() {
            match tag {
                2 => out.extend(text),
                3 => err.extend(text),
                other => panic!("tag {other}"),
            }
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(out), text(err))
    }
}

/// Starts a container that says what it reads.
fn start_cat(post: &Post, more: &str) {
    post.program("echo ready >>$HOME_OF_TEST/ready; exec cat");
    post.start(&format!("-l @/log {more}")).succeeds();
    post.wait_for("ready", "ready");
}

#[test]
fn doors_have_the_kind_and_the_mode_that_callers_expect() {
    let scene = Scene::new("conmon's doors");
    same(&scene, |post| {
        start_cat(post, "-i");
        let mut doors = Vec::new();
        for name in ["attach", "ctl", "winsz"] {
            let meta = std::fs::metadata(post.path("bundle").join(name)).unwrap();
            let kind = meta.file_type();
            doors.push((kind.is_socket(), kind.is_fifo(), meta.permissions().mode()));
        }
        Client::connect(&post.path("bundle/attach")).end_input();
        post.wait();
        assert!(!post.path("bundle/attach").exists());
        doors
    });
}

#[test]
fn what_is_typed_goes_in_and_what_is_said_comes_out_to_everybody() {
    let scene = Scene::new("conmon's attach");
    same(&scene, |post| {
        post.program("read line; echo got $line; echo bad >&2; cat");
        post.start("-l @/log -i").succeeds();
        post.wait_for("sync", "data");
        let attach = post.path("bundle/attach");
        let clients: Vec<Client> = (0..5).map(|_| Client::connect(&attach)).collect();
        std::thread::sleep(std::time::Duration::from_millis(200));
        clients[0].type_in("one\n");
        post.wait_for("log", "bad");
        clients[1].type_in("two\n");
        post.wait_for("log", "two");
        clients[2].end_input();
        for client in &clients {
            assert_eq!(client.output(), ("got one\ntwo\n".into(), "bad\n".into()));
        }
        post.wait();
        post.read("persist/exit")
    });
}

#[test]
fn standard_input_ends_with_its_client_unless_it_is_left_open() {
    let scene = Scene::new("conmon's standard input");
    same(&scene, |post| {
        start_cat(post, "-i --leave-stdin-open");
        for text in ["one", "two"] {
            let client = Client::connect(&post.path("bundle/attach"));
            client.type_in(&format!("{text}\n"));
            post.wait_for("log", text);
        }
        assert!(post.is_there());
        let pid = post.read("pid");
        scene.shell(&format!("kill {pid}"));
        post.wait();
    });
    let post = ours(&scene);
    post.program("cat; echo over");
    post.start("-l @/log2").succeeds();
    post.wait();
    assert!(
        post.read("log2").contains("over"),
        "without -i there is no input"
    );
}

#[test]
fn a_socket_whose_path_is_too_long_is_there_nevertheless() {
    let scene = Scene::new("conmon's long paths");
    same(&scene, |post| {
        let long = format!("bundle/{}/{}", "a".repeat(100), "b".repeat(100));
        std::fs::create_dir_all(post.path(&long)).unwrap();
        post.write(&format!("{long}/program"), "read line; echo $line");
        post.start(&format!("-i -l @/log -b @/{long}")).succeeds();
        post.wait_for("sync", "data");
        let client = Client::connect(&post.path(&long).join("attach"));
        client.type_in("hello\n");
        assert_eq!(client.output().0, "hello\n");
        post.wait();
    });
}

#[test]
fn callers_with_short_paths_find_a_link() {
    let scene = Scene::new("conmon --socket-dir-path");
    same(&scene, |post| {
        post.program("read line; echo $line");
        std::fs::create_dir(post.path("s")).unwrap();
        let command = post.command("-b @/bundle -i -l @/log --socket-dir-path @/s");
        let words: Vec<_> = command
            .get_args()
            .filter(|word| *word != "--full-attach")
            .collect();
        let mut plain = scene.command("sh", words);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => plain.env(name, value),
                None => plain.env_remove(name),
            };
        }
        plain.current_dir(&post.home);
        let limit = teu_integration_tests::command::TIME_LIMIT;
        teu_integration_tests::command::run_limited(plain, b"", limit).succeeds();
        post.wait_for("sync", "data");
        let client = Client::connect(&post.path("s").join(ID).join("attach"));
        client.type_in("hello\n");
        assert_eq!(client.output().0, "hello\n");
        post.wait();
        let link = std::fs::read_link(post.path("s").join(ID)).unwrap();
        post.plain(link.to_str().unwrap())
    });
}

#[test]
fn readiness_passes_to_the_service_manager() {
    let scene = Scene::new("conmon's sd-notify");
    same(&scene, |post| {
        std::fs::create_dir(post.path("bundle/notify")).unwrap();
        let host = std::os::unix::net::UnixDatagram::bind(post.path("host")).unwrap();
        host.set_read_timeout(Some(std::time::Duration::from_secs(10)))
            .unwrap();
        post.program("echo up; while [ ! -e $HOME_OF_TEST/heard ]; do sleep 0.05; done");
        post.start("-l @/log --sdnotify-socket @/host").succeeds();
        post.wait_for("log", "up");
        let container = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let door = post.path("bundle/notify/notify.sock");
        let mode = std::fs::metadata(&door).unwrap().permissions().mode() & 0o777;
        container.send_to(b"MAINPID=1", &door).unwrap();
        container.send_to(b"STATUS=x\nREADY=1", &door).unwrap();
        let mut text = [0; 64];
        let n = host.recv(&mut text).unwrap();
        post.write("heard", b"");
        post.wait();
        (text[..n].to_vec(), mode)
    });
}
