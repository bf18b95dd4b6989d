//! The volumes that an image declares: each a fresh directory of the state dir, as the image has it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use jc_unshare::record::Root;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use crate::flags::{option, values};
use crate::image::Config;
use crate::plan::Directory;

/// The options that show them, and the directories to make. What the user mounts there is instead.
pub fn volumes(
    matches: &ArgMatches,
    config: &Config,
    root: &Root,
    state_dir: &Path,
) -> (Vec<OsString>, Vec<Directory>) {
    let (mut options, mut directories) = (Vec::new(), Vec::new());
    for (number, path) in config.volumes().filter(|path| !is_taken(matches, path)).enumerate() {
        let name = format!("volumes/{number}");
        let mut spec = OsString::from(state_dir.join(&name));
        spec.push(format!(":{path}"));
        options.extend(option("-v", &spec));
        let (mode, owner) =
            like(root, path).map_or((0o755, None), |(mode, uid, gid)| (mode, Some((uid, gid))));
        directories.push(Directory { name, mode, owner });
    }
    (options, directories)
}

/// Whether an option mounts something there.
fn is_taken(matches: &ArgMatches, path: &str) -> bool {
    let target = |index: usize| {
        move |spec: &OsString| spec.to_string_lossy().split(':').nth(index).map(str::to_owned)
    };
    let binds = values(matches, "volume").filter_map(target(1));
    let mut all = binds.chain(values(matches, "tmpfs").filter_map(target(0)));
    all.any(|target| Path::new(&target) == Path::new(path))
}

/// Permissions, user and group of a directory in the topmost layer that has it, no link followed: a
/// layer is hostile.
fn like(root: &Root, path: &str) -> Option<(u32, u32, u32)> {
    let layers = match root {
        Root::Layers(layers) => layers.as_slice(),
        Root::Directory(directory) => std::slice::from_ref(directory),
    };
    let below = PathBuf::from(path.trim_start_matches('/'));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    layers.iter().rev().find_map(|layer| {
        let layer = openat(CWD, layer, flags, Mode::empty()).ok()?;
        let found = openat2(&layer, &below, flags, Mode::empty(), within).ok()?;
        let stat = fstat(&found).ok()?;
        Some((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid))
    })
}
