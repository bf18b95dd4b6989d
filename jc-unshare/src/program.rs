//! A program that a child executes, with the steps before: all prepared, as the child shares the memory of
//! this process and only makes system calls.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;
use nix::sys::signal::Signal;
use rustix::io::fcntl_dupfd_cloexec;

use crate::error::{Context, Error, Result};
use crate::events::StatusFd;
use crate::exec::{candidates, failure};
use crate::lifeline::Lifeline;
use crate::sys;
use crate::sys::vfork::{self, BY_SHELL, Call, Failure};

/// A system call, and how an error names it.
#[derive(Debug)]
pub struct Step {
    call: Call,
    operation: &'static str,
    object: OsString,
    hint: Option<String>,
}

impl Step {
    /// `operation object: strerror` is the error of this call.
    pub(crate) fn new(call: Call, operation: &'static str, object: impl Into<OsString>) -> Self {
        Self { call, operation, object: object.into(), hint: None }
    }

    /// Adds the line that says what would help.
    pub(crate) fn hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// Writes this text at once to a file that is open.
    pub fn write(file: OwnedFd, text: &str, path: &Path) -> Self {
        Self::new(Call::Write(file, text.into()), "write", path)
    }

    /// Makes the system call in this process.
    pub(crate) fn make(&self) -> Result<()> {
        self.call.make().map_err(|errno| self.error(errno))
    }

    fn error(&self, errno: i32) -> Error {
        let cause = io::Error::from_raw_os_error(errno & !BY_SHELL);
        if let Call::Execute(_) = self.call {
            let by_shell = errno & BY_SHELL != 0;
            let program =
                if by_shell { OsStr::from_bytes(vfork::SHELL.to_bytes()) } else { &self.object };
            return failure(program, &cause).of_kind(self.call.kind(errno));
        }
        let failed: io::Result<()> = Err(cause);
        let error = match self.object.is_empty() {
            true => failed.op(self.operation),
            false => failed.on(self.operation, &self.object),
        };
        let error = error.err().unwrap_or_else(Error::quiet);
        match &self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// A variable and its value; none to remove it.
pub type Variable = (OsString, Option<OsString>);

/// A program to execute, after some steps.
#[derive(Debug)]
pub struct Program {
    steps: Vec<Step>,
    inherited: Vec<(OwnedFd, RawFd)>,
    death: Signal,
    status: Option<StatusFd>,
    execute: Step,
}

impl Program {
    /// A program with its arguments, which PATH finds.
    pub fn new(argv: &[OsString]) -> Result<Self> {
        let Some(name) = argv.first() else {
            return Err(Error::usage("no program given to run"));
        };
        let text = |word: &OsString| CString::new(word.as_bytes());
        let words: std::result::Result<_, NulError> = argv.iter().map(text).collect();
        let words: Vec<CString> = words.map_err(|e| failure(name, &e.into()))?;
        let is_searched = !name.is_empty() && !name.as_bytes().contains(&b'/');
        let paths = match is_searched {
            true => candidates(name, env::var_os("PATH").as_deref()),
            false => vec![name.into()],
        };
        // Neither a variable nor an argument has a NUL byte.
        let paths = paths
            .into_iter()
            .filter_map(|path| CString::new(path.into_os_string().into_encoded_bytes()).ok());
        let program = vfork::Program::new(paths.collect(), is_searched, words);
        let execute = Step::new(Call::Execute(program), "exec", name);
        let (steps, inherited) = (Vec::new(), Vec::new());
        Ok(Self { steps, inherited, death: Signal::SIGKILL, status: None, execute })
    }

    /// The program belongs to the tool: its absence is the tool's failure, not that of a payload.
    #[must_use]
    pub fn required(mut self) -> Self {
        if let Call::Execute(program) = &mut self.execute.call {
            program.is_required = true;
        }
        self
    }

    /// Changes the program's environment. Of several changes of one variable, the last counts.
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

    /// Writes the start of the program, or that its execution failed, and its end to a descriptor.
    #[must_use]
    pub fn reporting(self, status: Option<StatusFd>) -> Self {
        Self { status, ..self }
    }

    /// The descriptor for events.
    pub(crate) fn status(&self) -> Option<StatusFd> {
        self.status
    }

    /// Steps to take before, in this order.
    #[must_use]
    pub fn after(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps.extend(steps);
        self
    }

    /// The program gets this signal in place of SIGKILL when this process dies.
    #[must_use]
    pub fn dying_by(mut self, signal: Signal) -> Self {
        self.death = signal;
        self
    }

    /// The program inherits the descriptor as this number.
    pub fn inherit(&mut self, fd: OwnedFd, number: RawFd) {
        self.inherited.push((fd, number));
    }

    /// All steps of a child, with those that every child takes. `alive` is the end of the lifeline that only
    /// this process is to hold.
    pub(crate) fn into_steps(self, life: &Lifeline, alive: &OwnedFd) -> Result<Vec<Step>> {
        let close = Step::new(Call::Close(alive.as_raw_fd()), "close", "");
        let mut steps = vec![close, life.step(Signal::SIGKILL)];
        steps.extend(self.steps);
        if self.death != Signal::SIGKILL {
            steps.push(life.step(self.death));
        }
        // No number that is given away may be that of a descriptor which is still to be inherited.
        let free = self.inherited.iter().map(|(_, number)| number + 1).max().unwrap_or(0);
        for (fd, number) in self.inherited {
            let fd = match fd.as_raw_fd() < free {
                true => fcntl_dupfd_cloexec(&fd, free).op("F_DUPFD")?,
                false => fd,
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

/// The calls of steps.
pub(crate) fn calls(steps: &[Step]) -> Vec<&Call> {
    steps.iter().map(|step| &step.call).collect()
}

/// The error at which a child that took these steps has ended.
pub(crate) fn error(steps: &[Step], failure: Failure) -> Error {
    let step = steps.get(failure.place);
    step.map_or_else(Error::quiet, |step| step.error(failure.errno))
}
