//! `--chroot`: chroot(2) without other isolation. A payload with CAP_SYS_CHROOT can leave the root.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::args::Args;
use super::mount::resolve::Missing;
use super::payload::{self, Host, Place};

/// Changes the root and starts the program there. Returns only an error.
pub fn enter(args: &Args, directory: &Path, program: &[OsString]) -> Error {
    match prepare(args, directory) {
        Ok((place, host)) => payload::run(args, program, place, host, None),
        Err(error) => error,
    }
}

fn prepare(args: &Args, directory: &Path) -> Result<(Place, Host)> {
    let host = Host::look(args)?;
    host.begin_session(args)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root: OwnedFd = open(directory, flags, Mode::empty()).on("open", directory)?;
    nix::unistd::fchdir(&root).on("chdir", directory)?;
    nix::unistd::chroot(".").on("chroot", directory)?;
    Ok((Place::new(args, root, Missing::Fail)?, host))
}
