//! jc-pull as a program, on images made by hand and a registry in this process.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod archives;
mod common;
mod faults;
mod formats;
mod layers;
mod manage;
mod manual;
mod policy;
mod pull;
mod registry;
mod tls;
mod unpack;
mod whole;
