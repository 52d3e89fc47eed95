//! libFuzzer binary for the target `http`: bodies of the HTTP input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| windrow::input::http::fuzz::fuzz(data));
