//! A relay between the terminal of the user, in raw mode, and the terminal of a container, which gets keys, window
//! size and hang-up.

use std::fs::File;
use std::io::{stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use jc_unshare::supervise::{Child, NewChild};
use jc_unshare::{Context, Error, Result, Tool};
use nix::libc;
use nix::sys::signal::{Signal, raise};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, retry_on_intr, write};
use rustix::process::getpgrp;
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::console::Console;

/// The terminal of the user.
pub struct Terminal {
    fd: OwnedFd,
    /// The modes before the first change.
    modes: Termios,
}

/// The relay between the terminal of the user and that of the container.
struct Relay<'a> {
    child: &'a Child,
    console: Option<Console>,
    master: Option<OwnedFd>,
    /// Input that is not written yet.
    typed: Vec<u8>,
    has_keyboard: bool,
    /// The failed write of output, after which the container sees a hang-up.
    outcome: Result<()>,
}

impl Terminal {
    /// Opens stdin, or if stdin is no terminal, the controlling terminal.
    pub fn open() -> Result<Self> {
        let fd: OwnedFd = if isatty(stdin()) {
            stdin().as_fd().try_clone_to_owned().op("dup stdin")?
        } else {
            let tty = File::options().read(true).write(true).open("/dev/tty");
            tty.on("open", "/dev/tty")
                .map_err(|e| e.hint("-t needs a terminal of the caller"))?
                .into()
        };
        let modes = tcgetattr(&fd).op("tcgetattr")?;
        Ok(Self { fd, modes })
    }

    /// Runs `body`, which returns an exit code, in a child, and connects this terminal with the terminal that arrives at
    /// `console`. The child dies with this process.
    pub fn attend(
        self,
        tool: Tool,
        (console, path): (Console, &Path),
        body: impl FnOnce() -> Result<u8>,
    ) -> Result<ExitCode> {
        let mut console = Some(console);
        let child = NewChild::of(tool).spawn(|_| {
            drop(console.take());
            match body() {
                Ok(code) => std::process::exit(code.into()),
                Err(error) => error,
            }
        })?;
        let relay = Relay {
            child: &child,
            console,
            master: None,
            typed: Vec::new(),
            has_keyboard: true,
            outcome: Ok(()),
        };
        let carried = relay.carry(&self, path);
        self.restore()?;
        carried?;
        Ok(child.end()?.into())
    }

    /// Whether the terminal has another foreground process group, whose keys and modes are its own. A terminal that does
    /// not control this process has none.
    fn is_in_background(&self) -> bool {
        tcgetpgrp(&self.fd).is_ok_and(|group| group != getpgrp())
    }

    /// Stops this process while it is in the background, as the kernel stops a process that does not block SIGTTIN and
    /// SIGTTOU.
    fn wait_for_foreground(&self) -> Result<()> {
        while self.is_in_background() {
            raise(Signal::SIGSTOP).op("raise")?;
        }
        Ok(())
    }

    fn make_raw(&self) -> Result<()> {
        self.wait_for_foreground()?;
        let mut modes = self.modes.clone();
        modes.make_raw();
        tcsetattr(&self.fd, OptionalActions::Drain, &modes).op("tcsetattr")
    }

    fn restore(&self) -> Result<()> {
        if self.is_in_background() {
            return Ok(());
        }
        match tcsetattr(&self.fd, OptionalActions::Drain, &self.modes) {
            // The terminal has been hung up.
            Err(Errno::IO) => Ok(()),
            other => other.op("tcsetattr"),
        }
    }
}

