//! The extended attributes that overlayfs keeps on the files of an upper directory (overlayfs.rst).

use std::os::fd::AsFd;

use jc_unshare::{Error, Result, strerror};
use rustix::io::Errno;

use crate::sys::{self, Xattrs};

/// The attributes that mark opaque directories and whiteouts in a tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Marks {
    /// `trusted.overlay.`, of an overlay that root mounts.
    Trusted,
    /// `user.overlay.`, of an overlay with `userxattr`.
    User,
    /// Either of them, as the layers of the store have them (jc-store(5)).
    Both,
    /// No attribute, since the tree is no layer.
    None,
}

/// The way in which a directory hides the lower ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opacity {
    Merged,
    Opaque,
    /// Regular files in the directory may be whiteouts, by an attribute.
    HasXattrWhiteouts,
}

/// The attributes of files whose content or place is elsewhere: in a lower directory under another name.
const ELSEWHERE: [(&str, &str); 2] = [("redirect", "redirect_dir"), ("metacopy", "metacopy")];

impl Marks {
    const fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Trusted => &["trusted.overlay."],
            Self::User => &["user.overlay."],
            Self::Both => &["trusted.overlay.", "user.overlay."],
            Self::None => &[],
        }
    }

    fn get(self, fd: impl AsFd, name: &str) -> Result<Option<Vec<u8>>> {
        for prefix in self.prefixes() {
            let key = format!("{prefix}{name}");
            let value = sys::xattr(fd.as_fd(), key.as_bytes()).map_err(|e| fault(&key, e))?;
            if value.is_some() {
                return Ok(value);
            }
        }
        Ok(None)
    }

    /// Reads the mark of a directory. A directory of another name in the lower ones is an error.
    pub fn opacity(self, directory: impl AsFd) -> Result<Opacity> {
        for (name, option) in ELSEWHERE {
            if self.get(&directory, name)?.is_some() {
                return Err(elsewhere(option));
            }
        }
        Ok(match self.get(directory, "opaque")?.as_deref() {
            Some(b"y") => Opacity::Opaque,
            Some(b"x") => Opacity::HasXattrWhiteouts,
            _ => Opacity::Merged,
        })
    }

    /// Whether the attributes of an empty file in a directory of [`Opacity::HasXattrWhiteouts`] make it a whiteout.
    pub fn are_whiteout(self, all: &Xattrs) -> bool {
        let is_mark = |key: &[u8]| self.private(key) == Some(b"whiteout");
        all.iter().any(|(key, _)| is_mark(key))
    }

    /// The attributes of a file without those with names of overlayfs, whichever kind of overlay has them: a copy of
    /// a directory in the store has marks for both kinds. A file whose content is in a lower directory is an error.
    pub fn shown(self, mut all: Xattrs) -> Result<Xattrs> {
        let names = || all.iter().filter_map(|(key, _)| self.private(key));
        let of_name = |name: &[u8]| ELSEWHERE.iter().find(|(own, _)| own.as_bytes() == name);
        if let Some((_, option)) = names().find_map(of_name) {
            return Err(elsewhere(option));
        }
        all.retain(|(key, _)| !sys::is_overlay_xattr(key));
        Ok(all)
    }

    /// The name of an attribute of overlayfs behind its prefix.
    fn private(self, key: &[u8]) -> Option<&[u8]> {
        self.prefixes().iter().find_map(|prefix| key.strip_prefix(prefix.as_bytes()))
    }
}

fn fault(key: &str, errno: Errno) -> Error {
    Error::new(format_args!("read attribute {key}: {}", strerror(&errno.into())))
        .caused_by(errno.raw_os_error())
}

fn elsewhere(option: &str) -> Error {
    Error::new("has its content in a lower directory, under another name").hint(format_args!(
        "an upper directory is complete if its overlay is mounted with {option}=off"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattrs(keys: &[&str]) -> Xattrs {
        keys.iter().map(|key| (key.as_bytes().to_vec(), b"v".to_vec())).collect()
    }

    #[test]
    fn attributes_of_either_kind_of_overlay_are_left_out() {
        let all = xattrs(&["trusted.overlay.impure", "trusted.x", "user.overlay.opaque", "user.x"]);
        for marks in [Marks::Trusted, Marks::User, Marks::Both] {
            assert_eq!(marks.shown(all.clone()).unwrap(), xattrs(&["trusted.x", "user.x"]));
        }
        assert!(Marks::User.are_whiteout(&xattrs(&["user.overlay.whiteout"])));
        assert!(!Marks::Trusted.are_whiteout(&xattrs(&["user.overlay.whiteout"])));
    }

    #[test]
    fn content_that_is_elsewhere_is_an_error() {
        for (key, option) in
            [("trusted.overlay.metacopy", "metacopy"), ("trusted.overlay.redirect", "redirect_dir")]
        {
            let report = Marks::Trusted.shown(xattrs(&[key])).unwrap_err().report("t");
            assert!(report.contains(&format!("{option}=off")), "{report}");
            assert!(Marks::User.shown(xattrs(&[key])).is_ok());
        }
    }
}
