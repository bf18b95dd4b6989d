//! `--chroot`: chroot(2) without other isolation. A payload with CAP_SYS_CHROOT can leave the root.

use std::os::fd::OwnedFd;
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::args::Args;
use super::mount::resolve::Missing;
use super::payload::{self, Directories, Invocation, Setup};

/// Changes the root and executes the program. Returns only an error.
pub fn enter(invocation: Invocation<'_>, directory: &Path) -> Error {
    match prepare(invocation.args, directory) {
        Ok((directories, setup)) => payload::run(invocation, &directories, setup, None),
        Err(error) => error,
    }
}

fn prepare(args: &Args, directory: &Path) -> Result<(Directories, Setup)> {
    let setup = Setup::new(args)?;
    setup.begin_session(args)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root: OwnedFd = open(directory, flags, Mode::empty()).on("open", directory)?;
    nix::unistd::fchdir(&root).on("chdir", directory)?;
    nix::unistd::chroot(".").on("chroot", directory)?;
    Ok((Directories::open(args, root, Missing::Fail)?, setup))
}