impl Relay<'_> {
    /// Relays bytes, window sizes and signals until the child has ended.
    fn carry(mut self, terminal: &Terminal, path: &Path) -> Result<()> {
        loop {
            let Ready { signal, console, screen, keys, room, ended } = self.wait(terminal)?;
            if signal {
                self.signal(terminal)?;
            }
            if console && let Some(console) = self.console.take() {
                let master = console.receive(path)?;
                let flags = fcntl_getfl(&master).op("F_GETFL")?;
                fcntl_setfl(&master, flags | OFlags::NONBLOCK).op("F_SETFL")?;
                self.master = Some(master);
                terminal.make_raw()?;
                self.resize(terminal)?;
            }
            if keys {
                self.read_keys(terminal)?;
            }
            if room {
                self.write_keys()?;
            }
            // At the end, the rest of the output is written.
            if screen || ended {
                while self.show()? && ended {}
            }
            if ended {
                return self.outcome;
            }
        }
    }

    fn wait(&self, terminal: &Terminal) -> Result<Ready> {
        let listen = |fd, flags| PollFd::from_borrowed_fd(fd, flags);
        let [signals, pidfd, _] = self.child.descriptors();
        let mut fds = vec![listen(signals, PollFlags::IN), listen(pidfd, PollFlags::IN)];
        if let Some(console) = &self.console {
            fds.push(listen(console.as_fd(), PollFlags::IN));
        }
        if let Some(master) = &self.master {
            let room = if self.typed.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(listen(master.as_fd(), PollFlags::IN | room));
            if self.typed.is_empty() && self.has_keyboard {
                fds.push(listen(terminal.fd.as_fd(), PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(Ready::default()),
            other => other.op("poll")?,
        };
        let at = |index: usize| fds.get(index).map_or(PollFlags::empty(), PollFd::revents);
        let other = PollFlags::OUT.complement();
        let has_master = self.master.is_some();
        let third = at(2);
        Ok(Ready {
            signal: !at(0).is_empty(),
            ended: !at(1).is_empty(),
            console: self.console.is_some() && !third.is_empty(),
            screen: has_master && third.intersects(other),
            room: has_master && third.contains(PollFlags::OUT),
            keys: has_master && !at(3).is_empty(),
        })
    }

    /// Handles a signal; most are forwarded to the child.
    fn signal(&mut self, terminal: &Terminal) -> Result<()> {
        let Some(info) = self.child.signal()? else { return Ok(()) };
        match info.ssi_signo as i32 {
            libc::SIGCHLD => {}
            libc::SIGWINCH => self.resize(terminal)?,
            libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
                terminal.restore()?;
                raise(Signal::SIGSTOP).op("raise")?;
            }
            libc::SIGCONT if self.master.is_some() => {
                terminal.make_raw()?;
                self.resize(terminal)?;
            }
            signal => {
                if signal == libc::SIGHUP {
                    // The container sees a hang-up when its master is closed.
                    self.master = None;
                }
                self.child.send(signal)?;
            }
        }
        Ok(())
    }

    fn resize(&self, terminal: &Terminal) -> Result<()> {
        let Some(master) = &self.master else { return Ok(()) };
        match tcgetwinsize(&terminal.fd) {
            Ok(size) => tcsetwinsize(master, size).op("TIOCSWINSZ"),
            // The terminal has been hung up.
            Err(Errno::IO) => Ok(()),
            Err(error) => Err(error).op("TIOCGWINSZ"),
        }
    }

    fn read_keys(&mut self, terminal: &Terminal) -> Result<()> {
        let mut keys = [0; 4096];
        match read(&terminal.fd, &mut keys) {
            Err(Errno::IO) if terminal.is_in_background() => terminal.wait_for_foreground()?,
            Ok(0) | Err(Errno::IO) => self.has_keyboard = false,
            Ok(count) => self.typed.extend_from_slice(&keys[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error).op("read terminal"),
        }
        Ok(())
    }

    fn write_keys(&mut self) -> Result<()> {
        let Some(master) = &self.master else { return Ok(()) };
        match write(master, &self.typed) {
            Ok(count) => drop(self.typed.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // No process has the other side open.
            Err(Errno::IO) => self.typed.clear(),
            Err(error) => return Err(error).op("write terminal"),
        }
        Ok(())
    }

    /// Writes output of the container's terminal. Returns whether there may be more output.
    fn show(&mut self) -> Result<bool> {
        let Some(master) = &self.master else { return Ok(false) };
        let mut bytes = [0; 16384];
        match retry_on_intr(|| read(master, &mut bytes)) {
            Ok(count @ 1..) => {
                self.outcome = write_output(&bytes[..count]);
                if self.outcome.is_err() {
                    self.master = None;
                }
                Ok(self.outcome.is_ok())
            }
            Err(Errno::AGAIN) => Ok(false),
            Ok(0) | Err(Errno::IO) => {
                self.master = None;
                Ok(false)
            }
            Err(error) => Err(error).op("read terminal"),
        }
    }
}

/// Writes to stdout, which another program may have made non-blocking. EPIPE is a quiet error.
fn write_output(mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match write(stdout(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let stdout = stdout();
                poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None).op("poll stdout")?;
            }
            Err(Errno::PIPE) => return Err(Error::quiet()),
            Err(error) => return Err(error).op("write stdout"),
        }
    }
    Ok(())
}

/// The descriptors that are ready.
#[derive(Default)]
struct Ready {
    signal: bool,
    console: bool,
    screen: bool,
    keys: bool,
    room: bool,
    ended: bool,
}
