//! The controlling terminal of a waiting link, as far as it has to see to it.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// Makes this process's group the terminal's foreground again if the one that is now has ended. A
/// shell that was PID 1 of a namespace cannot do that itself when it ends: it has no number for a
/// group outside. To be called with SIGTTOU blocked.
pub fn reclaim() {
    // No terminal, or one of another session: nothing to see to.
    let _: Option<()> = reclaim_if_left();
}

fn reclaim_if_left() -> Option<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal: OwnedFd = openat(CWD, "/dev/tty", flags, Mode::empty()).ok()?;
    let foreground = tcgetpgrp(&terminal).ok()?;
    // 0 stands for a group of an outer namespace.
    let has_ended = foreground != Pid::from_raw(0) && killpg(foreground, None) == Err(Errno::ESRCH);
    if has_ended { tcsetpgrp(&terminal, getpgrp()).ok() } else { None }
}
