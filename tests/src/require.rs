//! Programs of Debian that a test needs.

use crate::sandbox::Sandbox;
use crate::skip::skip;

/// Skips the test if a program is absent.
pub fn require(s: &Sandbox, program: &str, package: &str) {
    let found = s.sh(&format!("command -v {program}")).run().status().success();
    if !found {
        skip(&format!("no {program}: this needs {package}"));
    }
}
