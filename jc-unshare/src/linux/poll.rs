//! Waits for descriptors, by poll(2).

use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// A handler of descriptors while a child runs.
pub trait Poller {
    /// The descriptors for poll(2), from [`readable`] or [`at_end`].
    fn polled(&self) -> Vec<PollFd<'_>>;

    /// Handles the descriptors that are ready, without a wait. `ready` has a value for each descriptor of
    /// [`polled`](Self::polled).
    fn handle(&mut self, ready: &[bool]);
}

/// A descriptor that is ready when it can be read, or is at its end.
pub fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

/// A descriptor that is ready when the other end is closed. A write to the other end wakes no process.
pub fn at_end(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::empty())
}

/// Whether a descriptor can be read now, or is at its end.
pub fn can_be_read(fd: BorrowedFd<'_>) -> Result<bool> {
    are_ready(vec![readable(fd)]).map(|ready| ready[0])
}

/// Whether each descriptor is ready now.
pub fn are_ready(fds: Vec<PollFd<'_>>) -> Result<Vec<bool>> {
    wait(fds, Some(Instant::now()))
}

/// Waits until a descriptor is ready or the deadline is over. Returns whether each descriptor is ready.
pub fn wait(mut fds: Vec<PollFd<'_>>, deadline: Option<Instant>) -> Result<Vec<bool>> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let time = left.map(|left| Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut fds, time.as_ref()) {
            Err(Errno::INTR) => {}
            other => {
                other.op("poll")?;
                return Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect());
            }
        }
    }
}
