//! Layers, as far as their reader goes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| jc_pull::fuzz::layer(bytes));
