//! `teu exec`: another process in a running container, by the runtime.

mod stay;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::{Value, json};

use super::detach::Keys;
use super::flags;
use super::own_terminal::window_size;
use super::user::{self, User};
use crate::Error;
use crate::container::exit::SIGNAL_STATUS_BASE;
use crate::container::status::{State, Status, observe};
use crate::container::{ContainerId, Folder, Place, Record};
use crate::error::At as _;
use crate::runtime::Runtime;

/// runc's status where it could not start the process; a process may end with it, too.
const STATUS_RUNTIME_ERROR: i32 = 255;

/// Passed on to the process, or to the runtime, which passes them to the process. WINCH is a
/// terminal's; CONT is our own to deal with.
const SIGNALS: [i32; 9] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGCONT,
    libc::SIGWINCH,
];
/// Most that is read at once of what a process says, in bytes.
const BLOCK_BYTES: usize = 8192;
/// Most that an ended process may have left in a pipe, in bytes: the largest that
/// /proc/sys/fs/pipe-max-size allows by default. A terminal holds less; whoever goes on
/// writing keeps nobody waiting.
const LEFT_BYTES_MAX: usize = 1 << 20;

/// `teu exec`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Leave it running, without its output
    #[arg(short, long)]
    detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave its terminal by these keys; "" for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: Keys,
    /// Set a variable; without =VALUE, pass the caller's on
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Run in this folder
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The container
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command with the container's settings, changed by the flags; ends with its status.
pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<u8, Error> {
    let folder = Folder::resolve(place, &arguments.container)?;
    let record = folder.record()?;
    match observe(&folder)? {
        Status::Running | Status::Unsupervised(_) => {}
        other => {
            let hint = ", not running; start it first";
            return Err(Error::State {
                name: record.name.to_string(),
                state: other.word().to_owned(),
                hint,
            });
        }
    }
    if arguments.tty && arguments.interactive && !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(Error::Invalid(
            "standard input is not a terminal: leave --tty away".into(),
        ));
    }
    let lookup = |name: &str| std::env::var(name).ok();
    let mut variables = Vec::new();
    for text in &arguments.env {
        variables.extend(flags::variable(text, &lookup)?);
    }
    let config: Option<Value> = folder.read_json("config.json")?;
    let process = config
        .as_ref()
        .and_then(|config| config.get("process"))
        .cloned()
        .unwrap_or_else(|| json!({}));
    let user = match &arguments.user {
        Some(text) => Some(user::of_container(init_pid(&folder)?, text)?),
        None => None,
    };
    let mut process = change(process, arguments, variables, user.as_ref());
    if let Some(size) = window_size().filter(|_| arguments.tty) {
        process["consoleSize"] = json!({"height": size.ws_row, "width": size.ws_col});
    }
    execute(place, &folder, &record, arguments, &process)
}

fn init_pid(folder: &Folder) -> Result<i32, Error> {
    let state: Option<State> = folder.read_json("state.json")?;
    let init = state.and_then(|state| state.living_init());
    init.map(|init| init.pid)
        .ok_or_else(|| Error::Invalid("the container's first process is gone".into()))
}

/// The container's own process, changed as the flags say. Pure.
fn change(
    mut process: Value,
    arguments: &Arguments,
    variables: Vec<String>,
    user: Option<&User>,
) -> Value {
    process["args"] = json!(arguments.command);
    process["terminal"] = json!(arguments.tty && !arguments.detach);
    if let Some(cwd) = &arguments.workdir {
        process["cwd"] = json!(cwd);
    }
    let mut env: Vec<String> = process["env"]
        .as_array()
        .map(|env| {
            env.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    if let Some(user) = user {
        set(&mut env, format!("HOME={}", user.home));
        become_user(&mut process, user);
    }
    if arguments.tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    for variable in variables {
        set(&mut env, variable);
    }
    process["env"] = json!(env);
    process
}

/// Sets a variable in place of one of its name.
fn set(env: &mut Vec<String>, variable: String) {
    let name = &variable[..=variable.find('=').unwrap_or(variable.len() - 1)];
    match env.iter_mut().find(|entry| entry.starts_with(name)) {
        Some(entry) => *entry = variable,
        None => env.push(variable),
    }
}

/// Only root holds capabilities; what others may regain (by set-id programs) stays bounded as it is.
fn become_user(process: &mut Value, user: &User) {
    process["user"] =
        json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids});
    let Some(capabilities) = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let held = match capabilities.get("bounding") {
        Some(bounding) if user.uid == 0 => bounding.clone(),
        _ => json!([]),
    };
    for set in ["effective", "permitted"] {
        capabilities.insert(set.to_owned(), held.clone());
    }
    for set in ["inheritable", "ambient"] {
        capabilities.remove(set);
    }
}

