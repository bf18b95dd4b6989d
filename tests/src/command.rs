//! Commands with a time-out, and the contents of their outputs.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::processes::{is_idle, running};
use crate::ran::Ran;

/// The time limit of a command without [`Cmd::timeout`].
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time between the last output of a shell and its exec.
const BECOMING: Duration = Duration::from_millis(50);

/// The longest time that an output stays open after the end of its command, in parts. A machine that stands still for
/// seconds takes one part.
const DRAIN: [Duration; 20] = [Duration::from_millis(100); 20];

/// A command to run in a process group of its own, with an empty stdin.
pub struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
    timeout: Duration,
}

impl Cmd {
    /// A command without changes of its environment. [`Sandbox::cmd`](crate::Sandbox::cmd) sets PATH and the store.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        Self { command, input: None, timeout: TIMEOUT }
    }

    /// Adds an argument to the command line.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments to the command line.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the bytes that the command reads from stdin, a pipe.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self.command.stdin(Stdio::piped());
        self
    }

    /// Sets a stdin that is neither empty nor bytes.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Sets the time limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs the command to its end. Panics if the command cannot be started or exceeds its time limit.
    #[track_caller]
    pub fn run(self) -> Ran {
        self.spawn().wait()
    }

    /// The command for [`Terminal`](crate::pty::Terminal).
    pub(crate) fn into_std(self) -> Command {
        self.command
    }

    /// Starts the command without a wait.
    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let words = [self.command.get_program()].into_iter().chain(self.command.get_args());
        let line = words.map(|w| format!("{w:?}")).collect::<Vec<String>>().join(" ");
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(e) => panic!("cannot start {line}: {e}"),
        };
        if let (Some(input), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // A command may close stdin before the end, and the test checks that.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let stdout = Sink::new(child.stdout.take().unwrap());
        let stderr = Sink::new(child.stderr.take().unwrap());
        Running { line, child, stdout, stderr, timeout: self.timeout }
    }
}

/// An output that a thread reads continuously.
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

    /// Whether the output was closed in time.
    fn is_closed(&self) -> bool {
        DRAIN
            .iter()
            .any(|part| self.closed.recv_timeout(*part) == Err(RecvTimeoutError::Disconnected))
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
    /// The PID of the command.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the command alone, and not to its process group.
    pub fn signal(&self, signal: Signal) {
        // The command is not reaped yet, so the PID is its own.
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The stdout of the command so far.
    pub fn stdout_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// Waits until the command has written a text to stdout. Panics if that takes too long, or if the command ends
    /// first.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let tick = Duration::from_millis(5);
        for _ in 0..self.timeout.as_millis() / tick.as_millis() {
            if self.stdout_so_far().contains(text) {
                // A shell that has written the text may be about to execute another program, and catches signals
                // until then. A process that never sleeps is not waited for.
                let start = Instant::now();
                while start.elapsed() < BECOMING && !running().iter().all(|(pid, _)| is_idle(*pid))
                {
                    thread::sleep(Duration::from_millis(1));
                }
                return;
            }
            if self.child.try_wait().unwrap().is_some() && self.stdout.is_closed() {
                break;
            }
            thread::sleep(tick);
        }
        // Output just before the end counts.
        assert!(self.stdout_so_far().contains(text), "{}: never wrote {text:?}", self.line);
    }

    /// Waits for the end of the command. Panics if that takes too long, or if a process keeps the outputs open.
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
