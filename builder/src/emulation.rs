//! Programs of other processors: which the kernel runs by itself, and which it hands to an emulator that was
//! registered with binfmt_misc (Documentation/admin-guide/binfmt-misc.rst).

use std::path::Path;
use teu_store::image::Platform;

/// Where the kernel lists what is registered.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// Largest entry that is read, in bytes: magic and mask have 128 each at most.
const ENTRY_BYTES_MAX: usize = 4096;

/// Bytes of an ELF header that say for which processor the file is; elf(5).
const HEADER_BYTES: usize = 20;

/// Processors by name: class (1: 32 bits, 2: 64), byte order (1: little, 2: big) and e_machine of elf(5).
const MACHINES: [(&str, u8, u8, u16); 12] = [
    ("386", 1, 1, 3),
    ("amd64", 2, 1, 62),
    ("arm", 1, 1, 40),
    ("arm64", 2, 1, 183),
    ("loong64", 2, 1, 258),
    ("mips", 1, 2, 8),
    ("mips64", 2, 2, 8),
    ("mips64le", 2, 1, 8),
    ("mipsle", 1, 1, 8),
    ("ppc64le", 2, 1, 21),
    ("riscv64", 2, 1, 243),
    ("s390x", 2, 2, 22),
];

/// Whether the processor of `host` itself runs programs for `platform`.
pub fn is_native(host: &Platform, platform: &Platform) -> bool {
    let small = host.architecture == "amd64" && platform.architecture == "386";
    host.os == platform.os && (host.architecture == platform.architecture || small)
}

/// The emulator that this machine has for `platform`; `None` where it has none that containers could use.
pub fn emulator(platform: &Platform) -> Option<String> {
    let header = header(&platform.architecture)?;
    let entries = std::fs::read_dir(Path::new(BINFMT)).ok()?;
    let texts = entries
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    texts
        .filter(|text| text.len() <= ENTRY_BYTES_MAX)
        .find_map(|text| interpreter(&text, &header))
}

/// The beginning of a program for a processor.
fn header(architecture: &str) -> Option<[u8; HEADER_BYTES]> {
    let (_, class, order, machine) = MACHINES.iter().find(|(name, ..)| *name == architecture)?;
    let number = |value: u16| match order {
        1 => value.to_le_bytes(),
        _ => value.to_be_bytes(),
    };
    let mut header = [0; HEADER_BYTES];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', *class, *order, 1]);
    header[16..18].copy_from_slice(&number(2));
    header[18..].copy_from_slice(&number(*machine));
    Some(header)
}

/// The interpreter of an entry that is on, takes such a program, and was opened when it was registered (flag F): any
/// other would have to lie in the image.
fn interpreter(entry: &str, header: &[u8]) -> Option<String> {
    let field = |name: &str| {
        let mut lines = entry.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix([' ', ':']))
            .map(str::trim)
    };
    if entry.lines().next() != Some("enabled") || !field("flags")?.contains('F') {
        return None;
    }
    let offset: usize = field("offset")?.parse().ok()?;
    let magic = bytes(field("magic")?)?;
    let mask = field("mask")
        .and_then(bytes)
        .unwrap_or_else(|| vec![0xff; magic.len()]);
    // What lies behind the header says nothing about the processor.
    let seen = header.get(offset..)?;
    let fits = magic
        .iter()
        .zip(&mask)
        .zip(seen)
        .all(|((magic, mask), byte)| (magic ^ byte) & mask == 0);
    let names_processor = offset + magic.len() >= HEADER_BYTES;
    (fits && names_processor).then(|| field("interpreter").map(str::to_owned))?
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's qemu-user-static registers it.
    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn an_emulator_is_known_by_what_it_takes() {
        let found = |entry: &str, name: &str| interpreter(entry, &header(name).unwrap());
        let path = "/usr/libexec/qemu-binfmt/aarch64-binfmt-P";
        assert_eq!(found(ARM64, "arm64").as_deref(), Some(path));
        for other in ["amd64", "arm", "s390x", "riscv64"] {
            assert_eq!(found(ARM64, other), None, "{other}");
        }
        for without in [
            ARM64.replace("enabled", "disabled"),
            ARM64.replace("POCF", "POC"),
            ARM64.replace("offset 0", "offset 9"),
            "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f454c46\n".to_owned(),
            "enabled\ninterpreter /x\nflags: F\nextension .jar\n".to_owned(),
        ] {
            assert_eq!(found(&without, "arm64"), None, "{without}");
        }
        assert_eq!(header("vax"), None);
    }

    #[test]
    fn what_runs_without_emulator() {
        let native =
            |host: &str, other: &str| is_native(&host.parse().unwrap(), &other.parse().unwrap());
        assert!(
            native("amd64", "linux/amd64/v2")
                && native("amd64", "386")
                && native("linux/arm64/v8", "arm64")
        );
        assert!(!native("amd64", "arm64") && !native("386", "amd64"));
    }
}
