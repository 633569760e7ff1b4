//! `login`, `logout`: who we are to a registry.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use teu_store::registry::{Client, Credentials, Options, erase_login, store_login};

use super::Outcome;
use super::registry::RegistryArgs;

/// Longest password, in bytes; tokens reach some thousand.
const PASSWORD_BYTES_MAX: u64 = 64 * 1024;

/// Log in to a registry: docker, podman and skopeo find the log-in, too
///
/// It is checked at the registry before it is written down: to --authfile, else to the file that
/// $REGISTRY_AUTH_FILE names, else to podman's auth.json; a credential helper that the file names gets it instead.
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Host of the registry, with its port if it has one [default: docker.io]
    #[arg(default_value = "docker.io", hide_default_value = true)]
    registry: String,
    /// User; asked for on a terminal
    #[arg(short, long)]
    username: Option<String>,
    /// Password; --password-stdin does not show it to other processes
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    access: RegistryArgs,
}

impl Login {
    pub(crate) fn run(self) -> Outcome {
        let options = self.access.options();
        let host = host(&self.registry)?;
        if let Some(given) = &options.credentials {
            let Credentials::Password { user, password } = given else {
                return Err("--creds wants USER:PASSWORD".into());
            };
            return finish(&host, user, password, &options);
        }
        if self.password_stdin && self.username.is_none() {
            return Err(
                "--password-stdin wants --username: standard input holds the password".into(),
            );
        }
        let user = match self.username {
            Some(user) => user,
            None => ask("Username: ", true)?,
        };
        let password = match self.password {
            Some(password) => password,
            None if self.password_stdin => from_stdin()?,
            None => ask("Password: ", false)?,
        };
        finish(&host, &user, &password, &options)
    }
}

fn finish(host: &str, user: &str, password: &str, options: &Options) -> Outcome {
    let credentials = Credentials::from_pair(&format!("{user}:{password}"))
        .filter(|_| !user.contains(':') && !password.is_empty())
        .ok_or("a user has no colon, and neither user nor password is empty")?;
    let given = Options {
        credentials: Some(credentials),
        ..options.clone()
    };
    let name = host.split('/').next().unwrap_or(host);
    let logged_in = Client::log_in(name, &given)?;
    let (authfile, identity) = (options.authfile.as_deref(), logged_in.identity.as_deref());
    let kept = store_login(authfile, host, user, password, identity)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "logged in to {host} as {user}, kept in {kept}")?;
    if !logged_in.was_asked {
        writeln!(
            std::io::stderr(),
            "{host} lets everybody in: the password was not checked"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Forget a log-in
#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// Host of the registry [default: docker.io]
    #[arg(default_value = "docker.io", hide_default_value = true)]
    registry: String,
    /// Forget all log-ins
    #[arg(short, long, conflicts_with = "registry")]
    all: bool,
    /// File with log-ins [default: $REGISTRY_AUTH_FILE, then podman's and docker's]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl Logout {
    pub(crate) fn run(self) -> Outcome {
        let host = host(&self.registry)?;
        let which = (!self.all).then_some(host.as_str());
        let erased = erase_login(self.authfile.as_deref(), which)?;
        if erased.is_empty() && !self.all {
            return Err(format!("there is no log-in for {host}").into());
        }
        let mut out = std::io::stdout().lock();
        for kept in erased {
            writeln!(out, "removed the log-in from {kept}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A registry as people write it: with a scheme, docker's hub by its old names.
fn host(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text)
        .trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").unwrap_or(bare);
    let bare = match bare {
        "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" => "docker.io",
        other => other,
    };
    let parsed: Result<teu_store::Reference, _> = format!("{bare}/x").parse();
    match parsed {
        Ok(name) if bare.split('/').next() == Some(name.registry()) => Ok(bare.to_owned()),
        _ => Err(format!("{text:?} is not the host of a registry")),
    }
}

fn from_stdin() -> Result<String, Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::io::stdin()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// Asks on the terminal; what is secret is not shown.
fn ask(what: &str, shown: bool) -> Result<String, Box<dyn std::error::Error>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err("standard input is no terminal: give --username and --password-stdin".into());
    }
    let mut err = std::io::stderr();
    write!(err, "{what}")?;
    err.flush()?;
    let before = tcgetattr(&stdin)?;
    if !shown {
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    }
    let mut line = String::new();
    let read = stdin.lock().take(PASSWORD_BYTES_MAX).read_line(&mut line);
    if !shown {
        tcsetattr(&stdin, OptionalActions::Flush, &before)?;
        writeln!(err)?;
    }
    read?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_people_write_them() {
        for (text, meant) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("http://r.test/", "r.test"),
            ("r.test/team", "r.test/team"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(meant), "{text}");
        }
        for bad in ["", "word", "a b", "/x"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
