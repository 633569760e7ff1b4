//! What is fed with noise: by the targets of `store/fuzz` (`make fuzz`), and by the test here, which changes the corpus
//! at random for a moment. What must hold is in the functions: no panic, no hang, and what was taken is consistent.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::erofs;
use crate::image::{Document, ImageConfig, Platform};
use crate::reference::Reference;
use crate::tree::{self, Tree};

/// A layer's tar: if it is one, it can be stacked on itself, flattened, and indexed.
pub fn layer(bytes: &[u8]) {
    let Ok((tree, rest)) = tree::scan(bytes) else {
        return;
    };
    assert!(rest.len() <= bytes.len());
    let trees: [&Tree; 2] = [&tree, &tree];
    // A layer with hard links to elsewhere stands on nothing here.
    let _ = tree::corrections(&trees);
    if let Ok(flat) = tree::flatten(&trees) {
        assert!(flat.is_flat());
    }
    let (Ok(tar), Ok(mut index)) = (file(bytes), file(b"")) else {
        return;
    };
    // What an index has no room for is refused; what is written once is written the same again.
    if erofs::write(&tree, &[&tar], [0; 16], &mut index).is_ok()
        && let Ok(mut again) = file(b"")
        && erofs::write(&tree, &[&tar], [0; 16], &mut again).is_ok()
    {
        assert_eq!(content(&index), content(&again));
    }
}

/// Documents of registries and archives, and texts of users: what was read is written and read again the same.
pub fn documents(bytes: &[u8]) {
    if let Ok(document) = Document::parse(bytes, None) {
        let text = match &document {
            Document::Manifest(manifest) => serde_json::to_vec(manifest),
            Document::Index(index) => serde_json::to_vec(index),
        };
        if let Ok(text) = text
            && let Ok(again) = Document::parse(&text, None)
        {
            assert_eq!(document, again);
        }
        if let Document::Index(index) = document {
            let _ = index.select(&Platform::host());
        }
    }
    let _ = serde_json::from_slice::<ImageConfig>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(name) = text.trim().parse::<Reference>() {
            assert_eq!(name.to_string().parse().ok(), Some(name));
        }
        let _ = text.parse::<Platform>();
        let _ = text.parse::<crate::Digest>();
    }
}

fn file(bytes: &[u8]) -> std::io::Result<File> {
    let memory = rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC)?;
    let file = File::from(memory);
    file.write_all_at(bytes, 0)?;
    Ok(file)
}

fn content(file: &File) -> Vec<u8> {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let _ = file.read_exact_at(&mut bytes, 0);
    bytes
}

#[cfg(test)]
#[path = "../fuzz/feed.rs"]
mod feed;

#[cfg(test)]
mod tests {
    use super::feed::feed;

    /// Bytes of a tar's blocks.
    const BLOCK: usize = 512;

    #[test]
    fn layers() {
        feed("layer", BLOCK, super::layer);
    }

    #[test]
    fn documents() {
        feed("documents", 1, super::documents);
    }
}
