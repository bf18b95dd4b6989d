//! The wait of a link for its child: the parent forwards signals, stops and continues with the child, and returns
//! how the child ended.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{fs, mem};

use nix::libc;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::unistd::{self, getpgid, getpgrp, getpid, getsid};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitOptions, WaitStatus, pidfd_open, wait, waitid,
    waitpid,
};

use super::events::StatusFd;
use super::exit::{Exit, SignalBookkeeping, ended};
use super::init_pipe::{InitEvent, drain_events, wait_for_event, write_event};
use super::poll::{Poller, can_be_read};
use super::process::{Process, deny_tracing, ends_within};
use super::signals::{
    Action, default_action, goes_to_group, is_default, is_ignored, stops_by_terminal,
};
use super::sys;
use super::terminal;
use crate::error::{Context, Error, Result};

/// The code of a signal from kill(2).
const SI_USER: i32 = 0;
/// The code of a signal from sigqueue(3).
const SI_QUEUE: i32 = -1;
/// The longest time that a link takes to forward a signal.
const FORWARD_LIMIT: Duration = Duration::from_secs(1);

/// A child of a waiting link.
#[derive(Debug)]
pub struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Whether the child is PID 1 of a namespace: the kernel drops signals for which PID 1 has no handler.
    pub(crate) is_init: bool,
    /// The end of the lifeline that only this process has open (see `lifeline`).
    pub(crate) alive: OwnedFd,
    /// The signals of this process, from before the start of the child: signals for a program that is ready must be
    /// forwarded.
    pub(crate) signals: SignalFd,
    /// The descriptor to which this process writes how the child ended.
    pub(crate) status: Option<StatusFd>,
}

/// The kinds of processes that wait.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A link, which stops when its child stops. The kernel stops no PID 1 from inside, so a child that is an `--init`
    /// reports stops of the program through the pipe.
    Link(Option<OwnedFd>),
    /// An `--init`, which reaps orphans and writes to the pipe.
    Init(OwnedFd),
}

