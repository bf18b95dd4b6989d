//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

/// The directory of the programs: `JC_BIN_DIR`, or where cargo put them beside this test.
///
/// Panics if they are in neither, with what to do about it.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = env::var_os("JC_BIN_DIR") {
        let dir = PathBuf::from(dir);
        assert!(dir.is_absolute(), "JC_BIN_DIR is not an absolute path: {}", dir.display());
        assert!(dir.join("jc-unshare").exists(), "no jc-unshare in JC_BIN_DIR={}", dir.display());
        return dir;
    }
    let profile = target_dir(2);
    assert!(
        profile.join("jc-unshare").exists(),
        "no jc-unshare in {}: run `make test`, or `cargo build --workspace` first",
        profile.display()
    );
    profile
}

/// The directory above the test programs, so many levels up: `target/PROFILE/deps/TEST`.
pub(crate) fn target_dir(levels: usize) -> PathBuf {
    let exe = env::current_exe().unwrap();
    exe.ancestors().nth(levels).unwrap().to_path_buf()
}

/// The top of the repository.
pub fn workspace_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
