//! What a waiting process waits for besides signals.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

use crate::error::{Context, Result};

/// What a supervisor sees to while its child runs.
pub trait Beside {
    /// What can be read when there is something to do.
    fn descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Does it, without waiting for more.
    fn attend(&mut self);
}

/// Passes over stops that were told while this process was stopped itself: they are over.
pub fn forget_words(told: &OwnedFd) -> Result<()> {
    // The end of the pipe is not a word, and is seen later.
    while can_be_read(&[told.as_fd()])?[0] && read(told, &mut [0]).op("read")? > 0 {}
    Ok(())
}

/// Which of the descriptors can be read now, or have come to their end.
pub fn can_be_read(descriptors: &[BorrowedFd<'_>]) -> Result<Vec<bool>> {
    wait(descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
}

fn wait(descriptors: &[BorrowedFd<'_>], time: Option<&Timespec>) -> Result<Vec<bool>> {
    let fds = descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    let mut fds: Vec<PollFd<'_>> = fds.collect();
    while let Err(e) = poll(&mut fds, time) {
        if e != Errno::INTR {
            return Err(e).op("poll");
        }
    }
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Waits until there is a signal to read, or the `--init` inside tells of a stop by this signal, and
/// lets others see to theirs meanwhile.
pub fn wait_for_word(
    told: &mut Option<OwnedFd>,
    signals: BorrowedFd<'_>,
    mut beside: Option<&mut (dyn Beside + '_)>,
) -> Result<Option<i32>> {
    // Without either, reading the signal waits.
    while told.is_some() || beside.is_some() {
        let pipe = told.as_ref().map(AsFd::as_fd);
        let others = beside.as_ref().map(|beside| beside.descriptors()).unwrap_or_default();
        let descriptors: Vec<_> = pipe.into_iter().chain([signals]).chain(others).collect();
        let ready = wait(&descriptors, None)?;
        let (has_word, ready) = ready.split_at(usize::from(told.is_some()));
        if let (Some(pipe), [true]) = (&*told, has_word) {
            let mut word = [0];
            if read(pipe, &mut word).op("read from --init")? > 0 {
                return Ok(Some(word[0].into()));
            }
            *told = None;
        } else if ready[0] {
            break;
        } else if let Some(beside) = beside.as_deref_mut() {
            beside.attend();
        }
    }
    Ok(None)
}
