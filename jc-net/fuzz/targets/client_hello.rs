//! Any bytes as first bytes of a TLS connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_net::fuzz::client_hello(bytes));
