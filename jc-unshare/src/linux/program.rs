//! A program that a child executes, with the steps before. The parent prepares everything, since the child shares
//! its memory and only makes system calls.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, NulError, OsString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::libc;
use nix::sys::signal::Signal;
use rustix::io::fcntl_dupfd_cloexec;

use super::events::StatusFd;
use super::lifeline::Lifeline;
pub use super::step::Step;
use super::sys;
use super::sys::vfork::{self, Call, Failure};
use crate::error::{Context, Error, Result};
use crate::exec::{candidates, failure};

/// The name and the value of an environment variable. A variable without a value is removed.
pub type Variable = (OsString, Option<OsString>);

/// A program to execute, after some steps.
#[derive(Debug)]
pub struct Program {
    steps: Vec<Step>,
    inherited: Vec<(OwnedFd, RawFd)>,
    /// The signal that the program gets when this process dies. `None`: the program outlives this process.
    death: Option<Signal>,
    status: Option<StatusFd>,
    execute: Step,
}

impl Program {
    /// A program with its arguments. PATH is searched for the program.
    pub fn new(argv: &[OsString]) -> Result<Self> {
        let Some(name) = argv.first() else {
            return Err(Error::usage("no program given to run"));
        };
        let text = |word: &OsString| CString::new(word.as_bytes());
        let words: std::result::Result<_, NulError> = argv.iter().map(text).collect();
        let words: Vec<CString> = words.map_err(|e| failure(name, &e.into()))?;
        let is_searched = !name.is_empty() && !name.as_bytes().contains(&b'/');
        let paths = if is_searched {
            candidates(name, env::var_os("PATH").as_deref())
        } else {
            vec![name.into()]
        };
        // Neither a variable nor an argument has a NUL byte.
        let paths = paths
            .into_iter()
            .filter_map(|path| CString::new(path.into_os_string().into_encoded_bytes()).ok());
        let program = vfork::Program::new(paths.collect(), is_searched, words);
        let execute = Step::new(Call::Execute(program), "exec", name);
        let (steps, inherited) = (Vec::new(), Vec::new());
        let death = Some(Signal::SIGKILL);
        Ok(Self { steps, inherited, death, status: None, execute })
    }

    /// Marks the program as a part of the tool: its absence is exit code 125, in place of 127.
    #[must_use]
    pub fn required(mut self) -> Self {
        if let Call::Execute(program) = &mut self.execute.call {
            program.is_required = true;
        }
        self
    }

    /// Changes the program's environment. The last of several changes of a variable counts.
    pub fn with_variables(mut self, changes: &[Variable]) -> Result<Self> {
        let mut environment: BTreeMap<OsString, OsString> = env::vars_os().collect();
        for (name, value) in changes {
            match value {
                Some(value) => environment.insert(name.clone(), value.clone()),
                None => environment.remove(name),
            };
        }
        let text = |(name, value): (OsString, OsString)| {
            CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
                .map_err(|_| Error::usage(format_args!("-e {}: a NUL byte", name.display())))
        };
        if let Call::Execute(program) = &mut self.execute.call {
            program.set_environment(environment.into_iter().map(text).collect::<Result<_>>()?);
        }
        Ok(self)
    }

    /// Reports the start and the end of the program, or that its execution failed, as events to a descriptor.
    #[must_use]
    pub fn reporting(self, status: Option<StatusFd>) -> Self {
        Self { status, ..self }
    }

    /// The descriptor for events.
    pub(crate) fn status(&self) -> Option<StatusFd> {
        self.status
    }

    /// Adds steps before the execution, in this order.
    #[must_use]
    pub fn after(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    /// Sets the signal that the kernel sends to the program when this process dies, in place of SIGKILL.
    #[must_use]
    pub fn dying_by(mut self, signal: Signal) -> Self {
        self.death = Some(signal);
        self
    }

    /// Lets the program live on when this process ends.
    #[must_use]
    pub fn outliving(self) -> Self {
        Self { death: None, ..self }
    }

    /// Lets the program inherit the descriptor as this number.
    pub fn inherit(&mut self, fd: OwnedFd, number: RawFd) {
        self.inherited.push((fd, number));
    }

    /// All steps of the child: those of every child, and those of this program. `alive` is the end of the lifeline that
    /// only this process keeps open.
    pub(crate) fn into_steps(self, life: &Lifeline, alive: &OwnedFd) -> Result<Vec<Step>> {
        let close = Step::new(Call::Close(alive.as_raw_fd()), "close", "");
        let mut steps = vec![close];
        steps.extend(self.death.map(|_| life.step(Signal::SIGKILL)));
        steps.extend(self.steps);
        let other = self.death.filter(|signal| *signal != Signal::SIGKILL);
        steps.extend(other.map(|signal| life.step(signal)));
        // The number that one step assigns must not be the number of a descriptor that a later step needs.
        let free = self.inherited.iter().map(|(_, number)| number + 1).max().unwrap_or(0);
        for (fd, number) in self.inherited {
            let fd = if fd.as_raw_fd() < free {
                fcntl_dupfd_cloexec(&fd, free).op("F_DUPFD")?
            } else {
                fd
            };
            steps.push(Step::new(Call::Inherit(fd, number), "dup3", ""));
        }
        steps.push(Step::new(Call::DefaultSignal(libc::SIGPIPE), "sigaction", ""));
        if sys::was_sigchld_ignored() {
            steps.push(Step::new(Call::IgnoreSignal(libc::SIGCHLD), "sigaction", ""));
        }
        steps.push(Step::new(Call::UnblockSignals, "sigprocmask", ""));
        steps.push(self.execute);
        Ok(steps)
    }
}

pub(crate) fn calls(steps: &[Step]) -> Vec<&Call> {
    steps.iter().map(|step| &step.call).collect()
}

/// The error of the step that failed in a child.
pub(crate) fn error(steps: &[Step], failure: Failure) -> Error {
    let step = steps.get(failure.index);
    step.map_or_else(Error::quiet, |step| step.error(failure.errno))
}
