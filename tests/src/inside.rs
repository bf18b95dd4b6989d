//! The directories of a sandbox, and the exit codes of its PID 1.

use std::env;
use std::path::{Path, PathBuf};

/// The variable by which a test program recognizes that it is the inside of a sandbox.
pub(crate) const INSIDE: &str = "JC_TESTS_INSIDE";

/// The exit code of a passed test. libtest exits with 0 also for "no such test".
pub(crate) const PASSED: i32 = 93;
/// The exit code of a skipped test.
pub(crate) const SKIPPED: i32 = 94;
/// The exit code of a failed test.
pub(crate) const FAILED: i32 = 95;

/// The directory of the test, on an empty tmpfs.
pub(crate) const SCRATCH: &str = "/srv";

/// Directories that are empty and private inside. All files in them belong to the test.
pub(crate) const WATCHED: [&str; 3] = ["/tmp", "/run", "/var/tmp"];

/// Whether this process is the inside of a sandbox.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// The directory of the volumes of containers.
pub(crate) fn store_volumes() -> PathBuf {
    Path::new(SCRATCH).join("store/volumes")
}

/// The directory of the store's incomplete entries.
pub(crate) fn store_tmp() -> PathBuf {
    Path::new(SCRATCH).join("store/tmp")
}
