//! `--status-fd`: the start of the payload, which the caller of the chain learns from this last link.

use std::os::fd::{AsFd, BorrowedFd};

use jc_unshare::events::StatusFd;
use jc_unshare::process::Process;
use jc_unshare::{Error, Result, sys};

use crate::TOOL;

/// The descriptor, open until the payload is executed. The payload does not inherit the descriptor: events of
/// a container do not come from its payload.
#[derive(Clone, Copy)]
pub struct Started {
    status: StatusFd,
    payload: Process,
}

impl Started {
    /// Uses a descriptor of the caller for the events of a payload. Usage errors: see [`StatusFd::open`].
    pub fn open(number: u32, payload: Process) -> Result<Self> {
        let status = StatusFd::open(TOOL, number)?.close_on_exec()?.reporting_failure();
        Ok(Self { status, payload })
    }

    /// Makes another process the payload, before the event is written.
    pub fn set_payload(&mut self, payload: Process) {
        self.payload = payload;
    }

    /// Writes the event with the PID of the payload.
    pub fn report(&self) -> Result<()> {
        self.status.started(self.payload)
    }

    /// Writes that this process waits at a gate.
    pub fn report_gate(&self, gate: &str) -> Result<()> {
        let Process { pid, start } = self.payload;
        let members = format!("{{\"gate\":\"{gate}\",\"pid\":{pid},\"start-time\":{start}}}");
        self.status.report("gate", &members)
    }

    /// Writes that the payload was not executed.
    pub fn report_failure(&self, error: &Error) {
        self.status.exec_failed(error);
    }

    /// Closes the descriptor in a process that waits for the payload: the end of a pipe then shows the
    /// execution of the payload.
    pub fn close(self) {
        sys::close(self.status.as_fd());
    }
}

impl AsFd for Started {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }
}
