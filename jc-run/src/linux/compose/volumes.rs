//! The volumes that an image declares: a fresh directory for each, with the mode and owner that the image has.

use std::ffi::OsString;
use std::path::{Component, Path};

use jc_unshare::record::Root;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::super::anonymous::VOLUMES;
use super::super::bundle::Directory;
use crate::image::Config;
use crate::link::Opt;
use crate::options::RootOptions;

/// The volumes of a container.
pub struct Volumes {
    /// The options that bind them.
    pub options: Vec<Opt>,
    /// The directories in the state directory.
    pub directories: Vec<Directory>,
}

/// Composes the volumes. A mount of the command line replaces the volume with the same path. A path that
/// [`check`] refuses is an error.
pub fn volumes(
    options: &RootOptions,
    config: &Config,
    root: &Root,
    state_dir: &Path,
) -> Result<Volumes> {
    let mut volumes = Volumes { options: Vec::new(), directories: Vec::new() };
    let paths = || config.volumes().chain(options.volumes.iter().map(String::as_str));
    paths().try_for_each(check)?;
    let is_replaced =
        |path: &&str| options.mount_points.iter().any(|other| other == Path::new(path));
    for (number, path) in unique(paths().filter(|path| !is_replaced(path))).enumerate() {
        let name = format!("{VOLUMES}/{number}");
        let mut spec = OsString::from(state_dir.join(&name));
        spec.push(format!(":{path}"));
        volumes.options.push(Opt::new("-v", spec));
        let found = like(root, path)?;
        let (mode, owner) =
            found.map_or((0o755, None), |(mode, uid, gid)| (mode, Some((uid, gid))));
        volumes.directories.push(Directory { name, mode, owner });
    }
    Ok(volumes)
}

/// The paths, each once, since the command line may name a volume of the image.
fn unique<'a>(paths: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let mut seen: Vec<&'a Path> = Vec::new();
    paths.filter(move |&path| {
        let is_new = !seen.contains(&Path::new(path));
        seen.push(Path::new(path));
        is_new
    })
}

/// Checks that a path has no special characters. Images are hostile, and a colon in `-v SRC:DST:OPTIONS` of
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
    Err(Error::new(format_args!("volume {path:?}: not a plain absolute path"))
        .hint("a volume has no colon, no \"..\" and no control character in its path"))
}

/// Permissions, user and group of a directory in the topmost layer that has the directory. The lookup
/// follows no symbolic link, since a layer is hostile.
fn like(root: &Root, path: &str) -> Result<Option<(u32, u32, u32)>> {
    let layers = match root {
        Root::Layers(layers) => layers.as_slice(),
        Root::Directory(directory) => std::slice::from_ref(directory),
    };
    let below = Path::new(path.trim_start_matches('/'));
    for layer in layers.iter().rev() {
        if let Some(stat) = stat_beneath(layer, below).on("open", layer.join(below))? {
            return Ok(Some((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)));
        }
    }
    Ok(None)
}

/// The metadata of a directory in a layer. `None`: the layer has no such directory.
fn stat_beneath(layer: &Path, below: &Path) -> rustix::io::Result<Option<Stat>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = openat(CWD, layer, flags, Mode::empty())
        .and_then(|layer| openat2(&layer, below, flags, Mode::empty(), within));
    match opened {
        Ok(directory) => fstat(&directory).map(Some),
        // The layer has a file, or a symbolic link, on the way.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        // The parent belongs to another ID of the user namespace. An ordinary user cannot set the owner of a volume
        // anyway.
        Err(Errno::ACCESS) if !geteuid().is_root() => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_lacks_a_volume_only_where_the_kernel_says_so() {
        let layer = tempfile::tempdir().unwrap();
        std::fs::create_dir(layer.path().join("data")).unwrap();
        std::fs::write(layer.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("data", layer.path().join("link")).unwrap();
        let root = Root::Layers(vec![layer.path().to_owned()]);
        assert!(like(&root, "/data").unwrap().is_some());
        for absent in ["/none", "/file", "/file/below", "/link"] {
            assert_eq!(like(&root, absent).unwrap(), None, "{absent}");
        }
        let refused = like(&root, &format!("/{}", "n".repeat(300))).unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::NAMETOOLONG.raw_os_error()));
    }

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
