//! Tells the linker where the program begins.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // `src/sys/entry.rs` says why; it is written for this processor alone.
    let processor = std::env::var("CARGO_CFG_TARGET_ARCH");
    if processor.is_ok_and(|name| name == "x86_64") {
        println!("cargo::rustc-link-arg-bins=-Wl,--entry=teu_entry");
    }
}
