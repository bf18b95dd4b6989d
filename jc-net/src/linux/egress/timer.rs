//! A timer that reports once a second that time-outs may be over.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jc_unshare::{Context, Result};
use rustix::event::Timespec;
use rustix::io::read;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::EGRESS;

/// The timer, which can be read once a second while it is on.
#[derive(Debug)]
pub struct Timer {
    fd: OwnedFd,
    is_on: bool,
}

impl Timer {
    /// A timer that is off.
    pub fn new() -> Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags).op("timerfd_create")?;
        Ok(Self { fd, is_on: false })
    }

    /// Turns the timer on or off. An error ends the run, whose connections would have no time-outs.
    pub fn set(&mut self, on: bool) {
        if self.is_on == on {
            return;
        }
        let every = Timespec { tv_sec: i64::from(on), tv_nsec: 0 };
        let time = Itimerspec { it_interval: every, it_value: every };
        match timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &time).op("timerfd_settime") {
            Ok(_) => self.is_on = on,
            Err(error) => EGRESS.exit(&error),
        }
    }

    /// Reads the seconds that have passed, so that the timer can be read again.
    pub fn clear(&self) {
        // A count of zero means that another call has read it.
        let _ = read(&self.fd, &mut [0; 8]);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