impl Child {
    /// The child's number in the procfs on /proc, which may be that of another PID namespace. The number is not reused
    /// before the child is reaped.
    pub fn proc_number(&self) -> Result<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let info = fs::read_to_string(&path).on("read", &path)?;
        let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        // 0: the child has no number there; -1: the child is reaped.
        let number = number.and_then(|number| number.trim().parse().ok()).filter(|n| *n != 0);
        number.ok_or_else(|| {
            Error::new("the child is not in /proc")
                .hint("the procfs on /proc is that of another PID namespace")
        })
    }

    /// Reports the end of the child to a descriptor, as an event.
    #[must_use]
    pub fn reporting(self, status: Option<StatusFd>) -> Self {
        Self { status, ..self }
    }

    /// Reports the start of the program as an event. An error of the write kills the child.
    pub(crate) fn report_start(&self, status: StatusFd) -> Result<()> {
        let process = self.proc_number().and_then(Process::numbered);
        let written = process.and_then(|process| status.started(process));
        if written.is_err() {
            self.kill()?;
        }
        written
    }

    /// Waits for the end of a helper, and unblocks the signals of this process.
    pub fn reap(&self) -> Result<Exit> {
        SigSet::empty().thread_set_mask().op("sigprocmask")?;
        self.end()
    }

    /// Waits for the end of the child, without forwarding signals.
    pub fn end(&self) -> Result<Exit> {
        let status = waitpid(Some(self.pid), WaitOptions::empty()).op("waitpid")?;
        let exit = status.and_then(|(_, status)| ended(status));
        exit.ok_or_else(|| Error::new("waitpid: the child has not ended"))
    }

    /// The descriptors that must stay open as long as the child lives. The first becomes readable when this process
    /// receives a [`signal`](Self::signal), the second when the child ends.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.signals.as_fd(), self.pidfd.as_fd(), self.alive.as_fd()]
    }

    /// The successor of a child that has ended: a process that the child started as a child of this process
    /// (CLONE_PARENT in clone(2)). ECHILD: the process is no child of this process.
    pub fn succeeded_by(self, pid: Pid) -> Result<Self> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).op("waitid")?;
        // Only this process reaps the successor, so the number is not reused.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).op("pidfd_open")?;
        Ok(Self { pid, pidfd, ..self })
    }

    /// Kills the child, and waits for its end.
    pub fn kill(&self) -> Result<()> {
        self.send(libc::SIGKILL)?;
        self.end().map(drop)
    }

    /// Reads the next signal that this process received, if there is any.
    pub fn signal(&self) -> Result<Option<siginfo>> {
        self.signals.read_signal().op("read signalfd")
    }

    /// Waits for the end of the child. Meanwhile this process forwards its signals, and stops when the terminal stops
    /// the child, so that the shell sees the stop. Descriptors stay open.
    pub fn wait(&self) -> Result<Exit> {
        self.attend(&mut Waiter::Link(None), None)
    }

    /// Waits like [`wait`](Self::wait), and lets a poller handle its descriptors meanwhile.
    pub fn wait_polling(&self, poller: &mut dyn Poller) -> Result<Exit> {
        self.attend(&mut Waiter::Link(None), Some(poller))
    }

    /// Closes all descriptors but `kept` and those of the wait, and then waits like [`wait`](Self::wait). Without the
    /// close, the other end of a pipe would not see that the child has closed its own end. Errors are written only if
    /// stderr is in `kept`. The caller must own no other descriptors.
    pub fn wait_keeping(&self, kept: &[BorrowedFd<'_>]) -> Result<Exit> {
        self.wait_as(Waiter::Link(None), kept)
    }

    /// Waits like [`wait_keeping`](Self::wait_keeping), as a link or an `--init`.
    pub(crate) fn wait_as(&self, mut waiter: Waiter, kept: &[BorrowedFd<'_>]) -> Result<Exit> {
        let pipe = match &waiter {
            Waiter::Link(reader) => reader.as_ref(),
            Waiter::Init(writer) => Some(writer),
        };
        let mut all = self.descriptors().to_vec();
        all.extend(pipe.map(AsFd::as_fd));
        all.extend(self.status.as_ref().map(AsFd::as_fd));
        all.extend(kept);
        sys::close_all_but(&all);
        self.attend(&mut waiter, None)
    }

    /// Waits until the child has ended. An error of the wait kills the child, since the caller removes
    /// the objects that the child uses.
    fn attend(&self, waiter: &mut Waiter, poller: Option<&mut (dyn Poller + '_)>) -> Result<Exit> {
        self.follow(waiter, poller).inspect_err(|_| {
            // The error of the wait is the one to report.
            let _: Result<()> = self.kill();
        })
    }

    fn follow(
        &self,
        waiter: &mut Waiter,
        mut poller: Option<&mut (dyn Poller + '_)>,
    ) -> Result<Exit> {
        deny_tracing()?;
        let mut book = SignalBookkeeping::default();
        loop {
            // The child may have ended before the signalfd was there, without a SIGCHLD.
            if let Some(exit) = self.reap_and_check(waiter, &mut book)? {
                if let Some(status) = self.status {
                    status.exited(exit);
                }
                return Ok(exit);
            }
            if let Waiter::Link(reader) = waiter
                && let Some(event) =
                    wait_for_event(reader, self.signals.as_fd(), poller.as_deref_mut())?
            {
                match event {
                    InitEvent::Stopped(signal) => self.stop(signal, waiter, &mut book)?,
                    InitEvent::Killed(signal) => book.killed_inside = Some(signal),
                }
                continue;
            }
            if let Some(info) = self.signal()?
                && info.ssi_signo as i32 != libc::SIGCHLD
            {
                self.forward(&info, waiter, &mut book)?;
            }
        }
    }

    /// The next change of the child's state, if there is one. An `--init` reaps orphans on the way.
    fn status(&self, waiter: &Waiter) -> Result<Option<WaitStatus>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        // waitpid(None) would wait only for children of this process group.
        let next = || match waiter {
            Waiter::Link(_) => waitpid(Some(self.pid), options).op("waitpid"),
            Waiter::Init(_) => wait(options).op("wait"),
        };
        let mut change = next()?;
        while change.is_some_and(|(pid, _)| pid != self.pid) {
            change = next()?;
        }
        Ok(change.map(|(_, status)| status))
    }

    /// Handles changes of the child's state. The calls are those of rustix, since those of nix fail on real-time
    /// signals.
    fn reap_and_check(
        &self,
        waiter: &Waiter,
        book: &mut SignalBookkeeping,
    ) -> Result<Option<Exit>> {
        let mut status = self.status(waiter)?;
        if status.is_none() && book.killed_for.is_some() && ends_within(&self.pidfd, FORWARD_LIMIT)
        {
            status = self.status(waiter)?;
            if status.is_none() {
                // A tracer of the child reaps it first, at any time (ptrace(2)).
                let exit = Exit::Signal(libc::SIGKILL);
                return Ok(Some(book.seen_from_outside(exit, self.is_init)));
            }
        }
        let Some(status) = status else { return Ok(None) };
        if let Some(signal) = status.stopping_signal() {
            // The sender of a SIGSTOP continues only the child, so this process does not stop with the child.
            let followed = Some(signal).filter(|signal| stops_by_terminal(*signal));
            if let Some(signal) = followed.or(book.stopped_for.take()) {
                self.stop(signal, waiter, book)?;
            }
        }
        let Some(exit) = ended(status) else { return Ok(None) };
        if let Waiter::Link(reader) = waiter {
            terminal::reclaim();
            let killed = reader.as_ref().map(drain_events).transpose()?.flatten();
            book.killed_inside = killed.or(book.killed_inside);
        }
        let exit = book.seen_from_outside(exit, self.is_init);
        // The kernel lets no PID 1 end by a signal of its own, so the pipe reports the signal.
        if let (Waiter::Init(writer), Exit::Signal(signal) | Exit::Key(signal)) = (waiter, exit) {
            write_event(writer, InitEvent::Killed(signal))?;
        }
        Ok(Some(exit))
    }

    /// Stops this process by the signal that stopped the child, so that the shell sees a stopped job, and continues the
    /// child afterwards. In an orphaned process group the kernel stops neither a plain program nor this process, and
    /// the child continues at once.
    fn stop(&self, signal: i32, waiter: &Waiter, book: &mut SignalBookkeeping) -> Result<()> {
        if let Waiter::Init(writer) = waiter {
            // The link outside stops, and its SIGCONT ends the stop.
            book.has_reported_stop = true;
            return write_event(writer, InitEvent::Stopped(signal));
        }
        let signal = Signal::try_from(signal).op("raise")?;
        // The SIGCONT that ends the stop takes effect here, and is not forwarded.
        let both: SigSet = [signal, Signal::SIGCONT].into_iter().collect();
        // A signal that is raised while it is blocked merges with a pending one of the terminal.
        raise(signal).op("raise")?;
        both.thread_unblock().op("sigprocmask")?;
        both.thread_block().op("sigprocmask")?;
        let Waiter::Link(Some(reader)) = waiter else { return self.continue_child() };
        // Stops that PID 1 reported while this process was stopped are over.
        book.killed_inside = drain_events(reader)?.or(book.killed_inside);
        // PID 1 may have received the SIGCONT of its group too, and recognises this SIGCONT by SI_QUEUE.
        sys::queue_signal(self.pid, libc::SIGCONT).op("sigqueue")
    }

    /// Continues the child after a stop, unless the child received the SIGCONT of its process group: an editor draws its
    /// screen at each SIGCONT.
    fn continue_child(&self) -> Result<()> {
        let options = WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        match waitid(WaitId::Pid(self.pid), options) {
            // The child has ended; a wait without WCONTINUED reports that.
            Err(Errno::CHILD) => Ok(()),
            Ok(None) => self.send(libc::SIGCONT),
            continued => continued.op("waitid").map(drop),
        }
    }

    /// Forwards a signal to the child. If the kernel drops the signal there, this process carries out the default
    /// action.
    fn forward(&self, info: &siginfo, waiter: &Waiter, book: &mut SignalBookkeeping) -> Result<()> {
        let signal = info.ssi_signo as i32;
        if matches!(waiter, Waiter::Init(_)) {
            if self.is_stop_from_inside(info, book) {
                return Ok(());
            }
            // After a reported stop the group and the link may each send SIGCONT: only the first counts.
            if signal == libc::SIGCONT && (book.has_reported_stop || info.ssi_code == SI_QUEUE) {
                return if mem::take(&mut book.has_reported_stop) {
                    self.continue_child()
                } else {
                    Ok(())
                };
            }
        }
        let stops_itself = self.stops_itself(info, waiter);
        let early = !self.has_execed()?;
        let dropped = stops_itself || (early || self.is_init) && self.would_drop(signal, early);
        if !stops_itself && !self.was_sent_to_child(info) {
            match self.send(signal) {
                // PID 1 has only the capabilities of the payload, and may lack CAP_KILL over its new user.
                Err(e) if matches!(waiter, Waiter::Init(_)) && e.errno() == Some(libc::EPERM) => {}
                sent => sent?,
            }
        } else if matches!(signal, libc::SIGINT | libc::SIGQUIT) {
            book.key = Some(signal);
        }
        match default_action(signal) {
            Action::Terminate if dropped => {
                book.killed_for.get_or_insert(signal);
                self.send(libc::SIGKILL)
            }
            Action::Stop if dropped => {
                book.stopped_for = Some(signal);
                self.send(libc::SIGSTOP)
            }
            _ => Ok(()),
        }
    }

    /// Whether the child, as PID 1, stops its own process group, as editors do with kill(0, SIGTSTP). The kernel does not
    /// stop PID 1, and the PID of the sender is that of its own namespace. An `--init` sends no such signal.
    fn stops_itself(&self, info: &siginfo, waiter: &Waiter) -> bool {
        self.is_init
            && matches!(waiter, Waiter::Link(None))
            && stops_by_terminal(info.ssi_signo as i32)
            && info.ssi_code == SI_USER
            && info.ssi_pid == 1
    }

    /// In an `--init`: whether a program inside stops the process group of this process and the child, as editors do.
    /// The child has the signal already. Links outside are in the group too, and forward the same signal: a program
    /// that catches it would stop twice.
    fn is_stop_from_inside(&self, info: &siginfo, book: &mut SignalBookkeeping) -> bool {
        let signal = info.ssi_signo as i32;
        if signal == libc::SIGCONT {
            book.stop_from_inside = None;
        }
        if !stops_by_terminal(signal) || info.ssi_code != SI_USER || !self.is_in_own_group() {
            return false;
        }
        // The PID of a sender outside is 0.
        if info.ssi_pid != 0 {
            book.stop_from_inside = Some((signal, Instant::now()));
        }
        let same = |(from_inside, when): (i32, Instant)| {
            from_inside == signal && when.elapsed() < FORWARD_LIMIT
        };
        book.stop_from_inside.is_some_and(same)
    }

    /// Whether the terminal sent the signal to the whole foreground process group, the child included.
    fn was_sent_to_child(&self, info: &siginfo) -> bool {
        const SI_KERNEL: i32 = 0x80;
        let leads_session = getsid(None) == Ok(getpid());
        info.ssi_code == SI_KERNEL
            && goes_to_group(info.ssi_signo as i32, leads_session)
            && self.is_in_own_group()
    }

    /// Whether the child is in the process group of this process. nix accepts 0, the number of a group outside of the
    /// PID namespace.
    fn is_in_own_group(&self) -> bool {
        let child = unistd::Pid::from_raw(self.pid.as_raw_nonzero().get());
        getpgid(Some(child)) == Ok(getpgrp())
    }

    /// Whether the child has executed a program, or waits for one as `--init`. Its end of the lifeline is then closed.
    fn has_execed(&self) -> Result<bool> {
        can_be_read(self.alive.as_fd())
    }

    /// Whether the kernel drops this signal, because the child is PID 1 of a namespace and has the default action for
    /// the signal (pid_namespaces(7)). A blocked signal stays pending. Before the exec of the child (`early`) the mask is
    /// that of this program, and only ignored signals stay ignored.
    fn would_drop(&self, signal: i32, early: bool) -> bool {
        let status = self.proc_number().and_then(|number| {
            let path = format!("/proc/{number}/status");
            fs::read_to_string(&path).on("read", &path)
        });
        match status {
            Ok(status) if early => !is_ignored(&status, signal),
            Ok(status) => is_default(&status, signal),
            Err(_) => early,
        }
    }

    /// Sends the child a signal. A child that has ended is no error.
    pub fn send(&self, signal: i32) -> Result<()> {
        let sent = match sys::send_signal(self.pidfd.as_fd(), signal) {
            // The PID is not reused before the child is reaped.
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => sys::kill(self.pid, signal),
            other => other,
        };
        match sent {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.op("pidfd_send_signal"),
        }
    }
}
