//! Common parts of the tests of state directories.

#![allow(dead_code)] // each test file uses some of it

use std::fs;

pub use jc_tests::wait_until;
use jc_tests::{Ran, Sandbox};
use serde_json::Value;

/// Runs a payload in the small root by jc-run.
pub fn run(s: &Sandbox, options: &[&str], payload: &[&str]) -> Ran {
    let run = s.jc("jc-run").args(options).args(["--rootfs", "root", "--"]);
    run.args(payload).run()
}

/// Starts a detached container. Returns its ID.
pub fn detached(s: &Sandbox, options: &[&str], payload: &[&str]) -> String {
    let ran = run(s, &[&["-d"], options].concat(), payload);
    ran.code(0).stderr("").out().trim_end().to_owned()
}

pub fn state(s: &Sandbox, id: &str) -> Value {
    let text = fs::read(format!("/run/jc/{id}/state.json"));
    serde_json::from_slice(&text.unwrap_or_else(|e| panic!("{id}: {e} {:?}", s.processes())))
        .unwrap()
}

pub fn list(s: &Sandbox, options: &[&str]) -> String {
    s.jc("jc-list").args(options).run().code(0).stderr("").out()
}

pub fn tool(s: &Sandbox, line: &str) -> Ran {
    s.sh(line).run()
}
