//! Any bytes as answers of netlink.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_net::fuzz::netlink(bytes));
