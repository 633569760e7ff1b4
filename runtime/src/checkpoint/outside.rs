//! What else of a container lies outside of it: namespaces that it joined, and
//! CRIU's own configuration.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use super::criu::{Criu, for_criu};
use super::rpc::{InheritFd, JoinNamespace, Version};
use crate::namespace;
use crate::rootfs::op::What;
use crate::rootfs::plan::Plan;
use crate::spec::{Linux, NamespaceType, Spec};

/// CRIU's configuration unless the container names another; runc's.
const CONFIG: &str = "/etc/criu/runc.conf";

/// The annotation that names another.
const CONFIG_ANNOTATION: &str = "org.criu.config";

/// Namespaces that CRIU can leave outside, and since when.
const EXTERNAL: [(NamespaceType, &str, Version); 2] = [
    (NamespaceType::Network, "extRootNetNS", Version(31_100)),
    (NamespaceType::Pid, "extRootPidNS", Version(31_500)),
];

fn external(kind: NamespaceType) -> Option<(&'static str, Version)> {
    EXTERNAL
        .into_iter()
        .find(|(known, ..)| *known == kind)
        .map(|(_, key, since)| (key, since))
}

/// The namespaces that are joined by path.
fn joined(linux: &Linux) -> impl Iterator<Item = (NamespaceType, &Path)> {
    linux
        .namespaces
        .iter()
        .filter(|namespace| !namespace.path.as_os_str().is_empty())
        .map(|namespace| (namespace.kind, namespace.path.as_path()))
}

/// The joined namespaces that CRIU must not save: `TYPE[INODE]:KEY` each. The
/// inode is asked of init `pid`: the path may be gone by now.
pub(super) fn to_leave(
    criu: Criu,
    linux: &Linux,
    pid: i32,
) -> Result<Vec<String>, crate::error::Error> {
    let mut all = Vec::new();
    for (kind, _) in joined(linux) {
        let Some((key, since)) = external(kind) else {
            continue;
        };
        let name = namespace::proc_name(kind);
        if !criu.is(since) {
            return Err(Error::NoExternal { kind: name }.into());
        }
        let path = format!("/proc/{pid}/ns/{name}");
        let inode = std::fs::metadata(&path)
            .map_err(crate::error::Error::on("stat", &path))?
            .ino();
        all.push(format!("{name}[{inode}]:{key}"));
    }
    Ok(all)
}

/// The joined namespaces at a restore.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// Those that CRIU finds by an open descriptor.
    pub inherit: Vec<InheritFd>,
    /// The descriptors, to be kept until CRIU has started.
    pub open: Vec<OwnedFd>,
    /// Those that CRIU joins by their file.
    pub join: Vec<JoinNamespace>,
}

/// Opens the namespaces that restored processes join.
pub(super) fn to_join(criu: Criu, linux: &Linux) -> Result<Joined, crate::error::Error> {
    let mut all = Joined::default();
    for (kind, path) in joined(linux) {
        let name = namespace::proc_name(kind);
        match external(kind) {
            Some((_, since)) if !criu.is(since) => {
                return Err(Error::NoExternal { kind: name }.into());
            }
            Some((key, _)) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let file = rustix::fs::open(path, flags, Mode::empty())
                    .map_err(crate::error::Error::on("open namespace", path))?;
                let file = for_criu(file)?;
                all.inherit.push(InheritFd {
                    key: key.to_owned(),
                    fd: file.as_raw_fd(),
                });
                all.open.push(file);
            }
            None if kind == NamespaceType::Cgroup => {
                let why = "CRIU cannot restore into an existing cgroup namespace".to_owned();
                return Err(Error::Refused(why).into());
            }
            None => all.join.push(JoinNamespace {
                kind: name,
                file: path.to_owned(),
            }),
        }
    }
    Ok(all)
}

/// CRIU's configuration file. It overrides every option, and it can make CRIU
/// run a program on the host: the one that an annotation names must belong to
/// root or the caller alone, and must not lie in anything that the container
/// can reach. It is given to CRIU by the descriptor that was checked, which
/// must stay open meanwhile.
///
/// As with runc, an empty annotation means no file, and one that is missing is
/// none.
pub(super) fn config(
    spec: &Spec,
    plan: &Plan,
) -> Result<Option<(PathBuf, Option<OwnedFd>)>, Error> {
    let path = match spec.annotations.get(CONFIG_ANNOTATION) {
        None => return Ok(Some((CONFIG.into(), None))),
        Some(path) if path.is_empty() => return Ok(None),
        Some(path) => Path::new(path),
    };
    let refused =
        |why: &str| Error::Refused(format!("annotation {CONFIG_ANNOTATION}: {path:?} {why}"));
    if !path.is_absolute() {
        return Err(refused("is not an absolute path"));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(refused(&format!("cannot be opened ({errno})"))),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| refused(&errno.to_string()))?;
    let own = rustix::process::geteuid().as_raw();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(refused("is not a regular file"));
    }
    if (stat.st_uid != 0 && stat.st_uid != own) || stat.st_mode & 0o022 != 0 {
        return Err(refused("may be written to by others than root"));
    }
    let number = file.as_raw_fd();
    let real = std::fs::read_link(format!("/proc/self/fd/{number}"))
        .map_err(|error| refused(&error.to_string()))?;
    if within_reach(plan).any(|place| real.starts_with(&place)) {
        return Err(refused("is a file of the container itself"));
    }
    let by_descriptor = format!("/proc/{}/fd/{number}", std::process::id());
    Ok(Some((by_descriptor.into(), Some(file))))
}

/// The places of the host that the container can reach.
fn within_reach(plan: &Plan) -> impl Iterator<Item = PathBuf> {
    let sources = plan.mounts.iter().filter_map(|op| match &op.what {
        What::Bind { source, .. } => Some(source),
        What::Filesystem { .. } | What::Cgroup | What::Remount => None,
    });
    std::iter::once(&plan.rootfs)
        .chain(sources)
        .map(|place| std::fs::canonicalize(place).unwrap_or_else(|_| place.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_of(path: &str, rootfs: &Path) -> Result<Option<PathBuf>, String> {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":{rootfs:?}}},"annotations":{{"org.criu.config":{path:?}}},
               "linux":{{"namespaces":[{{"type":"mount"}}]}}}}"#
        );
        let spec = Spec::parse(text.as_bytes()).unwrap();
        let plan = Plan::new(&spec, Path::new("/"), false).unwrap();
        config(&spec, &plan)
            .map(|found| found.map(|(path, _)| path))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_configuration_that_the_container_could_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("teu-runtime-criu-{}", std::process::id()));
        let root = folder.join("rootfs");
        std::fs::create_dir_all(&root).unwrap();
        let write = |path: &Path, mode| {
            std::fs::write(path, "x\n").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let good = write(&folder.join("good.conf"), 0o644);
        let found = config_of(&good, &root).unwrap().unwrap();
        assert!(found.starts_with("/proc"), "{found:?}");
        let open = write(&folder.join("open.conf"), 0o666);
        assert!(config_of(&open, &root).unwrap_err().contains("others"));
        let inside = write(&root.join("x.conf"), 0o600);
        assert!(config_of(&inside, &root).unwrap_err().contains("container"));
        assert!(config_of("x.conf", &root).unwrap_err().contains("absolute"));
        assert!(config_of("/dev/null", &root).is_err());
        assert_eq!(config_of("", &root).unwrap(), None);
        assert_eq!(config_of("/no/such/file", &root).unwrap(), None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
