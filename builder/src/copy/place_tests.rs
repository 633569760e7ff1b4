use super::*;
use crate::tree::walk::Walked;
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

fn file(name: &str) -> Group {
    let single = Single {
        source: name.into(),
        meta: meta(Kind::File, 0o640),
    };
    Group::File(OsString::from(name), single)
}

fn directory(items: &[(&str, Kind)]) -> Group {
    let found = items.iter();
    group(found.map(|(path, kind)| (*path, meta(*kind, 0o640))))
}

fn group<'a>(found: impl Iterator<Item = (&'a str, Meta)>) -> Group {
    let walked = Walked::of(found.map(|(path, meta)| (Path::new(path), meta)));
    let items = Items::new(Path::new("src"), walked);
    Group::Directory(meta(Kind::Directory, 0o700), items)
}

/// All that will be told, by path.
fn told(placed: &Placed<'_>) -> BTreeMap<PathBuf, Entry> {
    let (mut told, mut paths) = (BTreeMap::new(), Vec::new());
    let each = placed.each(&mut |path, entry| {
        paths.push(path.to_owned());
        told.insert(path.to_owned(), entry.with(entry.content.clone()));
        Ok::<_, ()>(())
    });
    each.unwrap();
    assert!(
        paths.iter().eq(told.keys()),
        "each once, in order: {paths:?}"
    );
    told
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
    let made = told(&placing.finish().unwrap())
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
    let groups = [file("a")];
    placing.place(&groups, "/lib/", &|_| Ok(false)).unwrap();
    let entries = told(&placing.finish().unwrap());
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
            ("g", Kind::Symlink),
            ("old", Kind::Directory),
            ("old/f", Kind::File),
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
    let linked = Meta {
        links: 2,
        id: (1, 2),
        ..meta(Kind::File, 0o644)
    };
    let group = group([("a", linked), ("b", linked)].into_iter());
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
    let entries = told(&placing.finish().unwrap());
    assert_eq!(entries[Path::new("d")].owner.uid, 9);
    assert_eq!(
        entries[Path::new("d/b")].content,
        Content::HardLink("d/a".into())
    );
    let mut placing = Placing::new(None, None, true, None, Time::default());
    let groups = [group];
    placing.place(&groups, "/d/", &|_| Ok(false)).unwrap();
    let entries = told(&placing.finish().unwrap());
    assert_eq!(
        (
            entries[Path::new("d")].owner.uid,
            entries[Path::new("d/a")].owner.uid
        ),
        (0, 5)
    );
}

#[test]
fn what_is_in_new_directories_is_told_all_the_same() {
    let items = || {
        directory(&[
            ("new", Kind::Directory),
            ("new/b", Kind::Directory),
            ("new/b/c", Kind::File),
            ("new/z", Kind::File),
            ("new-er", Kind::File),
            ("old", Kind::Directory),
            ("old/f", Kind::File),
        ])
    };
    let below = |target: &str| {
        ["", "/b", "/b/c", "/z"]
            .iter()
            .map(|path| format!("{target}new{path}"))
            .chain(["new-er", "old", "old/f"].map(|path| format!("{target}{path}")))
            .collect::<Vec<_>>()
    };
    let names = |groups: &[Group], destination: &str| -> Vec<String> {
        let told = placed(groups, destination).unwrap().into_iter();
        let name = |line: String| {
            line.split_once(' ')
                .unwrap()
                .0
                .trim_end_matches('/')
                .to_owned()
        };
        told.map(name).collect()
    };
    assert_eq!(names(&[items()], "/app"), below("app/"));
    assert_eq!(names(&[items()], "/"), below(""));
    assert_eq!(names(&[items()], "/n/m")[2..], below("n/m/"));
    // What comes first is in the way of nothing.
    assert_eq!(names(&[items(), items()], "/app"), below("app/"));
    let all = names(&[file("a"), items(), file("z")], "/n/");
    assert_eq!(all[1], "n/a");
    let expected = [below("n/"), vec!["n/z".to_owned()]].concat();
    assert_eq!(all[2..], expected);
}

#[test]
fn links_lead_to_the_file_that_is_told_first() {
    let linked = |inode| Meta {
        links: 3,
        id: (1, inode),
        ..meta(Kind::File, 0o644)
    };
    let directory = meta(Kind::Directory, 0o755);
    let first = [("x", linked(1)), ("y", linked(1))];
    let second = [
        ("a", directory),
        ("a/l", linked(1)),
        ("x", linked(2)),
        ("z", linked(2)),
    ];
    let groups = [group(first.into_iter()), group(second.into_iter())];
    let mut placing = Placing::new(None, None, true, None, Time::default());
    placing.place(&groups, "/d/", &|_| Ok(false)).unwrap();
    let entries = told(&placing.finish().unwrap());
    let content = |path: &str| entries[Path::new(path)].content.clone();
    assert_eq!(content("d/a/l"), Content::File("src/a/l".into()));
    assert_eq!(content("d/x"), Content::File("src/x".into()));
    assert_eq!(
        content("d/y"),
        Content::HardLink("d/a/l".into()),
        "x is another file now"
    );
    assert_eq!(content("d/z"), Content::HardLink("d/x".into()));
    assert_eq!(entries[Path::new("d/z")].item, Some(5));
}
