//! Any bytes as queries.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_net::fuzz::query(bytes));
