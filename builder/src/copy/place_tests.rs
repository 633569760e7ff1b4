use super::*;
use std::ffi::OsString;
use std::os::unix::fs::symlink;

fn below() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in ["usr/lib", "app/old", "tmp"] {
        std::fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    std::fs::write(dir.path().join("file"), "").unwrap();
    symlink("usr/lib", dir.path().join("lib")).unwrap();
    symlink("/../../etc", dir.path().join("app/up")).unwrap();
    dir
}

fn meta(kind: Kind, mode: u32) -> Meta {
    let time = Time::default();
    Meta {
        kind,
        mode,
        uid: 5,
        gid: 6,
        size: 0,
        mtime: time,
        ctime: time,
        id: (0, 0),
        links: 1,
    }
}

fn item(relative: &str, kind: Kind) -> Item {
    Item {
        source: Path::new("src").join(relative),
        relative: relative.into(),
        meta: meta(kind, 0o640),
    }
}

fn file(name: &str) -> Group {
    Group::File(
        OsString::from(name),
        Item {
            source: name.into(),
            ..item("", Kind::File)
        },
    )
}

fn directory(items: &[(&str, Kind)]) -> Group {
    Group::Directory(
        meta(Kind::Directory, 0o700),
        items.iter().map(|(path, kind)| item(path, *kind)).collect(),
    )
}

fn placed(groups: &[Group], destination: &str) -> Result<Vec<String>, String> {
    let dir = below();
    let root = Root::open(dir.path()).unwrap();
    let mut placing = Placing::new(Some(&root), None, false, None, Time::default());
    placing
        .place(groups, destination, &|_| Ok(false))
        .map_err(|error| error.to_string())?;
    let shown = |(path, entry): (PathBuf, Entry)| {
        let slash = if entry.kind() == Kind::Directory {
            "/"
        } else {
            ""
        };
        format!("{}{slash} {:o}", path.display(), entry.mode)
    };
    let made = placing
        .finish()
        .unwrap()
        .into_iter()
        .filter(|(_, entry)| entry.content != Content::Existing);
    Ok(made.map(shown).collect())
}

#[test]
fn files_go_into_directories_or_become_the_destination() {
    let list = |destination: &str| placed(&[file("a")], destination).unwrap();
    assert_eq!(list("/"), ["a 640"]);
    assert_eq!(list("/new"), ["new 640"]);
    assert_eq!(list("/new/"), ["new/ 755", "new/a 640"]);
    assert_eq!(list("/x/y/z"), ["x/ 755", "x/y/ 755", "x/y/z 640"]);
    assert_eq!(list("/tmp"), ["tmp/a 640"]);
    assert_eq!(list("/file"), ["file 640"]);
    assert_eq!(list("/lib"), ["usr/lib/a 640"]);
    assert_eq!(list("/lib/sub/"), ["usr/lib/sub/ 755", "usr/lib/sub/a 640"]);
    assert_eq!(
        list("/app/up/x"),
        ["etc/ 755", "etc/x 640"],
        "links are followed within the root"
    );
}

#[test]
fn a_layer_names_all_its_directories() {
    let dir = below();
    let root = Root::open(dir.path()).unwrap();
    let mut placing = Placing::new(Some(&root), None, false, None, Time::default());
    placing
        .place(&[file("a")], "/lib/", &|_| Ok(false))
        .unwrap();
    let entries = placing.finish().unwrap();
    assert_eq!(
        entries
            .keys()
            .map(|path| path.to_str().unwrap())
            .collect::<Vec<_>>(),
        ["usr", "usr/lib", "usr/lib/a"]
    );
    assert_eq!(entries[Path::new("usr")].content, Content::Existing);
}

#[test]
fn directories_give_their_content() {
    let group = || {
        directory(&[
            ("old", Kind::Directory),
            ("old/f", Kind::File),
            ("g", Kind::Symlink),
        ])
    };
    assert_eq!(
        placed(&[group()], "/app").unwrap(),
        ["app/g 640", "app/old/ 640", "app/old/f 640"]
    );
    assert_eq!(placed(&[group()], "/n").unwrap()[0], "n/ 755");
    assert_eq!(placed(&[group(), file("z")], "/app/").unwrap().len(), 4);
}

#[test]
fn what_cannot_be_replaced_is_named() {
    assert!(
        placed(&[directory(&[("old", Kind::File)])], "/app")
            .unwrap_err()
            .contains("cannot replace the directory")
    );
    assert!(
        placed(&[directory(&[("file", Kind::Directory)])], "/")
            .unwrap_err()
            .contains("cannot replace the file")
    );
    assert!(
        placed(&[file("a")], "/file/")
            .unwrap_err()
            .contains("cannot replace the file")
    );
    assert!(
        placed(&[file("a"), file("b")], "/one")
            .unwrap_err()
            .contains("several files")
    );
}

#[test]
fn owners_and_hard_links() {
    let linked = |relative: &str| Item {
        meta: Meta {
            links: 2,
            id: (1, 2),
            ..meta(Kind::File, 0o644)
        },
        ..item(relative, Kind::File)
    };
    let group = Group::Directory(meta(Kind::Directory, 0o755), vec![linked("a"), linked("b")]);
    let mut placing = Placing::new(
        None,
        Some(Owner { uid: 9, gid: 9 }),
        true,
        None,
        Time::default(),
    );
    placing
        .place(std::slice::from_ref(&group), "/d/", &|_| Ok(false))
        .unwrap();
    let entries = placing.finish().unwrap();
    assert_eq!(entries[Path::new("d")].owner.uid, 9);
    assert_eq!(
        entries[Path::new("d/b")].content,
        Content::HardLink("d/a".into())
    );
    let mut placing = Placing::new(None, None, true, None, Time::default());
    placing.place(&[group], "/d/", &|_| Ok(false)).unwrap();
    let entries = placing.finish().unwrap();
    assert_eq!(
        (
            entries[Path::new("d")].owner.uid,
            entries[Path::new("d/a")].owner.uid
        ),
        (0, 5)
    );
}
