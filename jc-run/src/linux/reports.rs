//! The events that links write (jc(7)). Only links have the pipes open.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jc_unshare::process::Process;
use jc_unshare::{Context, Result};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;

/// The most bytes that the supervisor reads from one pipe. Links write less: the longest event has a line for
/// each published port.
const MOST: usize = 16 << 20;

/// The number of bytes of one read.
const CHUNK: usize = 16 << 10;

/// A pipe with events. The first event of each kind and link counts.
#[derive(Debug)]
pub struct Reports {
    reader: Option<OwnedFd>,
    text: Vec<u8>,
}

impl Reports {
    /// Makes a pipe. Returns the end to which links write too.
    pub fn pipe() -> Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).op("pipe")?;
        fcntl_setfl(&reader, OFlags::NONBLOCK).op("F_SETFL")?;
        Ok((Self { reader: Some(reader), text: Vec::new() }, writer))
    }

    /// The pipe, until its end.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.reader.as_ref().map(AsFd::as_fd)
    }

    /// Reads the available bytes. After more than [`MOST`] bytes the pipe is closed.
    pub fn read(&mut self) -> Result<()> {
        let mut chunk = [0; CHUNK];
        while let Some(reader) = &self.reader {
            match read(reader, &mut chunk) {
                Ok(0) => self.reader = None,
                Ok(count) => self.text.extend(&chunk[..count]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).op("read events"),
            }
            if self.text.len() > MOST {
                self.reader = None;
            }
        }
        Ok(())
    }

    /// The first event with this name, of one link or of any. Text that is no event is ignored.
    pub fn find(&self, name: &str, link: Option<&str>) -> Option<Value> {
        let lines = self.text.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
        let mut events = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        events.find(|event| event["event"] == name && link.is_none_or(|link| event["link"] == link))
    }

    /// The payload, if jc-rootfs has executed it. The answer is valid only at the end of the pipe.
    pub fn payload(&self) -> Option<Process> {
        let number = |event: &Value, key: &str| event[key].as_u64();
        let started = self.find("started", Some("jc-rootfs"))?;
        let pid = number(&started, "pid")?.try_into().ok()?;
        let start = number(&started, "start-time")?;
        let failed = self.find("exec-failed", Some("jc-rootfs"));
        failed.is_none().then_some(Process { pid, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(text: &str) -> Reports {
        Reports { reader: None, text: text.into() }
    }

    #[test]
    fn a_payload_has_started_once_and_has_not_failed() {
        let started = r#"{"event":"started","link":"jc-rootfs","pid":7,"start-time":99}"#;
        let forged = r#"{"event":"started","link":"jc-rootfs","pid":1,"start-time":1}"#;
        let failed = r#"{"event":"exec-failed","link":"jc-rootfs","code":127,"error":"x"}"#;
        let payload = Some(Process { pid: 7, start: 99 });
        assert_eq!(reports(&format!("{started}\n")).payload(), payload);
        assert_eq!(reports(&format!("{started}\n{forged}\n")).payload(), payload);
        let other = started.replace("jc-rootfs", "jc-unshare");
        for text in ["", started, &format!("{started}\n{failed}\n"), "x\n", &format!("{other}\n")] {
            assert_eq!(reports(text).payload(), None, "{text:?}");
        }
    }

    #[test]
    fn a_pipe_is_read_up_to_a_bound() {
        let (mut reports, writer) = Reports::pipe().unwrap();
        reports.text = vec![b'x'; MOST - 1];
        rustix::io::write(&writer, b"yz").unwrap();
        reports.read().unwrap();
        assert!(reports.as_fd().is_none());
        assert_eq!(rustix::io::write(&writer, b"y"), Err(Errno::PIPE));
    }
}
