//! `--status-fd`: events, one line of JSON each (jc(7)).

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd, write};

use super::exit::Exit;
use super::poll::wait;
use super::process::Process;
use super::sys;
use crate::Tool;
use crate::error::{Context, Error, Result, strerror};
use crate::escape;
use crate::exec::exec;

/// The longest wait for the reader of a pipe that is full.
const PATIENCE: Duration = Duration::from_secs(2);

/// The number of bytes that a pipe takes at once if poll(2) reports POLLOUT (PIPE_BUF in pipe(7)).
const AT_ONCE: usize = 4096;

/// The descriptor for a failure of this process that no event has reported, or -1.
static UNREPORTED: AtomicI64 = AtomicI64::new(-1);

/// Writes that this link failed before it started PROG, unless another event has reported that.
fn report_failure(tool: Tool, error: &Error) {
    let number = UNREPORTED.swap(-1, Ordering::Relaxed);
    let Some(fd) = u32::try_from(number).ok().and_then(|number| sys::writable_fd(number).ok())
    else {
        return;
    };
    let (code, text) = (tool.code(error.kind()), quote(&error.to_string()));
    // The error goes to stderr too, and matters more than an error of this write.
    let _: Result<()> =
        StatusFd { fd, tool }.report("failed", &format!("{{\"code\":{code},\"error\":{text}}}"));
}

/// The descriptor to which a program of jc writes its events. The descriptor belongs to the caller, and the
/// programs that a link executes inherit it.
#[derive(Clone, Copy, Debug)]
pub struct StatusFd {
    fd: BorrowedFd<'static>,
    tool: Tool,
}

impl StatusFd {
    /// Uses a descriptor of the caller. Usage errors: a standard stream, or a descriptor that is not open for
    /// writing.
    pub fn open(tool: Tool, number: u32) -> Result<Self> {
        let usage = |why: &str| Error::usage(format_args!("--status-fd {number}: {why}"));
        if number <= 2 {
            return Err(usage("descriptors up to 2 belong to the program"));
        }
        let fd = sys::writable_fd(number).map_err(|e| usage(&strerror(&e)))?;
        Ok(Self { fd, tool })
    }

    /// Lets an error that ends this process be an event, until another one reports the start of PROG or a failure.
    #[must_use]
    pub fn reporting_failure(self) -> Self {
        UNREPORTED.store(self.fd.as_raw_fd().into(), Ordering::Relaxed);
        Tool::on_failure(report_failure);
        self
    }

    /// Closes the descriptor when this process executes a program.
    pub fn close_on_exec(self) -> Result<Self> {
        fcntl_setfd(self.fd, FdFlags::CLOEXEC).op("F_SETFD")?;
        Ok(self)
    }

    /// Writes the event that PROG runs as `process`, or is executed next.
    pub fn started(self, process: Process) -> Result<()> {
        let Process { pid, start } = process;
        UNREPORTED.store(-1, Ordering::Relaxed);
        self.report("started", &format!("{{\"pid\":{pid},\"start-time\":{start}}}"))
    }

    /// Writes the event that PROG was not executed.
    pub fn exec_failed(self, error: &Error) {
        UNREPORTED.store(-1, Ordering::Relaxed);
        let (code, text) = (self.tool.code(error.kind()), quote(&error.to_string()));
        // The error goes to stderr too, and matters more than an error of this write.
        let _: Result<()> =
            self.report("exec-failed", &format!("{{\"code\":{code},\"error\":{text}}}"));
    }

    /// Writes the event that PROG ended.
    pub fn exited(self, exit: Exit) {
        let code = exit.code();
        let signal = exit.signal().map_or_else(|| "null".to_owned(), |signal| signal.to_string());
        // The exit status of this process matters more than an error of this write.
        let _: Result<()> =
            self.report("exited", &format!("{{\"code\":{code},\"signal\":{signal}}}"));
    }

    /// Writes an event of a link. The event has the members of `object`, in JSON.
    pub fn report(self, event: &str, object: &str) -> Result<()> {
        let link = self.tool.name();
        self.write(event, &format!("{{\"link\":\"{link}\",{}", object.trim_start_matches('{')))
    }

    /// Writes an event with the members of `object`, in JSON. EPIPE is no error, since the reader has gone.
    /// ETIMEDOUT: the pipe is full, and nobody reads it.
    pub fn write(self, event: &str, object: &str) -> Result<()> {
        let line = format!("{{\"event\":\"{event}\",{}\n", object.trim_start_matches('{'));
        match self.write_all(line.as_bytes()) {
            Err(Errno::PIPE) => {
                sys::discard_sigpipe();
                Ok(())
            }
            written => written.op("write --status-fd"),
        }
    }

    fn write_all(self, mut bytes: &[u8]) -> rustix::io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !bytes.is_empty() {
            let room = PollFd::from_borrowed_fd(self.fd, PollFlags::OUT);
            if !wait(vec![room], Some(deadline)).is_ok_and(|ready| ready[0]) {
                return Err(Errno::TIMEDOUT);
            }
            match write(self.fd, &bytes[..bytes.len().min(AT_ONCE)]) {
                Ok(count) => bytes = &bytes[count..],
                // Another process writes to the same pipe.
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl AsFd for StatusFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd
    }
}

/// Executes a program in place of this process, like [`exec`], and writes an event if that fails.
pub fn exec_reporting(status: Option<StatusFd>, argv: &[OsString]) -> Error {
    let error = exec(argv);
    if let Some(status) = status {
        status.exec_failed(&error);
    }
    error
}

/// A string of JSON.
fn quote(text: &str) -> String {
    format!("\"{}\"", escape::json(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::Kind;

    #[test]
    fn an_event_is_one_line_with_its_name_first() {
        let (mut reader, writer) = pipe().unwrap();
        let status = StatusFd::open(Tool::link("jc-x"), writer.as_raw_fd() as u32).unwrap();
        status.started(Process { pid: 7, start: 99 }).unwrap();
        status.exited(Exit::Code(3));
        status.exited(Exit::Signal(9));
        status.exec_failed(&Error::with_kind(Kind::NotFound, "exec \"a\\b\n: gone"));
        status.write("removed", "{\"id\":\"x\"}").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let lines = r#"{"event":"started","link":"jc-x","pid":7,"start-time":99}
{"event":"exited","link":"jc-x","code":3,"signal":null}
{"event":"exited","link":"jc-x","code":137,"signal":9}
{"event":"exec-failed","link":"jc-x","code":127,"error":"exec \"a\\b\\n: gone"}
{"event":"removed","id":"x"}
"#;
        assert_eq!(text, lines);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error() {
        let (reader, writer) = pipe().unwrap();
        let status = StatusFd::open(Tool::link("jc-x"), writer.as_raw_fd() as u32).unwrap();
        drop(reader);
        status.started(Process { pid: 7, start: 99 }).unwrap();
    }

    #[test]
    fn a_descriptor_for_reading_is_a_usage_error() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let error = StatusFd::open(Tool::link("jc-x"), null.as_raw_fd() as u32).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
    }
}
