//! The parts of portable modules that differ from Linux, and `jc-unshare` on a system without namespaces.

/// The parts of portable modules that differ.
pub mod platform {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{AtFlags, Mode, OFlags, chmodat, fstat, openat};
    use rustix::io::{Errno, Result};

    /// The largest limit of descriptors that setrlimit(2) accepts: OPEN_MAX of macOS.
    pub const MAX_DESCRIPTORS: Option<u64> = Some(10240);

    /// Flags for path lookups.
    pub const LOOKUP: OFlags = OFlags::RDONLY;

    const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// Opens a directory for reading. `EBUSY`: the directory lies on another device.
    pub fn open_directory(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
        let parent = parent.as_fd();
        let fd = openat(parent, name, DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        let device = fstat(parent)?.st_dev;
        if fstat(&fd)?.st_dev == device { Ok(fd) } else { Err(Errno::BUSY) }
    }

    /// Gives a directory that cannot be opened for reading the mode `u+rwx`.
    pub fn allow_owner(parent: &OwnedFd, name: &[u8]) -> Result<()> {
        chmodat(parent, name, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Never clears attributes: other platforms have no payload that sets any.
    pub fn allow_change(_: &OwnedFd, _: &[u8]) -> bool {
        false
    }

    /// Always true: other platforms have no user namespaces.
    pub fn is_initial_user_namespace() -> crate::Result<bool> {
        Ok(true)
    }

    /// Does nothing: on other platforms no program changes the action for SIGCHLD.
    pub fn restore_sigchld() {}

    /// No advice: only Linux has an oldest supported kernel.
    pub fn old_kernel(_: Option<i32>) -> Option<String> {
        None
    }

    /// No advice: only Linux has containers around a process.
    pub fn surroundings(_: &crate::Error) -> Option<String> {
        None
    }

    /// Does nothing: on other platforms no event follows a failed execution.
    pub fn ignore_sigpipe() {}

    /// Does nothing: on other platforms no program writes events.
    pub fn report_failure_to(_: crate::Tool, _: &std::ffi::OsStr) {}

    /// Ends this process by exit(3), with its handlers.
    pub fn exit(code: u8) -> ! {
        std::process::exit(code.into())
    }

    /// Does nothing: only Linux maps memory before its use.
    pub fn map_ahead() {}
}

/// `jc-unshare`, which fails on a platform without namespaces.
pub mod unshare {
    use std::process::ExitCode;

    use crate::{AnyWords, Result, Tool};

    /// The name and contract of the program.
    pub const TOOL: Tool = Tool::link("jc-unshare");

    /// Fails, since the system has no namespaces.
    pub fn run(_: AnyWords) -> Result<ExitCode> {
        Ok(TOOL.unsupported("namespaces"))
    }
}
