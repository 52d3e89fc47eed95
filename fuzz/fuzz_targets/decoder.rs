//! Runs the check `decoder` of `targets.rs` on what the fuzzer makes up.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code, reason = "each binary runs one of the checks")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::decoder(data));
