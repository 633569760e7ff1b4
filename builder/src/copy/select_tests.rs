use super::*;
use crate::copy::items::Item;
use std::os::unix::fs::symlink;

fn scene() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in [
        "a.txt",
        "b.txt",
        "c.md",
        "d/x.txt",
        "d/e/y.go",
        "d/e/z.txt",
        "secret",
    ] {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    symlink("d/e", dir.path().join("link")).unwrap();
    symlink("/a.txt", dir.path().join("file-link")).unwrap();
    symlink("/etc", dir.path().join("outside")).unwrap();
    dir
}

fn path(path: &str) -> CopySource {
    CopySource::Path {
        path: path.into(),
        keep: None,
    }
}

fn found(sources: &[CopySource], rules: &str, exclude: &[&str]) -> Result<Vec<String>, String> {
    let dir = scene();
    let root = Root::open(dir.path()).unwrap();
    let rules = Rules::parse(rules).unwrap();
    let origin = Origin {
        root: &root,
        rules: &rules,
        ignore_file: Some(".dockerignore"),
        name: "the context",
    };
    let exclude = Rules::from_patterns(exclude.iter().copied()).unwrap();
    let groups = select(&origin, sources, &exclude).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for group in groups {
        match group {
            Group::File(name, item) => all.push(format!(
                "{}={}",
                name.to_string_lossy(),
                item.source.display()
            )),
            Group::Directory(_, items) => {
                let mut tell = |_, item: Item<'_>| {
                    assert!(item.source.ends_with(item.relative));
                    all.push(format!("+{}", item.relative.display()));
                    Ok::<_, ()>(())
                };
                items.each(0..items.len(), &mut tell).unwrap();
            }
            Group::Inline(name, _) => all.push(format!("<{name}")),
        }
    }
    Ok(all)
}

#[test]
fn files_directories_and_patterns() {
    let list = |pattern: &str| found(&[path(pattern)], "secret", &[]).unwrap();
    assert_eq!(list("/a.txt"), ["a.txt=a.txt"]);
    assert_eq!(list("/*.txt"), ["a.txt=a.txt", "b.txt=b.txt"]);
    assert_eq!(list("/d"), ["+e", "+e/y.go", "+e/z.txt", "+x.txt"]);
    assert_eq!(list("/*/*.txt"), ["x.txt=d/x.txt", "z.txt=d/e/z.txt"]);
    assert_eq!(list("/nosuch*"), Vec::<String>::new());
    assert_eq!(list("/link"), ["+y.go", "+z.txt"]);
    assert_eq!(list("/file-link"), ["file-link=a.txt"]);
    assert!(!list("/").contains(&"+secret".to_owned()));
}

#[test]
fn what_is_not_there_says_why() {
    let fails = |pattern: &str| found(&[path(pattern)], "*.md\nsecret", &[]).unwrap_err();
    assert!(
        fails("/c.md").contains("excluded by .dockerignore line 1: *.md"),
        "{}",
        fails("/c.md")
    );
    assert!(
        fails("/a.tx").contains("did you mean \"a.txt\""),
        "{}",
        fails("/a.tx")
    );
    assert!(
        fails("/outside").contains("a symbolic link to \"/etc\""),
        "a link out of the context leads nowhere"
    );
}

#[test]
fn excludes_and_parents() {
    assert_eq!(
        found(&[path("/d")], "", &["**/*.txt"]).unwrap(),
        ["+e", "+e/y.go"]
    );
    assert_eq!(
        found(&[path("/d")], "", &["e", "!e/y.go"]).unwrap(),
        ["+e", "+e/y.go", "+x.txt"]
    );
    assert_eq!(
        found(&[path("/*.txt")], "", &["a*"]).unwrap(),
        ["b.txt=b.txt"]
    );
    let keep = |start: &str, pattern: &str| CopySource::Path {
        path: start.into(),
        keep: Some(pattern.into()),
    };
    assert_eq!(
        found(&[keep("/", "d/**/*.txt")], "", &[]).unwrap(),
        ["+d", "+d/e", "+d/e/z.txt", "+d/x.txt"]
    );
    assert_eq!(
        found(&[keep("/d", "e/y.go")], "", &[]).unwrap(),
        ["+e", "+e/y.go"]
    );
    assert!(found(&[keep("/", "d/none")], "", &[]).is_err());
}
