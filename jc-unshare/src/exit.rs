//! How a child ended, and how that is handed on.

use std::process::ExitCode;
use std::time::Instant;

use nix::libc;
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::{SigSet, Signal, raise};
use rustix::process::WaitStatus;

/// What a waiting link did to its child in the kernel's place, and what it saw.
#[derive(Default)]
pub struct Acted {
    /// SIGKILL was sent as the default action of this signal.
    pub killed_for: Option<i32>,
    /// SIGSTOP was sent as the default action of this signal, and its effect is still to come.
    pub stopped_for: Option<i32>,
    /// The terminal sent this signal to both.
    pub key: Option<i32>,
    /// This stop was sent to the group from inside an `--init`'s namespace, and when.
    pub stop_from_inside: Option<(i32, Instant)>,
    /// The `--init` that is the child has told that this signal killed the program.
    pub killed_inside: Option<i32>,
    /// As `--init`, a stop of the child was told to the link outside, and is not over.
    pub told: bool,
}

impl Acted {
    /// The end as it would have been without a PID 1's exceptions.
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
            // A PID 1 that was interrupted can say so by its code only.
            (Exit::Code(code), Some(key)) if is_init && i32::from(code) == 128 + key => {
                Exit::Key(key)
            }
            _ => exit,
        }
    }
}

/// How a child ended, if it has, by what waitpid(2) says.
pub fn ended(status: WaitStatus) -> Option<Exit> {
    let code = status.exit_status().map(|code| Exit::Code(code as u8));
    code.or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// How a child ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It called exit(3) with this code.
    Code(u8),
    /// This signal killed it.
    Signal(i32),
    /// This signal killed it, and came from a key of the terminal, so to this process too.
    Key(i32),
}

impl Exit {
    /// The shell's encoding, which is the contract's too: the code itself, or 128 + signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) | Self::Key(signal) => 128u8.wrapping_add(signal as u8),
        }
    }

    /// The signal that killed it, if one did.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) | Self::Key(signal) => Some(signal),
        }
    }

    /// The code to end with; or the end, by the signal that a key sent: a shell goes on with its
    /// script after a program that has exited, and not after one that Ctrl-C has killed.
    pub fn end(self) -> ExitCode {
        if let Self::Key(signal) = self
            && let Ok(signal) = Signal::try_from(signal)
        {
            // Not a second core. If the signal has no effect, as on a PID 1, the code will do.
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
