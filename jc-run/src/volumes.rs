//! The volumes that an image declares: each a fresh directory, as the image has it.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use clap::ArgMatches;
use jc_unshare::record::Root;
use jc_unshare::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};

use crate::anonymous::VOLUMES;
use crate::flags::{option, values};
use crate::image::Config;
use crate::plan::Directory;

/// The options that bind the volumes, and the directories to make. A mount of the command line replaces
/// the volume with the same path. A path that [`check`] refuses is an error.
pub fn volumes(
    matches: &ArgMatches,
    config: &Config,
    root: &Root,
    state_dir: &Path,
) -> Result<(Vec<OsString>, Vec<Directory>)> {
    let (mut options, mut directories) = (Vec::new(), Vec::new());
    config.volumes().try_for_each(check)?;
    for (number, path) in config.volumes().filter(|path| !is_taken(matches, path)).enumerate() {
        let name = format!("{VOLUMES}/{number}");
        let mut spec = OsString::from(state_dir.join(&name));
        spec.push(format!(":{path}"));
        options.extend(option("-v", &spec));
        let (mode, owner) =
            like(root, path).map_or((0o755, None), |(mode, uid, gid)| (mode, Some((uid, gid))));
        directories.push(Directory { name, mode, owner });
    }
    Ok((options, directories))
}

/// Refuses a path that is no plain path: an image is hostile, and a colon in `-v SRC:DST:OPTIONS` of
/// jc-rootfs ends the path and begins mount options.
fn check(path: &str) -> Result<()> {
    let has_names_only = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let is_root = Path::new(path).components().count() < 2;
    let has_syntax = path.contains(|c: char| c == ':' || c.is_control());
    if path.starts_with('/') && has_names_only && !is_root && !has_syntax {
        return Ok(());
    }
    Err(Error::new(format_args!("record: config: Volumes: {path:?} is not a plain absolute path"))
        .hint("a volume has no colon, no \"..\" and no control character in its path"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_syntax_in_it_is_no_volume() {
        for path in ["/data", "/data/", "/a b", "/-v", "/a,b=c", "/ü", "/./data", "/..data"] {
            assert!(check(path).is_ok(), "{path}");
        }
        for path in [
            "", "/", "/.", "data", "-v", "/x:dev", "/x:", ":/x", "/a/../b", "/..", "/a\nb", "/a\0b",
        ] {
            assert!(check(path).is_err(), "{path}");
        }
    }
}
