//! Any bytes as requests of an HTTP/1 connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_net::fuzz::http(bytes));
