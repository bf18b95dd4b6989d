//! jc-pull as a program, on images made by hand and a registry in this process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;
mod formats;
mod layers;
mod pull;
mod unpack;
