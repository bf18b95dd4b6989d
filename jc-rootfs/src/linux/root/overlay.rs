//! An overlay of layers (Linux' Documentation/filesystems/overlayfs.rst).

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use nix::libc;
use rustix::fs::{Mode, OFlags, fchmod, fchown, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::fchdir;

use super::layer::{Layer, by_fd};
use super::open_dir;
use crate::linux::args::values::Upper;
use crate::linux::mount::fscontext::{
    FsContext, attach, clone_fd, clone_tree, detach_top, new_mount,
};
use crate::linux::sys::attr;
use crate::linux::userns;

/// Makes an overlay that is mounted nowhere yet, of layers, the lowest first. `slash` is "/" of the
/// present mount namespace, on which this mounts for a while what it needs.
pub fn overlay(layers: &[Layer], upper: &Upper, slash: &OwnedFd) -> Result<OwnedFd> {
    let writable = writable(upper, layers, slash)?;
    let overlay = Overlay { layers, writable: &writable, user: !userns::is_initial()? };
    let mount = match overlay.mount() {
        Ok(Some(mount)) => Ok(mount),
        Ok(None) => overlay.mount_at_once(slash),
        Err(error) => Err(error),
    };
    if writable.on_slash {
        detach_top()?; // overlayfs holds it by now
    }
    mount.map_err(|error| match error.errno() {
        Some(libc::EPERM) if overlay.user => error.hint(ROOTLESS),
        _ => error,
    })
}

/// The hint for what a kernel does not do in a user namespace.
const ROOTLESS: &str = "this kernel may not let a user namespace have an overlay (Linux 5.11 does)";

/// The two directories that overlayfs writes to.
struct Writable {
    upper: OwnedFd,
    work: OwnedFd,
    /// They are in a tmpfs that is mounted over "/".
    on_slash: bool,
}

/// Makes `upper` and `work` where changes are to go. A tmpfs for them is mounted over "/", since
/// before Linux 6.15 overlayfs takes no directory of a detached mount.
fn writable(upper: &Upper, layers: &[Layer], slash: &OwnedFd) -> Result<Writable> {
    let (base, shown, on_slash) = match upper {
        Upper::Directory(path) => (open_dir(path)?, path.as_path(), false),
        Upper::Tmpfs { size } => {
            let mut options = vec![("mode", "0700")];
            options.extend(size.as_deref().map(|size| ("size", size)));
            let tmpfs = new_mount("tmpfs", &options, attr::NODEV)?;
            attach(&tmpfs, slash, Path::new("tmpfs"))?;
            (tmpfs, Path::new("tmpfs"), true)
        }
    };
    let make = |name: &str| -> Result<(OwnedFd, bool)> {
        let path = shown.join(name);
        let made = match mkdirat(&base, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => false,
            other => other.on("mkdir", &path).map(|()| true)?,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok((openat(&base, name, flags, Mode::empty()).on("open", &path)?, made))
    };
    let (work, _) = make("work")?;
    let (upper, fresh) = make("upper")?;
    if fresh && let Some(top) = layers.last() {
        // The root directory of an overlay is the upper one: give it the image's owner and mode.
        let stat = fstat(&top.fd).op("stat top layer")?;
        let owner = rustix::fs::Uid::from_raw(stat.st_uid);
        let group = rustix::fs::Gid::from_raw(stat.st_gid);
        match fchown(&upper, Some(owner), Some(group)) {
            // An owner without a number in this user namespace: nobody here can be that.
            Err(Errno::INVAL) => {}
            other => other.op("chown upper")?,
        }
        fchmod(&upper, Mode::from_raw_mode(stat.st_mode)).op("chmod upper")?;
    }
    Ok(Writable { upper, work, on_slash })
}

/// What a hostile layer could say by xattrs about other directories is not followed.
const SAFE: [(&str, &str); 2] = [("redirect_dir", "nofollow"), ("metacopy", "off")];

struct Overlay<'a> {
    layers: &'a [Layer],
    writable: &'a Writable,
    /// In a user namespace, where only xattrs called `user.overlay` can be read and written.
    user: bool,
}

impl Overlay<'_> {
    /// With a layer added at a time, by descriptor, so that it is the directory that was opened and
    /// the kernel shows its path; or before 6.13 by name. Nothing if this kernel, before 6.7, takes
    /// them only all at once.
    fn mount(&self) -> Result<Option<OwnedFd>> {
        let context = FsContext::open("overlay")?;
        let (upper, work) = (&self.writable.upper, &self.writable.work);
        let takes_fds = context.try_set_fd("upperdir", upper)?;
        if takes_fds {
            context.set_fd("workdir", work)?;
        } else {
            context.set("upperdir", &by_fd(upper))?;
            context.set("workdir", &by_fd(work))?;
        }
        for (number, layer) in self.layers.iter().rev().enumerate() {
            if takes_fds {
                context.set_fd("lowerdir+", &layer.fd)?;
                continue;
            }
            match context.try_set("lowerdir+", &layer.name()?) {
                Err(Errno::INVAL) if number == 0 => return Ok(None),
                other => other.map_err(|e| context.explain("set lowerdir+", e))?,
            }
        }
        for (key, value) in SAFE {
            context.set(key, value)?;
        }
        if self.user {
            context.set_flag("userxattr")?;
        }
        match context.create() {
            // Before 6.5 anything can be set, and is refused only now.
            Err(refusal) if refusal.without_a_word => Ok(None),
            Err(refusal) => Err(refusal.error),
            Ok(()) => context.fsmount(attr::NODEV).map(Some),
        }
    }

    /// By mount(2), which takes one page of options.
    fn mount_at_once(&self, slash: &OwnedFd) -> Result<OwnedFd> {
        let layers = || self.layers.iter().rev();
        let ways = [
            layers().map(|layer| Ok(escape(&layer.name()?))).collect::<Result<Vec<String>>>()?,
            layers().map(|layer| by_fd(&layer.fd)).collect(),
        ];
        for names in ways {
            let options = self.options(&names)?;
            if options.as_bytes_with_nul().len() <= rustix::param::page_size() {
                return mount_on(slash, &options);
            }
        }
        // Short names, of places on a scratch tmpfs: a page holds those of all layers that the
        // kernel can stack.
        let scratch = new_mount("tmpfs", &[("mode", "0700")], attr::NODEV)?;
        attach(&scratch, slash, Path::new("tmpfs"))?;
        let here = open_dir(Path::new("."))?;
        let mounted = self.short_names(&scratch).and_then(|names| {
            fchdir(&scratch).op("fchdir")?;
            mount_on(slash, &self.options(&names)?)
        });
        fchdir(&here).op("fchdir")?;
        detach_top()?;
        mounted
    }

    fn options(&self, lower: &[String]) -> Result<CString> {
        let (upper, work) = (by_fd(&self.writable.upper), by_fd(&self.writable.work));
        let mut options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.join(":"));
        for (key, value) in SAFE {
            options = format!("{options},{key}={value}");
        }
        if self.user {
            options.push_str(",userxattr");
        }
        CString::new(options).map_err(|_| Error::new("mount overlay: NUL in an option"))
    }

    /// Attaches every layer below `scratch`, and gives their names there, the uppermost first.
    fn short_names(&self, scratch: &OwnedFd) -> Result<Vec<String>> {
        let attach_layer = |(number, layer): (usize, &Layer)| {
            let name = format!("{number:x}");
            mkdirat(scratch, &name, Mode::from_raw_mode(0o755)).on("mkdir", &name)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = openat(scratch, &name, flags, Mode::empty()).on("open", &name)?;
            attach(clone_fd(&layer.fd, false, Path::new("layer"))?, &place, Path::new("layer"))?;
            Ok(name)
        };
        self.layers.iter().rev().enumerate().map(attach_layer).collect()
    }
}

/// Mounts an overlay over "/" and takes it from there.
fn mount_on(slash: &OwnedFd, options: &CString) -> Result<OwnedFd> {
    mount("overlay", by_fd(slash), "overlay", MountFlags::NODEV, options.as_c_str())
        .op("mount overlay")?;
    // "/" names what is below; ".." of it, the uppermost mount there.
    let mount = clone_tree(Path::new("/.."))?;
    detach_top()?;
    Ok(mount)
}

/// What separates layers, and options, does so no more.
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
    use super::*;
    use std::fs;

    /// The way of older kernels, on this one: in a thread with a mount namespace of its own.
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
        let writable = writable(&Upper::Tmpfs { size: None }, &layers, &slash).unwrap();
        let overlay = Overlay { layers: &layers, writable: &writable, user: false };
        let mount = overlay.mount_at_once(&slash).unwrap();
        detach_top().unwrap();
        let root = by_fd(&mount);
        let names = fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<String> = names.map(|n| n.into_string().unwrap()).collect();
        names.retain(|name| name != "same");
        names.sort_unstable();
        (names.join(" "), fs::read_to_string(format!("{root}/same")).unwrap())
    }
}
