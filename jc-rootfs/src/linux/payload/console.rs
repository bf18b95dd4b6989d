//! `--console-socket`: a pseudo-terminal of the container as the console of the payload. The caller receives the
//! master side through a socket (runc's docs/terminals.md).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use jc_unshare::{Context, Error, Result, rights};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fstat, fstatfs, openat};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::linux::mount::fscontext::{attach, clone_fd};
use crate::linux::mount::resolve::{Missing, resolve};

/// The slave side of a pseudo-terminal.
pub struct Console(OwnedFd);

impl Console {
    /// Opens a pseudo-terminal in the devpts of a root, sends the master side to the socket, and if `bind` mounts
    /// the slave side on /dev/console. A root without a devpts on /dev/pts is an error.
    pub fn open(
        root: BorrowedFd<'_>,
        socket: &OwnedFd,
        bind: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Self> {
        const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
        let path = Path::new("/dev/pts");
        let pts = resolve(root, path, Missing::Fail)?;
        if fstatfs(&pts).on("fstatfs", path)?.f_type as u64 != DEVPTS_SUPER_MAGIC {
            return Err(Error::new("open /dev/pts: is not a devpts"));
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let master = openat(&pts, "ptmx", flags, Mode::empty()).on("open", "/dev/pts/ptmx")?;
        unlockpt(&master).op("unlockpt")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = ioctl_tiocgptpeer(&master, flags).op("TIOCGPTPEER")?;
        if let Some((ws_row, ws_col)) = size {
            let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&terminal, size).op("TIOCSWINSZ")?;
        }
        if bind {
            let path = Path::new("/dev/console");
            let target = resolve(root, path, Missing::MakeFile)?;
            attach(clone_fd(&terminal, false, path)?, &target, path)?;
        }
        rights::send(socket, &[master.as_fd()], b"/dev/ptmx")?;
        Ok(Self(terminal))
    }

    /// Changes the owner of the slave side to the user of the payload.
    pub fn set_owner(&self, owner: Option<u32>) -> Result<()> {
        if let Some(uid) = owner
            && fstat(&self.0).op("stat console")?.st_uid != uid
        {
            fchown(&self.0, Some(Uid::from_raw(uid)), None::<Gid>).op("chown console")?;
        }
        Ok(())
    }

    /// Makes the slave side the controlling terminal of this session, and standard input, output and error. EPERM:
    /// this process leads no session.
    pub fn set_controlling(&self) -> Result<()> {
        ioctl_tiocsctty(&self.0).op("TIOCSCTTY")?;
        dup2_stdin(&self.0).op("dup2")?;
        dup2_stdout(&self.0).op("dup2")?;
        dup2_stderr(&self.0).op("dup2")
    }
}
