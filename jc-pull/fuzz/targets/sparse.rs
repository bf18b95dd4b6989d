//! Maps of files with holes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_pull::fuzz::sparse(bytes));
