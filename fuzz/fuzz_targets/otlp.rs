//! libFuzzer binary for the target `otlp`: bodies of the OTLP input.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| windrow::input::otlp::fuzz::fuzz(data));
