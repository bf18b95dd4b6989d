//! The wait for a program that is a child of this process, because this process is its subreaper.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jc_unshare::process::Process;
use jc_unshare::{Context, Error, Result};
use nix::libc::SIGCHLD;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};

use super::environment::{Environment, TOOL};
use super::state::Root;
use crate::linux::console::Console;
use crate::linux::terminal::Terminal;

/// The signals of this process, from before the start of the program.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Becomes the subreaper, and blocks all signals.
    pub fn block() -> Result<Self> {
        set_child_subreaper(Some(getpid())).op("PR_SET_CHILD_SUBREAPER")?;
        let all = SigSet::all();
        all.thread_block().op("sigprocmask")?;
        SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC).op("signalfd").map(Self)
    }

    /// Waits for the end of the program, and forwards signals to it. Gives the exit status.
    pub fn wait(&self, process: Option<Process>) -> Result<u8> {
        let process = process.ok_or_else(|| Error::new("no process to wait for"))?;
        let pid = process.pid.try_into().ok().and_then(Pid::from_raw);
        loop {
            // Orphans of the container are children of this process too.
            while let Some((ended, status)) = wait(WaitOptions::NOHANG).op("wait")? {
                if Some(ended) == pid {
                    return Ok(code(status));
                }
            }
            let signal =
                self.0.read_signal().op("read signalfd")?.map(|info| info.ssi_signo as i32);
            if let Some(signal) = signal.filter(|signal| *signal != SIGCHLD) {
                process.signal(signal)?;
            }
        }
    }
}

/// The exit status as a shell gives it.
fn code(status: WaitStatus) -> u8 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or(signal).unwrap_or(255) as u8
}

/// Connects the terminal of the caller with one of the container. The body gets the path of the socket, and runs in a
/// child.
pub fn attend(
    environment: &Environment,
    body: impl FnOnce(&Path) -> Result<u8>,
) -> Result<ExitCode> {
    let path = socket_path(environment)?;
    let terminal = Terminal::open()?;
    let console = Console::listen(&path)?;
    let code = terminal.attend(TOOL, (console, &path), || body(&path));
    // The chain may have failed before it connected.
    let _: std::io::Result<()> = fs::remove_file(&path);
    code
}

/// A path beside the directories of containers, whose names have no comma.
fn socket_path(environment: &Environment) -> Result<PathBuf> {
    let root = Root::open(environment.root.as_deref(), true)?;
    Ok(root.path().join(format!(",console.{}", getpid().as_raw_nonzero())))
}
