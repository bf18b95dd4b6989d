//! The end of a child, and the exit status that follows from it.

use std::process::ExitCode;
use std::time::Instant;

use nix::libc;
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, Signal, raise};
use rustix::process::WaitStatus;

/// The signals that a waiting link sent in place of the kernel, and the signals that it saw.
#[derive(Default)]
pub struct SignalBookkeeping {
    /// SIGKILL was sent as the default action of this signal.
    pub killed_for: Option<i32>,
    /// SIGSTOP was sent as the default action of this signal, and the child has not stopped yet.
    pub stopped_for: Option<i32>,
    /// The terminal sent this signal to this process and to the child.
    pub key: Option<i32>,
    /// A program in the namespace of an `--init` sent this stop signal to the process group, at this time.
    pub stop_from_inside: Option<(i32, Instant)>,
    /// The child, an `--init`, reported that this signal killed the program.
    pub killed_inside: Option<i32>,
    /// This process, an `--init`, reported a stop of the child to the link outside, and the stop is not over.
    pub has_reported_stop: bool,
}

impl SignalBookkeeping {
    /// The end of the child as it would be if the child were not PID 1.
    pub fn seen_from_outside(&self, exit: Exit, is_init: bool) -> Exit {
        let exit = match (exit, self.killed_for) {
            (Exit::Signal(libc::SIGKILL), Some(signal)) => Exit::Signal(signal),
            _ => exit,
        };
        let exit = match (exit, self.killed_inside) {
            (Exit::Code(code), Some(signal)) if i32::from(code) == 128 + signal => {
                Exit::Signal(signal)
            }
            _ => exit,
        };
        match (exit, self.key) {
            (Exit::Signal(signal), Some(key)) if signal == key => Exit::Key(key),
            // An interrupted PID 1 shows the signal only by its exit code.
            (Exit::Code(code), Some(key)) if is_init && i32::from(code) == 128 + key => {
                Exit::Key(key)
            }
            _ => exit,
        }
    }
}

/// The end of a child by its status of waitpid(2), if the child has ended.
pub fn ended(status: WaitStatus) -> Option<Exit> {
    let code = status.exit_status().map(|code| Exit::Code(code as u8));
    code.or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// The end of a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// The child called exit(3) with this code.
    Code(u8),
    /// This signal killed the child.
    Signal(i32),
    /// This signal of a key of the terminal killed the child. The terminal sent it to this process too.
    Key(i32),
}

impl Exit {
    /// The exit code as a shell shows it: the code itself, or 128 + signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) | Self::Key(signal) => 128u8.wrapping_add(signal as u8),
        }
    }

    /// The signal that killed the child, if one did.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) | Self::Key(signal) => Some(signal),
        }
    }

    /// The exit code of this process. If a key sent the signal, this process ends by the same signal: a shell continues
    /// its script after a program that exits, and not after a program that Ctrl-C kills.
    pub fn end(self) -> ExitCode {
        if let Self::Key(signal) = self
            && let Ok(signal) = Signal::try_from(signal)
        {
            // The child has dumped its core already. If the signal has no effect, as for PID 1, the exit code follows.
            let _: nix::Result<()> = set_dumpable(false)
                .and_then(|()| SigSet::from(signal).thread_unblock())
                .and_then(|()| raise(signal));
        }
        self.into()
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_reads_like_the_shells() {
        assert_eq!(Exit::Code(42).code(), 42);
        assert_eq!(Exit::Signal(9).code(), 137);
        assert_eq!(Exit::Key(2).code(), 130);
    }
}
