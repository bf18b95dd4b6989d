//! The words of -u.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_rootfs::fuzz::user(bytes));
