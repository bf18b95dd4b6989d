//! The program that the payload begins as: where it is, and that it is not jc-rootfs.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jc_unshare::{Absent, Context, Error, Kind, Result};
use rustix::fs::{fstat, stat};

use crate::linux::mount::fscontext::{clone_mount, restrict_tree};
use crate::linux::sys::attr;

/// The file that this process executes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Own {
    device: u64,
    inode: u64,
}

/// How deep scripts may interpret scripts (BINPRM recursion in Linux' exec.c).
const DEPTH: u32 = 5;

/// How much of a file the kernel looks at for an interpreter (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

impl Own {
    /// Finds the file by the host's procfs; `None` on a host without one.
    pub fn look() -> Result<Option<Self>> {
        let path = "/proc/self/exe";
        let meta = fs::metadata(path).on("stat", path).absent()?;
        Ok(meta.map(|meta| Self { device: meta.dev(), inode: meta.ino() }))
    }

    /// Refuses a program that leads to this one. An image could name /proc/self/exe, as its program
    /// or the interpreter of it: jc-rootfs would then run once more, inside, where the payload could
    /// open it and write to the host's file (CVE-2019-5736). Nobody else is in the root by now who
    /// could change the file after this.
    pub fn refuse(&self, program: &Path) -> Result<()> {
        let mut path = program.to_owned();
        for _ in 0..=DEPTH {
            let meta = match fs::metadata(&path) {
                // execve(2) fails for the same reason, and reports it.
                Err(error) if is_of_path(&error) => return Ok(()),
                found => found.on("stat", &path)?,
            };
            if (meta.dev(), meta.ino()) == (self.device, self.inode) {
                let program = program.display();
                return Err(Error::with_kind(
                    Kind::NotExecutable,
                    format_args!("exec {program}: leads to the host's jc-rootfs"),
                ));
            }
            match interpreter(&path, &meta)? {
                Some(next) => path = next,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Whether the path itself is at fault: it does not exist, this user may not follow it, or it does not
/// end.
fn is_of_path(error: &io::Error) -> bool {
    use nix::libc::{EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR};
    matches!(error.raw_os_error(), Some(EACCES | ELOOP | ENAMETOOLONG | ENOENT | ENOTDIR) | None)
}

/// A mount of this program's file that is read-only and has no place in the mount namespace, which must be
/// this process's own. A process that executes the file from there gives nobody a way to write to it:
/// /proc/PID/exe leads to the read-only mount.
pub fn read_only_self() -> Result<OwnedFd> {
    let exe = Path::new("/proc/self/exe");
    let path = fs::read_link(exe).on("readlink", exe)?;
    let mount = clone_mount(&path, false)?;
    let (found, own) = (fstat(&mount).on("stat", &path)?, stat(exe).on("stat", exe)?);
    if (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino) {
        let path = path.display();
        return Err(Error::new(format_args!("{path}: is not the program that runs")));
    }
    restrict_tree(mount.as_fd(), attr::RDONLY, &path)?;
    Ok(mount)
}

/// Words as execve(2) takes them. Usage error: a NUL byte.
pub fn strings(words: impl IntoIterator<Item = OsString>) -> Result<Vec<CString>> {
    let strings = words.into_iter().map(|word| CString::new(word.into_vec()));
    let strings: std::result::Result<_, _> = strings.collect();
    strings.map_err(|_| Error::usage("a NUL byte in an argument"))
}

/// The interpreter of a script. `None` for a file that this user may not read: the file that it leads
/// to stays out of the payload's reach as well.
fn interpreter(path: &Path, meta: &fs::Metadata) -> Result<Option<PathBuf>> {
    if meta.file_type().is_fifo() || !meta.is_file() {
        return Ok(None);
    }
    let mut options = File::options();
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    let file = match options.read(true).custom_flags(flags).open(path) {
        Err(error) if is_of_path(&error) => return Ok(None),
        opened => opened.on("open", path)?,
    };
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head).on("read", path)?;
    // glibc's execvp(3) has the shell run what the kernel does not know.
    let by_shell = || (!head.starts_with(b"\x7fELF")).then(|| "/bin/sh".into());
    Ok(named_in(&head).map(PathBuf::from).or_else(by_shell))
}

/// The word after `#!`.
fn named_in(head: &[u8]) -> Option<OsString> {
    let line = head.strip_prefix(b"#!")?.split(|b| matches!(b, b'\n' | 0)).next()?;
    let mut words = line.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty());
    words.next().map(|word| OsStr::from_bytes(word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn interpreters() {
        for (head, expected) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! /bin/sh -e\n", Some("/bin/sh")),
            ("#!\t./x\ty z", Some("./x")),
            ("#!\n/bin/sh", None),
            ("#!", None),
            ("\x7fELF", None),
        ] {
            assert_eq!(named_in(head.as_bytes()), expected.map(OsString::from), "{head:?}");
        }
    }

    #[test]
    fn this_program_is_found_behind_links_and_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("/proc/self/exe", at("link")).unwrap();
        fs::write(at("script"), format!("#!{}\n", at("link").display())).unwrap();
        fs::write(at("twice"), format!("#! {} x\n", at("script").display())).unwrap();
        fs::write(at("other"), "#!/bin/sh\n").unwrap();
        let own = Own::look().unwrap().unwrap();
        for (name, refused) in [("link", true), ("script", true), ("twice", true), ("other", false)]
        {
            assert_eq!(own.refuse(&at(name)).is_err(), refused, "{name}");
        }
    }
}
