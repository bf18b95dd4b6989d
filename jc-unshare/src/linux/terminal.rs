//! The foreground process group of the controlling terminal of a waiting link.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// Makes the process group of this process the foreground group again if the present foreground group has ended. A
/// shell that was PID 1 of a namespace cannot do so at its end, since a group outside has no number inside. The
/// caller must have SIGTTOU blocked.
pub fn reclaim() {
    // Without a terminal of this session there is no foreground group.
    let _: Option<()> = reclaim_if_left();
}

fn reclaim_if_left() -> Option<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal: OwnedFd = openat(CWD, "/dev/tty", flags, Mode::empty()).ok()?;
    let foreground = tcgetpgrp(&terminal).ok()?;
    // 0 is the number of a group of an outer namespace.
    let has_ended = foreground != Pid::from_raw(0) && killpg(foreground, None) == Err(Errno::ESRCH);
    if has_ended { tcsetpgrp(&terminal, getpgrp()).ok() } else { None }
}
