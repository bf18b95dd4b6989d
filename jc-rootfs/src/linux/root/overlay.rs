//! An overlay of layers (Linux' filesystems/overlayfs.rst).

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jc_unshare::descriptor::{open_dir, open_dir_at};
use jc_unshare::{Context, Error, Result, userns};
use nix::libc;
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::fchdir;

use super::changes::Writable;
use super::layer::{Layer, path_of_fd};
use crate::linux::mount::fscontext::{
    FsContext, attach, clone_fd, clone_tree, detach_top, new_mount, restrict_tree,
};
use crate::linux::sys::attr;

/// Creates a detached mount of an overlay of layers, the lowest first, with flags of [`attr`]. `slash` is "/" of this
/// mount namespace, which gets temporary mounts.
pub fn overlay(
    layers: &[Layer],
    writable: &Writable,
    attributes: u64,
    slash: &OwnedFd,
) -> Result<OwnedFd> {
    let in_userns = !userns::is_initial()?;
    let attributes = attributes | attr::NODEV;
    let overlay = Overlay { layers, writable, in_userns, attributes };
    let mount = match overlay.mount() {
        Ok(Some(mount)) => Ok(mount),
        Ok(None) => overlay.mount_at_once(slash),
        Err(error) => Err(error),
    };
    mount.map_err(|error| match error.errno() {
        Some(libc::EPERM) if overlay.in_userns => {
            error.hint("a user namespace can mount overlayfs from Linux 5.11 on")
        }
        _ => error,
    })
}

/// Options against the extended attributes of a hostile layer, which could redirect to other directories.
const SAFE: [(&str, &str); 2] = [("redirect_dir", "nofollow"), ("metacopy", "off")];

struct Overlay<'a> {
    layers: &'a [Layer],
    writable: &'a Writable,
    /// Whether this process is in a user namespace other than the initial one. overlayfs then uses extended
    /// attributes named `user.overlay.*`.
    in_userns: bool,
    /// The flags of the mount.
    attributes: u64,
}

impl Overlay<'_> {
    /// Mounts by fsconfig(2) with one option a layer: a descriptor from Linux 6.13 on, a path from 6.7 on. `None`:
    /// this kernel is older and takes all layers in one option.
    fn mount(&self) -> Result<Option<OwnedFd>> {
        let context = FsContext::open("overlay")?;
        let (upper, work) = (&self.writable.upper, &self.writable.work);
        let takes_fds = context.try_set_fd("upperdir", upper)?;
        if takes_fds {
            context.set_fd("workdir", work)?;
        } else {
            context.set("upperdir", &path_of_fd(upper))?;
            context.set("workdir", &path_of_fd(work))?;
        }
        for (number, layer) in self.layers.iter().rev().enumerate() {
            if takes_fds {
                context.set_fd("lowerdir+", &layer.fd)?;
                continue;
            }
            match context.try_set("lowerdir+", &layer.option()?) {
                Err(Errno::INVAL) if number == 0 => return Ok(None),
                other => other.map_err(|e| context.explain("set lowerdir+", e))?,
            }
        }
        for (key, value) in SAFE {
            context.set(key, value)?;
        }
        if self.in_userns {
            context.set_flag("userxattr")?;
        }
        match context.create() {
            // Before Linux 6.5 the kernel checks the options only here.
            Err(refusal) if refusal.is_silent => Ok(None),
            Err(refusal) => Err(refusal.error),
            Ok(()) => context.fsmount(self.attributes).map(Some),
        }
    }

    /// Mounts by mount(2), which takes one page of options.
    fn mount_at_once(&self, slash: &OwnedFd) -> Result<OwnedFd> {
        let layers = || self.layers.iter().rev();
        let lists = [
            layers().map(|layer| Ok(escape(&layer.option()?))).collect::<Result<Vec<String>>>()?,
            layers().map(|layer| path_of_fd(&layer.fd)).collect(),
        ];
        for lower in lists {
            let options = self.options(&lower)?;
            if options.as_bytes_with_nul().len() <= rustix::param::page_size() {
                return self.restrict(mount_on(slash, &options)?);
            }
        }
        // Relative paths in a scratch tmpfs are short: one page has room for as many layers as overlayfs takes.
        let scratch = new_mount("tmpfs", &[("mode", "0700")], attr::NODEV)?;
        attach(&scratch, slash, Path::new("tmpfs"))?;
        let workdir = open_dir(Path::new("."))?;
        let mounted = self.attach_layers(&scratch).and_then(|lower| {
            fchdir(&scratch).op("fchdir")?;
            mount_on(slash, &self.options(&lower)?)
        });
        fchdir(&workdir).op("fchdir")?;
        detach_top()?;
        self.restrict(mounted?)
    }

    fn restrict(&self, mount: OwnedFd) -> Result<OwnedFd> {
        restrict_tree(mount.as_fd(), self.attributes, Path::new("overlay"))?;
        Ok(mount)
    }

    fn options(&self, lower: &[String]) -> Result<CString> {
        let (upper, work) = (path_of_fd(&self.writable.upper), path_of_fd(&self.writable.work));
        let mut options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        for (key, value) in SAFE {
            options = format!("{options},{key}={value}");
        }
        if self.in_userns {
            options.push_str(",userxattr");
        }
        CString::new(options).map_err(|_| Error::new("mount overlay: NUL in an option"))
    }

    /// Attaches every layer to a new directory in `scratch`. Returns the names of the directories, the uppermost
    /// layer first.
    fn attach_layers(&self, scratch: &OwnedFd) -> Result<Vec<String>> {
        let attach_layer = |(number, layer): (usize, &Layer)| {
            let name = format!("{number:x}");
            mkdirat(scratch, &name, Mode::from_raw_mode(0o755)).on("mkdir", &name)?;
            let target = open_dir_at(scratch, &name).on("open", &name)?;
            attach(clone_fd(&layer.fd, false, Path::new("layer"))?, &target, Path::new("layer"))?;
            Ok(name)
        };
        self.layers.iter().rev().enumerate().map(attach_layer).collect()
    }
}

