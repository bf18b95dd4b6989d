//! The file of jc-rootfs: the payload must not execute it, and a second execution uses a read-only mount.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::is_same;
use jc_unshare::interpreter::of_script;
use jc_unshare::{Absent, Context, Error, Kind, Result};
use rustix::fs::{fstat, stat};
use rustix::io::Errno;

use crate::linux::mount::fscontext::{clone_fd, clone_mount, restrict_tree};
use crate::linux::mount::top::Top;
use crate::linux::sys::attr;

/// The identity of the file that this process executes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SelfExe {
    device: u64,
    inode: u64,
}

/// The most interpreters in a row (exec_binprm in Linux' fs/exec.c).
const MAX_INTERPRETERS: u32 = 5;

/// The bytes of a file in which the kernel looks for an interpreter (BINPRM_BUF_SIZE).
const HEAD: usize = 256;

impl SelfExe {
    /// Finds the file by /proc/self/exe. `None`: no procfs is mounted at /proc.
    pub fn find() -> Result<Option<Self>> {
        let path = "/proc/self/exe";
        let meta = fs::metadata(path).on("stat", path).absent()?;
        Ok(meta.map(|meta| Self { device: meta.dev(), inode: meta.ino() }))
    }

    /// Refuses a program that is this file, or whose interpreter is. An image could name /proc/self/exe: the
    /// payload could then open the running program and write to the host's file (CVE-2019-5736). No other process
    /// is in the root yet, so the program stays the same until execve(2).
    pub fn refuse(&self, program: &Path) -> Result<()> {
        let mut path = program.to_owned();
        for _ in 0..=MAX_INTERPRETERS {
            let meta = match fs::metadata(&path) {
                // execve(2) fails with the same errno.
                Err(error) if is_path_error(&error) => return Ok(()),
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

/// Whether a path does not exist, is forbidden to this user, is too long, or has too many symbolic links.
fn is_path_error(error: &io::Error) -> bool {
    use nix::libc::{EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR};
    matches!(error.raw_os_error(), Some(EACCES | ELOOP | ENAMETOOLONG | ENOENT | ENOTDIR) | None)
}

/// Creates a detached read-only mount of this program's file. The mount namespace must be this process's own. The
/// link /proc/PID/exe of a process that executes the file from this mount gives no write access to the file.
pub fn read_only_self() -> Result<OwnedFd> {
    let exe = Path::new("/proc/self/exe");
    let path = fs::read_link(exe).on("readlink", exe)?;
    let mount = match clone_mount(&path, false) {
        // In a chroot the mount of the file belongs to the mount namespace before, and the kernel gives the path from
        // the top.
        Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => match Top::find()? {
            Some(top) => clone_fd(top.open(&path)?, false, &path)?,
            None => return Err(error),
        },
        cloned => cloned?,
    };
    let (found, running) = (fstat(&mount).on("stat", &path)?, stat(exe).on("stat", exe)?);
    if !is_same(&found, &running) {
        let path = path.display();
        return Err(Error::new(format_args!("{path}: is not the program that runs")));
    }
    restrict_tree(mount.as_fd(), attr::RDONLY, &path)?;
    Ok(mount)
}

/// The arguments of execve(2). A NUL byte is a usage error.
pub fn strings(words: impl IntoIterator<Item = OsString>) -> Result<Vec<CString>> {
    let strings = words.into_iter().map(|word| CString::new(word.into_vec()));
    let strings: std::result::Result<_, _> = strings.collect();
    strings.map_err(|_| Error::usage("a NUL byte in an argument"))
}

/// The interpreter of a script. `None`: the file is no script, or this user may not read it. The kernel denies a
/// process that executes an unreadable file the access to /proc/PID/exe (would_dump in Linux' fs/exec.c).
fn interpreter(path: &Path, meta: &fs::Metadata) -> Result<Option<PathBuf>> {
    if meta.file_type().is_fifo() || !meta.is_file() {
        return Ok(None);
    }
    let mut options = File::options();
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    let file = match options.read(true).custom_flags(flags).open(path) {
        Err(error) if is_path_error(&error) => return Ok(None),
        opened => opened.on("open", path)?,
    };
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head).on("read", path)?;
    // execvp(3) of glibc lets the shell run a file of an unknown format.
    let by_shell = || (!head.starts_with(b"\x7fELF")).then(|| "/bin/sh".into());
    Ok(of_script(&head).map(|path| OsStr::from_bytes(path).into()).or_else(by_shell))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn this_program_is_found_behind_links_and_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("/proc/self/exe", at("link")).unwrap();
        fs::write(at("script"), format!("#!{}\n", at("link").display())).unwrap();
        fs::write(at("twice"), format!("#! {} x\n", at("script").display())).unwrap();
        fs::write(at("other"), "#!/bin/sh\n").unwrap();
        let exe = SelfExe::find().unwrap().unwrap();
        for (name, refused) in [("link", true), ("script", true), ("twice", true), ("other", false)]
        {
            assert_eq!(exe.refuse(&at(name)).is_err(), refused, "{name}");
        }
    }
}
