//! Any bytes as the message of a rejected packet.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_net::fuzz::packet(bytes));
