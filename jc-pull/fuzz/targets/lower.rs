//! The file beside an upper directory that names its lower directories.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_pull::fuzz::lower(bytes));
