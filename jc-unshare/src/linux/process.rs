//! A process by PID and start time, which no later process with the same PID has.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_dumpable;
use rustix::io::{Errno, pread};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::poll::{readable, wait};
use super::sys;
use crate::error::{Absent, Context, Error, Result};

/// A process by the first and the 22nd field of proc_pid_stat(5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    /// The PID in the procfs on /proc.
    pub pid: u32,
    /// The start time in ticks since boot.
    pub start: u64,
}

impl Process {
    /// The process that calls this function.
    pub fn this() -> Result<Self> {
        Stat::open()?.read().map(|(this, _)| this)
    }

    /// The process that has this number in the procfs on /proc.
    pub fn numbered(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read(&path).on("read", &path)?;
        let found = Self::in_stat(&String::from_utf8_lossy(&stat));
        found.ok_or_else(|| Error::new(format_args!("read {path}: too short")))
    }

    fn in_stat(stat: &str) -> Option<Self> {
        in_stat(stat).map(|(process, _)| process)
    }

    /// A descriptor of the process, or `None` if the process no longer exists. The start time is compared after
    /// pidfd_open(2), since a later process may have the same PID.
    pub fn open(self) -> Result<Option<OwnedFd>> {
        let Some(pid) = self.pid.try_into().ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            // The PID is free, or belongs to a thread.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
            opened => opened.op("pidfd_open")?,
        };
        let path = format!("/proc/{}/stat", self.pid);
        let stat = match fs::read_to_string(&path) {
            // The process was reaped while the file was open.
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => None,
            read => read.on("read", &path).absent()?,
        };
        Ok(stat.filter(|stat| Self::in_stat(stat) == Some(self)).map(|_| pidfd))
    }

    /// Whether the process runs. A process that has ended, and is not yet reaped, does not run.
    pub fn runs(self) -> Result<bool> {
        Ok(self.open()?.is_some_and(|pidfd| !ends_within(&pidfd, Duration::ZERO)))
    }

    /// Whether the process has ended or is ending. The kernel takes the namespaces first, and PID 1 of a PID namespace then
    /// waits for all other processes in there (pid_namespaces(7)).
    pub fn is_ending(self) -> Result<bool> {
        match rustix::fs::readlink(format!("/proc/{}/ns/mnt", self.pid), Vec::new()) {
            Err(Errno::NOENT | Errno::SRCH) => Ok(true),
            // EACCES: this process may not inspect the other one.
            _ => self.runs().map(|runs| !runs),
        }
    }

    /// Sends the process a signal. Returns whether the process existed.
    pub fn signal(self, signal: i32) -> Result<bool> {
        self.open()?.map_or(Ok(false), |pidfd| send(&pidfd, signal))
    }
}

/// Sends a signal to the process of a descriptor. Returns whether the process existed.
pub fn send(pidfd: &OwnedFd, signal: i32) -> Result<bool> {
    match sys::send_signal(pidfd.as_fd(), signal) {
        Err(e) if e.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(false),
        sent => sent.op("pidfd_send_signal").map(|()| true),
    }
}

/// Denies other processes ptrace(2) of this process, and access to its `/proc/PID/exe`, `root`, `fd` and `mem`.
/// Processes with CAP_SYS_PTRACE in the user namespace that executed this process are the exception
/// (PR_SET_DUMPABLE(2const)). execve(2) ends the denial, so each program of a chain calls this function. The
/// call makes root the owner of the files of this process in /proc, so an ordinary user writes ID maps and clock
/// offsets before the call.
pub fn deny_tracing() -> Result<()> {
    set_dumpable(false).op("PR_SET_DUMPABLE")
}

/// An open `/proc/self/stat`, which can be read when another procfs is on /proc.
#[derive(Debug)]
pub struct Stat(File);

const STAT: &str = "/proc/self/stat";

impl Stat {
    /// Opens the `stat` file of this process.
    pub fn open() -> Result<Self> {
        File::open(STAT).on("open", STAT).map(Self)
    }

    /// This process as the file's procfs numbers it, and the PID of its parent.
    pub fn read(&self) -> Result<(Process, u32)> {
        // 52 numbers and a name fit the buffer.
        let mut buffer = [0; 2048];
        let length = pread(&self.0, &mut buffer, 0).on("read", STAT)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        in_stat(&text).ok_or_else(|| Error::new(format_args!("read {STAT}: too short")))
    }
}

/// A process by a line of proc_pid_stat(5), and its parent.
fn in_stat(stat: &str) -> Option<(Process, u32)> {
    let pid = stat.split_once(' ')?.0.parse().ok()?;
    // The second field is the name in parentheses, which may contain any character.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(1);
    let parent = fields.next()?.parse().ok()?;
    Some((Process { pid, start: fields.nth(17)?.parse().ok()? }, parent))
}

/// Whether the process of a descriptor ends within the time.
pub fn ends_within(pidfd: &OwnedFd, time: Duration) -> bool {
    ends_until(pidfd, Instant::now() + time).unwrap_or(false)
}

/// Whether the process of a descriptor ends before the deadline (pidfd_open(2)).
pub fn ends_until(pidfd: &OwnedFd, deadline: Instant) -> Result<bool> {
    wait(vec![readable(pidfd.as_fd())], Some(deadline)).map(|ready| ready[0])
}

impl Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.start)
    }
}

impl FromStr for Process {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (pid, start) = text.trim_end().split_once(' ').ok_or(())?;
        Ok(Self { pid: pid.parse().map_err(drop)?, start: start.parse().map_err(drop)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_number_and_its_beginning() {
        let this = Process::this().unwrap();
        assert_eq!(this.to_string().parse(), Ok(this));
        assert!(this.open().unwrap().is_some());
        assert!(Process { start: this.start + 1, ..this }.open().unwrap().is_none());
        assert_eq!("5".parse::<Process>(), Err(()));
    }

    #[test]
    fn a_name_can_look_like_fields() {
        let fields: Vec<String> = (4..53).map(|n| n.to_string()).collect();
        let stat = format!("77 (a ) R 5) S {}\n", fields.join(" "));
        assert_eq!(Process::in_stat(&stat).unwrap().to_string(), "77 22");
        assert_eq!(Process::in_stat("77 (x"), None);
    }
}
