//! Answers of a registry to an upload: a range, and a location on the second line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_pull::fuzz::upload(bytes));