/// Mounts an overlay over "/", and moves it into a detached copy.
fn mount_on(slash: &OwnedFd, options: &CString) -> Result<OwnedFd> {
    mount("overlay", path_of_fd(slash), "overlay", MountFlags::NODEV, options.as_c_str())
        .op("mount overlay")?;
    // "/" is the root mount itself. The kernel follows the mounts over the root only after "..".
    let mount = clone_tree(Path::new("/.."))?;
    detach_top()?;
    Ok(mount)
}

/// Escapes the separators of layers and of options, and the escape character.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '\\' | ':' | ',') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::changes::Changes;
    use super::*;
    use crate::linux::args::values::Upper;
    use std::fs;

    /// Tests the mount of older kernels in a thread with a mount namespace of its own.
    #[test]
    fn hundreds_of_layers_fit_into_a_page_of_options() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: needs root");
        }
        for count in [3, 400] {
            let found = std::thread::spawn(move || top_of_overlay(count)).join().unwrap();
            let names: Vec<String> = (0..count).map(|n| n.to_string()).collect();
            let mut expected: Vec<&str> = names.iter().map(String::as_str).collect();
            expected.sort_unstable();
            assert_eq!(found, (expected.join(" "), (count - 1).to_string()));
        }
    }

    /// The names in the root of an overlay in which layer N has files `N` and `same`, and what `same`
    /// holds.
    fn top_of_overlay(count: usize) -> (String, String) {
        use rustix::mount::{MountPropagationFlags, mount_change};
        jc_unshare::sys::unshare(jc_unshare::sys::clone::NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let layer = |number: usize| {
            let path = dir.path().join(format!("{number:060}:,\\ \n\t='"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join(number.to_string()), "").unwrap();
            fs::write(path.join("same"), number.to_string()).unwrap();
            Layer::open(&path).unwrap()
        };
        let layers: Vec<Layer> = (0..count).map(layer).collect();
        let slash = open_dir(Path::new("/")).unwrap();
        let root = Path::new("/");
        let changes = Changes::open(&Upper::Tmpfs { size: None }, root, &slash).unwrap();
        let writable = changes.writable(root, layers.last()).unwrap();
        let (writable, in_userns) = (&writable, false);
        let overlay = Overlay { layers: &layers, writable, in_userns, attributes: attr::NODEV };
        let mount = overlay.mount_at_once(&slash).unwrap();
        detach_top().unwrap();
        let root = path_of_fd(&mount);
        let names = fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<String> = names.map(|n| n.into_string().unwrap()).collect();
        names.retain(|name| name != "same");
        names.sort_unstable();
        (names.join(" "), fs::read_to_string(format!("{root}/same")).unwrap())
    }
}
