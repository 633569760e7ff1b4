//! The directories, for real.

use super::*;

fn root(name: &str) -> Root {
    let path =
        std::env::temp_dir().join(format!("teu-runtime-state-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    Root::new(path)
}

fn state(id: &ContainerId) -> State {
    let text = br#"{"ociVersion":"1.0.2","root":{"path":"rootfs"}}"#;
    let spec = crate::spec::Spec::parse(text).unwrap();
    State::intent(
        id,
        &spec,
        Path::new("/b"),
        Path::new("/b/rootfs"),
        cgroup::Paths::default(),
    )
}

#[test]
fn a_container_is_made_once_and_forgotten_whole() {
    let root = root("once");
    let id: ContainerId = "c".parse().unwrap();
    let mut locked = root.create(&id).unwrap();
    assert!(
        root.create(&id)
            .unwrap_err()
            .to_string()
            .contains("already exists")
    );
    locked.save(&state(&id)).unwrap();
    assert_eq!(
        root.open(&id).unwrap().load().unwrap().phase,
        Phase::Creating
    );
    assert_eq!(root.ids().unwrap(), std::slice::from_ref(&id));
    locked.remove().unwrap();
    assert!(
        root.open(&id)
            .unwrap_err()
            .to_string()
            .contains("does not exist")
    );
    std::fs::remove_dir(&root.path).unwrap();
}

#[test]
fn facts_are_added_to_the_state() {
    let root = root("facts");
    let id: ContainerId = "c".parse().unwrap();
    let mut locked = root.create(&id).unwrap();
    locked.save(&state(&id)).unwrap();
    locked.name_init(7, 99).unwrap();
    let read = |locked: &Locked| {
        locked
            .dir()
            .load()
            .map(|s| (s.pid, s.start_ticks, s.phase))
            .unwrap()
    };
    assert_eq!(read(&locked), (7, 99, Phase::Creating));
    locked.reached(Phase::Created).unwrap();
    assert_eq!(read(&locked).2, Phase::Created);
    locked.reached(Phase::Running).unwrap();
    assert_eq!(read(&locked).2, Phase::Running);
    locked.remove().unwrap();
    std::fs::remove_dir(&root.path).unwrap();
}

#[test]
fn a_removed_directory_cannot_be_locked() {
    let root = root("gone");
    let id: ContainerId = "c".parse().unwrap();
    let locked = root.create(&id).unwrap();
    let late = root.open(&id).unwrap();
    locked.remove().unwrap();
    assert!(late.lock().is_err());
    std::fs::remove_dir(&root.path).unwrap();
}

#[test]
fn a_torn_state_is_an_error_and_not_a_panic() {
    let root = root("torn");
    let id: ContainerId = "c".parse().unwrap();
    let locked = root.create(&id).unwrap();
    for text in ["", "{", "[]", "{\"version\":1}", "\0\0\0"] {
        std::fs::write(root.path.join("c/state.json"), text).unwrap();
        assert!(locked.dir().load().is_err());
    }
    locked.remove().unwrap();
    std::fs::remove_dir(&root.path).unwrap();
}
