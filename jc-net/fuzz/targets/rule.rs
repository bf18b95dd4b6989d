//! Any bytes as rules and names.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_net::fuzz::rule(bytes));
