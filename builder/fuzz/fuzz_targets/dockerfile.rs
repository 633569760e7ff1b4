#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| teu_builder::fuzzing::dockerfile(bytes));
