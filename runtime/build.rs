//! Tells the linker where the program begins, and how to keep it small.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Written, and measured, for this processor alone.
    let processor = std::env::var("CARGO_CFG_TARGET_ARCH");
    if processor.is_ok_and(|name| name == "x86_64") {
        // `src/sys/entry.rs` says why.
        println!("cargo::rustc-link-arg-bins=-Wl,--entry=teu_entry");
        // The addresses to correct at every start as a bit map, not as 24 bytes
        // each: 72 KiB (DT_RELR, glibc 2.36).
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
