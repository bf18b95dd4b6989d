//! Extended headers, in front of an entry.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_pull::fuzz::pax(bytes));
