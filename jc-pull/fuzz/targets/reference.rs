//! Names of images.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_pull::fuzz::reference(bytes));
