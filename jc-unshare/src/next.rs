//! What a waiting process waits for besides signals.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};

use crate::error::{Context, Error, Result};
use crate::signals::stops_by_terminal;

/// What a supervisor sees to while its child runs.
pub trait Beside {
    /// What is waited for, as for poll(2): [`readable`], or [`at_end`].
    fn awaited(&self) -> Vec<PollFd<'_>>;

    /// Does what is to be done, without waiting for more: for each of the descriptors, whether it has come
    /// to what is waited for.
    fn attend(&mut self, ready: &[bool]);
}

/// A descriptor that is to have something to read, or to come to its end.
pub fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

/// One that is to come to its end. What is written to it meanwhile wakes nobody, and the writer need not
/// share its CPU.
pub fn at_end(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::empty())
}

/// What an `--init` tells the link outside of the program, through a pipe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word {
    /// This signal stopped it.
    Stopped(i32),
    /// This signal killed it.
    Killed(i32),
}

/// The bit that tells the two apart; signals have numbers up to 64.
const KILLED: u8 = 0x80;

/// Tells a word.
pub fn tell_word(tell: &OwnedFd, word: Word) -> Result<()> {
    let byte = match word {
        Word::Stopped(signal) => signal as u8,
        Word::Killed(signal) => signal as u8 | KILLED,
    };
    write(tell, &[byte]).op("write to jc-unshare").map(drop)
}

/// Reads a word; none at the end of the pipe.
fn read_word(told: &OwnedFd) -> Result<Option<Word>> {
    let mut byte = [0];
    let length = read(told, &mut byte).op("read from --init")?;
    let signal = i32::from(byte[0] & !KILLED);
    let word = if byte[0] & KILLED == 0 { Word::Stopped(signal) } else { Word::Killed(signal) };
    // A payload that traces PID 1 writes what it likes, and no signal but a stop is to be raised here.
    let is_word = matches!(word, Word::Killed(_)) || stops_by_terminal(signal);
    if length > 0 && !is_word {
        return Err(Error::new(format_args!("read from --init: {signal} is no stop signal")));
    }
    Ok((length > 0).then_some(word))
}

/// Passes over what has been told, but for which signal killed the program.
pub fn last_words(told: &OwnedFd) -> Result<Option<i32>> {
    let mut killed = None;
    // The end of the pipe is not a word, and is seen again.
    while can_be_read(told.as_fd())?
        && let Some(word) = read_word(told)?
    {
        if let Word::Killed(signal) = word {
            killed = Some(signal);
        }
    }
    Ok(killed)
}

/// Whether a descriptor can be read now, or has come to its end.
pub fn can_be_read(fd: BorrowedFd<'_>) -> Result<bool> {
    are_ready(vec![readable(fd)]).map(|ready| ready[0])
}

/// Which have come now to what is waited for.
pub fn are_ready(awaited: Vec<PollFd<'_>>) -> Result<Vec<bool>> {
    wait(awaited, Some(Instant::now()))
}

/// The same, waiting for the first until that moment, or for ever.
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

/// Waits until there is a signal to read, or the `--init` inside tells a word, and lets others see to
/// theirs meanwhile.
pub fn wait_for_word(
    told: &mut Option<OwnedFd>,
    signals: BorrowedFd<'_>,
    mut beside: Option<&mut (dyn Beside + '_)>,
) -> Result<Option<Word>> {
    // Without either, reading the signal waits.
    while told.is_some() || beside.is_some() {
        let pipe = told.as_ref().map(AsFd::as_fd);
        let others = beside.as_ref().map(|beside| beside.awaited()).unwrap_or_default();
        let own = pipe.into_iter().chain([signals]).map(readable);
        let ready = wait(own.chain(others).collect(), None)?;
        let (has_word, ready) = ready.split_at(usize::from(told.is_some()));
        // A signal first: what a key did to the program comes to be told after it came here too.
        if ready[0] {
            break;
        } else if let (Some(pipe), [true]) = (&*told, has_word) {
            if let Some(word) = read_word(pipe)? {
                return Ok(Some(word));
            }
            *told = None;
        } else if let Some(beside) = beside.as_deref_mut() {
            beside.attend(&ready[1..]);
        }
    }
    Ok(None)
}
