//! What the kernel accounts for a process's cgroup.

/// What a file of a process's cgroup says: of a v1 controller where there is one, else of v2.
///
/// # Panics
/// When there is no such process or file.
#[must_use]
pub fn cgroup_file(pid: i32, controller: &str, v1: &str, v2: &str) -> String {
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
    let table = table.expect("the table of cgroups of a process that is there");
    let of_v1 = table.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is_it = controllers.split(',').any(|one| one == controller);
        is_it.then(|| format!("/sys/fs/cgroup/{controller}{path}/{v1}"))
    });
    let path = of_v1.unwrap_or_else(|| {
        let path = table.lines().find_map(|line| line.strip_prefix("0::"));
        format!("/sys/fs/cgroup{}/{v2}", path.expect("a place in cgroup2"))
    });
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("read {path}: {error}"));
    text.trim().to_owned()
}
