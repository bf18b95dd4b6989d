//! A system call that a child makes before it executes its program.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::hints::advise;
use super::sys::vfork::{self, BY_SHELL, Call};
use crate::error::{Context, Error, Result};
use crate::exec::failure;

/// A system call, with the operation and object of its error message.
#[derive(Debug)]
pub struct Step {
    pub(super) call: Call,
    operation: &'static str,
    object: OsString,
    hint: Option<String>,
}

impl Step {
    /// A step with the error message `operation object: strerror`.
    pub(crate) fn new(call: Call, operation: &'static str, object: impl Into<OsString>) -> Self {
        Self { call, operation, object: object.into(), hint: None }
    }

    /// Adds a hint to the error.
    pub(crate) fn hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    /// A step that writes the text to an open file, with one write(2).
    pub fn write(file: OwnedFd, text: &str, path: &Path) -> Self {
        Self::new(Call::Write(file, text.into()), "write", path)
    }

    /// Makes the system call in this process.
    pub(crate) fn perform(&self) -> Result<()> {
        self.call.perform().map_err(|errno| self.error(errno))
    }

    pub(super) fn error(&self, errno: i32) -> Error {
        let cause = io::Error::from_raw_os_error(errno & !BY_SHELL);
        if let Call::Execute(_) = self.call {
            let by_shell = errno & BY_SHELL != 0;
            let program =
                if by_shell { OsStr::from_bytes(vfork::SHELL.to_bytes()) } else { &self.object };
            return failure(program, &cause).of_kind(self.call.kind(errno));
        }
        let failed: io::Result<()> = Err(cause);
        let error = if self.object.is_empty() {
            failed.op(self.operation)
        } else {
            failed.on(self.operation, &self.object)
        };
        let error = error.err().unwrap_or_else(Error::quiet);
        if let Call::Unshare(flags) = self.call {
            return advise(flags)(error);
        }
        match &self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
