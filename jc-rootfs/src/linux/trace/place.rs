//! Paths as a thread of the payload sees them, and their lookup in its root.

use std::os::fd::{AsRawFd, OwnedFd};

use jc_unshare::interpreter::{of_elf, of_script};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::{Errno, pread};

/// The root of a thread.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    /// The path of the root in its mount namespace. The path is empty except after chroot(2).
    prefix: Vec<u8>,
}

/// A path of a thread.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The path from the root of the mount namespace on, without "." and empty parts.
    pub path: Vec<u8>,
    /// Whether a symbolic link at the end is followed.
    pub follows: bool,
}

/// The result of a lookup.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    pub exists: bool,
    /// The path without symbolic links, if that is another.
    pub real: Option<Vec<u8>>,
    /// The mode of stat(2).
    pub mode: u32,
}

impl Found {
    /// Whether execve(2) can execute the file, as far as its mode says.
    pub fn is_program(&self) -> bool {
        const REGULAR: u32 = 0o100_000;
        self.exists && self.mode & 0o170_000 == REGULAR && self.mode & 0o111 != 0
    }
}

/// The target of a magic link of a thread in /proc. `None`: the thread has gone, or this process may not inspect it.
pub fn link_of(thread: u32, name: &str) -> Option<Vec<u8>> {
    readlinkat(CWD, format!("/proc/{thread}/{name}"), Vec::new()).ok().map(|text| text.into_bytes())
}

impl Root {
    /// The root of a thread.
    pub fn of(thread: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, format!("/proc/{thread}/root"), flags, Mode::empty()).ok()?;
        let prefix = link_of(thread, "root").filter(|prefix| prefix != b"/");
        Some(Self { directory, prefix: prefix.unwrap_or_default() })
    }

    /// The place of a path, relative to a directory: an absolute path begins at this root. `None`: the path is
    /// empty, or the directory is no file with a path.
    pub fn place(
        &self,
        path: &[u8],
        follows: bool,
        directory: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Place> {
        let path = match path.first()? {
            b'/' => clean(&[&self.prefix, path]),
            _ => clean(&[&directory().filter(|base| base.first() == Some(&b'/'))?, path]),
        };
        Some(Place { path, follows })
    }

    /// Opens a place in this root, without magic links. `None`: the place is outside of the root, or in /proc, where it
    /// means another file for each process.
    fn open(
        &self,
        place: &Place,
        flags: OFlags,
        cached: ResolveFlags,
    ) -> Option<Result<OwnedFd, Errno>> {
        let inside = place.path.strip_prefix(&self.prefix[..])?;
        if inside.first() != Some(&b'/') || inside == b"/proc" || inside.starts_with(b"/proc/") {
            return None;
        }
        let nofollow = if place.follows { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = flags | nofollow | OFlags::CLOEXEC;
        Some(openat2(&self.directory, inside, flags, Mode::empty(), ResolveFlags::IN_ROOT | cached))
    }

    /// Looks a place up in the caches of the kernel: the lookup never waits for a file system, which could be one of the
    /// payload. `None`: the caches do not have the answer.
    pub fn look_cached(&self, place: &Place) -> Option<Found> {
        self.look_with(place, ResolveFlags::CACHED)
    }

    /// Looks a place up. The lookup may wait for a file system. `None`: the lookup is forbidden, or makes no sense.
    pub fn look(&self, place: &Place) -> Option<Found> {
        self.look_with(place, ResolveFlags::empty())
    }

    fn look_with(&self, place: &Place, cached: ResolveFlags) -> Option<Found> {
        match self.open(place, OFlags::PATH, cached)? {
            Ok(file) => {
                let real =
                    readlinkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new());
                let real =
                    real.ok().map(|real| real.into_bytes()).filter(|real| *real != place.path);
                Some(Found { exists: true, real, mode: fstat(&file).ok()?.st_mode })
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Some(Found::default()),
            Err(_) => None,
        }
    }

    /// The interpreters that the kernel opens when it executes a file: those of scripts, and the loader.
    pub fn interpreters(&self, program: &Place) -> Vec<Place> {
        /// The most interpreters in a row (exec_binprm in Linux' fs/exec.c), and the loader.
        const MOST: usize = 6;
        let mut places: Vec<Place> = Vec::new();
        while places.len() < MOST {
            let file = places.last().unwrap_or(program);
            let Some(path) = self.interpreter(file) else { break };
            let Some(place) = self.place(&path, true, || None) else { break };
            places.push(place);
        }
        places
    }

    fn interpreter(&self, program: &Place) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.open(program, flags, ResolveFlags::empty())?.ok()?;
        let mut head = [0; 256];
        let length = pread(&file, &mut head, 0).ok()?;
        let head = &head[..length];
        if head.starts_with(b"#!") {
            return of_script(head).map(<[u8]>::to_vec);
        }
        of_elf(|bytes, at| Ok(pread(&file, bytes, at)?)).ok()?
    }
}

/// Joins the parts of a path, without empty parts and ".".
fn clean(parts: &[&[u8]]) -> Vec<u8> {
    let mut path = Vec::new();
    for part in parts.iter().flat_map(|part| part.split(|byte| *byte == b'/')) {
        if !part.is_empty() && part != b"." {
            path.push(b'/');
            path.extend_from_slice(part);
        }
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_path_begins_at_the_root_or_at_a_directory() {
        let root = Root::of(std::process::id()).unwrap();
        let place = |path: &str, base: &str| {
            let place = root.place(path.as_bytes(), true, || Some(base.into()))?;
            String::from_utf8(place.path).ok()
        };
        for (path, base, shown) in [
            ("/a//b/./c/", "/x", Some("/a/b/c")),
            ("/", "/x", Some("/")),
            ("a/../b", "/x/y", Some("/x/y/a/../b")),
            (".", "/x", Some("/x")),
            ("a", "/", Some("/a")),
            ("a", "socket:[5]", None),
            ("", "/x", None),
        ] {
            assert_eq!(place(path, base).as_deref(), shown, "{path:?}");
        }
    }

    #[test]
    fn a_lookup_finds_links_and_the_interpreters_of_scripts_and_programs() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("script"), "#! /bin/sh -e\n").unwrap();
        fs::set_permissions(at("script"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("script", at("link")).unwrap();
        let root = Root::of(std::process::id()).unwrap();
        let place = |name: &str, follows| Place {
            path: at(name).into_os_string().into_encoded_bytes(),
            follows,
        };
        let real = fs::canonicalize(at("script")).unwrap().into_os_string().into_encoded_bytes();
        let found = root.look(&place("link", true)).unwrap();
        assert_eq!((found.exists, found.real), (true, Some(real)));
        assert!(root.look(&place("link", false)).unwrap().mode & 0o170_000 == 0o120_000);
        assert_eq!(root.look(&place("none/x", true)), Some(Found::default()));
        assert!(root.look_cached(&place("script", true)).is_some_and(|found| found.exists));
        let found = root.interpreters(&place("link", true));
        assert_eq!(found[0].path, b"/bin/sh");
        assert!(found.len() <= 2, "{found:?}");
    }
}
