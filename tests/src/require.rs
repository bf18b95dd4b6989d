//! Programs of Debian's that a test cannot do without.

use crate::sandbox::Sandbox;
use crate::skip::skip;

/// Ends the test as one that cannot run here, unless this program is there.
pub fn require(s: &Sandbox, program: &str, package: &str) {
    let found = s.sh(&format!("command -v {program}")).run().status().success();
    if !found {
        skip(&format!("no {program}: this needs {package}"));
    }
}
