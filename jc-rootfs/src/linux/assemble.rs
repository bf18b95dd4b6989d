//! The assembly of a root: a mount namespace, the root, its mounts, pivot_root(2), and the payload.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use jc_unshare::namespaces::unshare;
use jc_unshare::sys::clone;
use jc_unshare::{Context, Error, Result};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::args::Args;
use super::args::mounts::Mount;
use super::args::values::{Proc, Sys};
use super::copy;
use super::join::{Target, run_from_read_only_here};
use super::mount::bind;
use super::mount::dev::mount_dev;
use super::mount::mask::Mounted;
use super::mount::proc::mount_proc;
use super::mount::resolve::Missing;
use super::mount::sysfs::mount_sys;
use super::payload::init::Init;
use super::payload::{self, Host, Place};
use super::root::{Root, make_read_only};

/// Assembles the root and executes the program. Returns only an error.
pub fn enter(args: &Args, root: &Root, program: &[OsString]) -> Error {
    let prepare = || {
        let mut host = Host::look(args)?;
        host.begin_session(args)?;
        Ok((prepare(args, root, &mut host, None)?, host))
    };
    match prepare() {
        Ok((place, host)) => payload::run(args, program, place, host, None),
        Err(error) => error,
    }
}

/// Assembles the root and starts the program in the PID namespace of a process. `None`: this process is in that
/// PID namespace.
pub fn enter_joined(
    args: &Args,
    root: &Root,
    pid: u32,
    program: &[OsString],
) -> Result<Option<ExitCode>> {
    let target = Target::open(pid)?;
    let Some(pids) = target.other_pids()? else { return Ok(None) };
    run_from_read_only_here(args)?;
    let host = Host::look(args)?;
    let proc = target.procfs(&pids)?;
    let enter = |host: &mut Host| prepare(args, root, host, Some(proc));
    copy::start(args, program, &pids, host, enter).map(Some)
}

fn prepare(args: &Args, root: &Root, host: &mut Host, proc: Option<OwnedFd>) -> Result<Place> {
    unshare(clone::NEWNS)?;
    // The sources are paths of the host, and propagation to the host needs its peer groups.
    let mounts = create_mounts(args)?;
    // Later mounts must not propagate to the host.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).on("make private", "/")?;
    host.init = Init::new(args)?;
    let directory = root.attach(args.read_only)?;
    mount_proc(directory.as_fd(), args.proc, proc)?;
    mount_dev(directory.as_fd(), args.dev, &args.shm_size)?;
    mount_sys(directory.as_fd(), args.sys)?;
    for (mount, fd) in &mounts {
        bind::attach_at_target(directory.as_fd(), mount, fd)?;
    }
    host.open_console(directory.as_fd(), true)?;
    let mounted = Mounted { proc: args.proc != Proc::None, sys: args.sys != Sys::None };
    args.mask.apply(directory.as_fd(), mounted)?;
    let place = Place::new(args, directory, Missing::MakeDir)?;
    if args.read_only {
        make_read_only(&place.root.0)?;
    }
    pivot(&place.root.0)?;
    Ok(place)
}

/// Creates detached mounts for `--bind`, `--device` and `--tmpfs`. An outer target comes before the targets below.
fn create_mounts(args: &Args) -> Result<Vec<(&Mount, OwnedFd)>> {
    let mut mounts: Vec<&Mount> =
        args.binds.iter().chain(&args.devices).chain(&args.tmpfs).collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts.into_iter().map(|mount| Ok((mount, bind::create(mount)?))).collect()
}

/// Makes `root` the root and detaches the host's. If both arguments of pivot_root(2) are ".", the old root is
/// mounted over the new one, and the new root needs no directory for the old one (pivot_root(2), NOTES).
fn pivot(root: &OwnedFd) -> Result<()> {
    fchdir(root).op("fchdir")?;
    pivot_root(".", ".").map_err(|errno| {
        let error = Err::<(), _>(errno).op("pivot_root");
        let error = error.err().unwrap_or_else(|| Error::new("pivot_root"));
        match errno {
            Errno::INVAL => error.hint("an initramfs cannot be pivoted away: switch_root(8) first"),
            _ => error,
        }
    })?;
    unmount(".", UnmountFlags::DETACH).op("unmount the old root")?;
    chdir(Path::new("/")).on("chdir", "/")
}
