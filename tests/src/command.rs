//! Commands with a time-out, and what they left on their outputs.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::ran::Ran;

/// How long a command may take unless [`Cmd::timeout`] says otherwise.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long a shell may take from its last word to its exec.
const BECOMING: Duration = Duration::from_millis(50);

/// How long an output may stay open after its command has ended.
const DRAIN: Duration = Duration::from_secs(2);

/// A command to be run, in a process group of its own, with nothing on stdin.
pub struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
    timeout: Duration,
}

impl Cmd {
    /// A command to be run as it is; [`Sandbox::cmd`](crate::Sandbox::cmd) knows more.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        Self { command, input: None, timeout: TIMEOUT }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable out of its environment.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// What it reads from stdin, a pipe.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self.command.stdin(Stdio::piped());
        self
    }

    /// Its stdin, where it is neither nothing nor bytes.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end. Panics if it cannot be started, or takes too long.
    #[track_caller]
    pub fn run(self) -> Ran {
        self.spawn().wait()
    }

    /// The command itself, for [`Terminal`](crate::pty::Terminal).
    pub(crate) fn into_std(self) -> Command {
        self.command
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let words = [self.command.get_program()].into_iter().chain(self.command.get_args());
        let line = words.map(|w| format!("{w:?}")).collect::<Vec<String>>().join(" ");
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(e) => panic!("cannot start {line}: {e}"),
        };
        if let (Some(input), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // Whoever does not read it all closes it, which is for the test to judge.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let stdout = Sink::new(child.stdout.take().unwrap());
        let stderr = Sink::new(child.stderr.take().unwrap());
        Running { line, child, stdout, stderr, timeout: self.timeout }
    }
}

/// An output being read as it comes.
struct Sink {
    bytes: Arc<Mutex<Vec<u8>>>,
    closed: Receiver<()>,
}

impl Sink {
    fn new(mut source: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (sender, closed) = channel();
        let kept = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(n @ 1..) = source.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
            drop(sender);
        });
        Self { bytes, closed }
    }

    /// Whether it was closed in time.
    fn is_closed(&self) -> bool {
        self.closed.recv_timeout(DRAIN) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected)
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

/// A command that runs.
pub struct Running {
    line: String,
    child: Child,
    stdout: Sink,
    stderr: Sink,
    timeout: Duration,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it, and only it, a signal.
    pub fn signal(&self, signal: Signal) {
        // Not waited for yet, so the id is its own.
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has written to stdout so far.
    pub fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// Waits until it has written this text to stdout. Panics if it takes too long, or ends first.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let tick = Duration::from_millis(5);
        for _ in 0..self.timeout.as_millis() / tick.as_millis() {
            if self.stdout_so_far().contains(text) {
                // A shell that says so may be about to become another program, and until then it
                // catches what that program would not.
                thread::sleep(BECOMING);
                return;
            }
            if self.child.try_wait().unwrap().is_some() && self.stdout.is_closed() {
                break;
            }
            thread::sleep(tick);
        }
        // What came with its last breath counts.
        assert!(self.stdout_so_far().contains(text), "{}: never wrote {text:?}", self.line);
    }

    /// Waits for its end. Panics if that takes too long, or if somebody still holds its outputs.
    #[track_caller]
    pub fn wait(mut self) -> Ran {
        let ended = self.ends_in_time();
        if !ended {
            let group = Pid::from_child(&self.child);
            rustix::process::kill_process_group(group, Signal::KILL).unwrap();
        }
        let status = self.child.wait().unwrap();
        let closed = self.stdout.is_closed() && self.stderr.is_closed();
        let ran = Ran {
            line: self.line,
            status,
            stdout: self.stdout.bytes(),
            stderr: self.stderr.bytes(),
        };
        assert!(ended, "took longer than {:?}\n{ran}", self.timeout);
        assert!(closed, "ended, and a process it left behind has its outputs open\n{ran}");
        ran
    }

    fn ends_in_time(&mut self) -> bool {
        if self.child.try_wait().unwrap().is_some() {
            return true;
        }
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let timeout = Timespec::try_from(self.timeout).unwrap();
        loop {
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
                Ok(n) => return n > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => panic!("poll: {e}"),
            }
        }
    }
}

/// Sends a process of the test a signal.
pub(crate) fn signal_pid(pid: i32, signal: Signal) {
    if let Ok(pidfd) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        // Gone already is as good.
        let _: rustix::io::Result<()> = pidfd_send_signal(pidfd, signal);
    }
}
