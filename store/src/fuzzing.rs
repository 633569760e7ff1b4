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
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    /// How long each target is fed.
    const TIME: Duration = Duration::from_secs(5);
    /// Longest time for one input; a debug build on a busy machine is slow, a hang is longer.
    const ONE: Duration = Duration::from_secs(10);

    /// Numbers that look random and are the same for the same seed (xorshift64).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % limit.max(1) as u64).unwrap()
        }

        /// Changes some bytes, blocks and lengths; repairs the checksums of tar headers half of the time,
        /// since nothing behind a wrong one is looked at.
        fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
            for _ in 0..=self.below(4) {
                let at = self.below(bytes.len());
                match self.below(6) {
                    0 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                    1 => bytes[at] ^= 1 << self.below(8),
                    2 => bytes.truncate(at.max(1)),
                    3 => {
                        let digit = b"01234567/.\0 -"[self.below(13)];
                        bytes[at] = digit;
                    }
                    4 => {
                        let from = self.below(other.len()) / 512 * 512;
                        let to = (from + 512).min(other.len());
                        let at = at / 512 * 512;
                        bytes.splice(at..at, other[from..to].iter().copied());
                    }
                    _ => {
                        let to = (at + self.below(600)).min(bytes.len());
                        bytes.drain(at..to);
                        if bytes.is_empty() {
                            bytes.push(0);
                        }
                    }
                }
            }
            if self.below(2) == 0 {
                bytes.chunks_exact_mut(512).for_each(repair);
            }
        }
    }

    /// Gives what looks like a header the checksum that it should have (tar(5), "checksum").
    fn repair(block: &mut [u8]) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }

    fn feed(target: &str, run: fn(&[u8])) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/");
        let mut corpus: Vec<_> = fs::read_dir(format!("{folder}{target}"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        corpus.sort();
        let corpus: Vec<Vec<u8>> = corpus.iter().map(|path| fs::read(path).unwrap()).collect();
        assert!(corpus.len() >= 4);
        corpus.iter().for_each(|bytes| run(bytes));
        let seed = std::process::id();
        let mut numbers = Numbers(u64::from(seed) << 20 | 1);
        let (begin, mut count) = (Instant::now(), 0);
        while begin.elapsed() < TIME {
            let mut bytes = corpus[numbers.below(corpus.len())].clone();
            let other = &corpus[numbers.below(corpus.len())];
            numbers.change(&mut bytes, other);
            let one = Instant::now();
            let survived = std::panic::catch_unwind(|| run(&bytes)).is_ok();
            if !survived || one.elapsed() > ONE {
                let path = std::env::temp_dir().join(format!("teu-fuzz-{target}-{seed}"));
                fs::write(&path, &bytes).unwrap();
                panic!("{target}: input {count} of seed {seed} is kept as {path:?}");
            }
            count += 1;
        }
        eprintln!("{target}: {count} inputs");
        assert!(count > 50, "{count}");
    }

    #[test]
    fn layers() {
        feed("layer", super::layer);
    }

    #[test]
    fn documents() {
        feed("documents", super::documents);
    }
}
