//! The directory of the programs under test.

use std::env;
use std::path::{Path, PathBuf};

/// The directory of the programs: `JC_BIN_DIR`, or the directory where cargo puts them beside this test.
///
/// Panics with a hint if the programs are in neither directory.
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

/// The directory `levels` levels above the test program, which is `target/PROFILE/deps/TEST`.
pub(crate) fn target_dir(levels: usize) -> PathBuf {
    let exe = env::current_exe().unwrap();
    exe.ancestors().nth(levels).unwrap().to_path_buf()
}

/// The top of the repository.
pub fn workspace_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
