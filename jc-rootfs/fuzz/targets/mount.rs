//! The words of -v, --tmpfs and --device.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_rootfs::fuzz::mount(bytes));