/// Files of one exec; they go with the value.
struct Scratch {
    process: PathBuf,
    log: PathBuf,
    /// Written once the process is there.
    pid: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in [&self.process, &self.log, &self.pid] {
            let _: std::io::Result<()> = std::fs::remove_file(path);
        }
    }
}

fn execute(
    place: &Place,
    folder: &Folder,
    record: &Record,
    arguments: &Arguments,
    process: &Value,
) -> Result<u8, Error> {
    let key = ContainerId::random()?;
    let file = format!("exec-{}.json", key.short());
    let scratch = Scratch {
        process: folder.path.join(&file),
        log: folder.path.join(format!("exec-{}.log", key.short())),
        pid: folder.path.join(format!("exec-{}.pid", key.short())),
    };
    folder.write_json(&file, process)?;
    let runtime = Runtime {
        program: record.runtime.clone(),
        root: place.runtime(),
        log: scratch.log.clone(),
    };
    let mut command = runtime.command("exec");
    command.arg("--process").arg(&scratch.process);
    command.arg("--pid-file").arg(&scratch.pid);
    let ended = if arguments.tty && !arguments.detach {
        let order = terminal::Order {
            folder,
            key: &key,
            program: &runtime.program,
            pid_file: &scratch.pid,
            interactive: arguments.interactive,
            keys: &arguments.detach_keys,
        };
        terminal::with(command, &order)?
    } else {
        if !arguments.interactive || arguments.detach {
            command.stdin(Stdio::null());
        }
        if arguments.detach {
            detached(command, folder, &runtime.program)?
        } else {
            command.arg(folder.id.as_str());
            stay::with(command, &runtime.program, &scratch.pid)?
        }
    };
    let code = ended.status.code();
    let code = code.unwrap_or_else(|| SIGNAL_STATUS_BASE + signal_of(ended.status));
    // The process may itself have ended with this status: then the runtime logged no error.
    if (code == STATUS_RUNTIME_ERROR || ended.refused)
        && let Some(message) = runtime.last_error()
    {
        // What it says to people is shorter than what it logs, where it says anything.
        let words = String::from_utf8_lossy(&ended.words);
        let words = words.trim().replace('\n', " ");
        let message = if words.is_empty() { message } else { words };
        return Err(Error::Runtime { message });
    }
    stay::show(&ended.words)?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The process goes on without us.
fn detached(mut command: Command, folder: &Folder, program: &Path) -> Result<stay::Ended, Error> {
    command.arg("--detach").arg(folder.id.as_str());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().at("execute", program)?;
    Ok(stay::Ended {
        status,
        words: Vec::new(),
        refused: !status.success(),
    })
}

fn signal_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.signal().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        exec: Arguments,
    }

    fn changed(words: &[&str], user: Option<&User>) -> Value {
        let process = json!({
            "args": ["old"], "cwd": "/", "env": ["PATH=/bin", "HOME=/root"], "noNewPrivileges": true,
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"], "ambient": []},
        });
        let line = Line::parse_from(["exec"].iter().chain(words));
        change(process, &line.exec, line.exec.env.clone(), user)
    }

    #[test]
    fn the_containers_settings_stay_unless_changed() {
        let process = changed(&["c", "ls", "-l"], None);
        assert_eq!(process["args"], json!(["ls", "-l"]));
        assert_eq!(process["cwd"], "/");
        assert_eq!(process["noNewPrivileges"], true);
        assert_eq!(process["capabilities"]["effective"], json!(["CAP_KILL"]));
    }

    #[test]
    fn variables_replace_those_of_their_name() {
        let process = changed(
            &["-t", "-w", "/w", "-e", "PATH=/x", "-e", "NEW=1", "c", "sh"],
            None,
        );
        assert_eq!(
            process["env"],
            json!(["PATH=/x", "HOME=/root", "TERM=xterm", "NEW=1"])
        );
        assert_eq!(
            (&process["cwd"], &process["terminal"]),
            (&json!("/w"), &json!(true))
        );
    }

    #[test]
    fn another_user_holds_no_capabilities() {
        let user = User {
            uid: 5,
            gid: 6,
            additional_gids: vec![7],
            home: "/h".into(),
        };
        let process = changed(&["-u", "x", "c", "sh"], Some(&user));
        assert_eq!(
            process["user"],
            json!({"uid": 5, "gid": 6, "additionalGids": [7]})
        );
        assert_eq!(
            process["capabilities"],
            json!({"bounding": ["CAP_KILL"], "effective": [], "permitted": []})
        );
        assert_eq!(process["env"][1], "HOME=/h");
    }
}
