//! The waiting link: a parent that behaves as if its child had been executed in its place. Signals
//! arrive, stops and continues are followed, the exit code is handed on, and when the parent is
//! killed the child dies too.

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

use crate::error::{Context, Error, Result};
use crate::events::StatusFd;
pub use crate::exit::Exit;
use crate::exit::{Acted, ended};
pub use crate::lifeline::Lifeline;
pub use crate::next::{Beside, are_ready, at_end, readable};
use crate::next::{Word, can_be_read, last_words, tell_word, wait_for_word};
use crate::process::{Process, deny_tracing, ends_within};
use crate::signals::{
    Action, default_action, goes_to_group, is_default, is_ignored, stops_by_terminal,
};
pub use crate::spawn::{spawn, spawn_program};
use crate::sys;
use crate::terminal;

/// What kill(2) sends has this code.
const SI_USER: i32 = 0;
/// And what sigqueue(3) sends this one.
const SI_QUEUE: i32 = -1;
/// How long a link may take to hand a signal on, by far.
const HAND_ON_LIMIT: Duration = Duration::from_secs(1);

/// A child of a waiting link.
#[derive(Debug)]
pub struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// PID 1 of a namespace: the kernel drops signals that it has no handler for.
    pub(crate) is_init: bool,
    /// Held open for as long as this process lives; see [`Lifeline`].
    pub(crate) alive: OwnedFd,
    /// All that this process gets, from before the child began: a program that has said it is ready
    /// must not find that nobody forwards to it yet.
    pub(crate) signals: SignalFd,
    /// The descriptor to which this process writes how the child ended.
    pub(crate) status: Option<StatusFd>,
}

/// Who waits. Either holds no descriptors meanwhile but those that it needs: a pipe must see its
/// other end closed when the child closes it.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A process that stops along with its child. An `--init` that is the child tells of stops
    /// through the pipe, as the kernel stops no PID 1 from inside.
    Link(Option<OwnedFd>),
    /// That PID 1: it has orphans to reap, and the other end of the pipe.
    Init(OwnedFd),
}

impl Child {
    /// The child's number in the procfs on /proc, which need not be that of this process's PID
    /// namespace. Stays the child's until it has been waited for.
    pub fn proc_number(&self) -> Result<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let info = fs::read_to_string(&path).on("read", &path)?;
        let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
        // 0 if it has none there, -1 if it is gone.
        let number = number.and_then(|number| number.trim().parse().ok()).filter(|n| *n != 0);
        number.ok_or_else(|| {
            Error::new("the child is not in /proc")
                .hint("the procfs on /proc is that of another PID namespace")
        })
    }

    /// Writes the end of the child to a descriptor. A child that has not written its start itself is a
    /// [`Program`](crate::program::Program).
    #[must_use]
    pub fn reporting(self, status: Option<StatusFd>) -> Self {
        Self { status, ..self }
    }

    /// Writes that the child executes its program. An error ends the child.
    pub(crate) fn report_start(&self, status: StatusFd) -> Result<()> {
        let process = self.proc_number().and_then(Process::numbered);
        let written = process.and_then(|process| status.started(process));
        if written.is_err() {
            self.kill()?;
        }
        written
    }

    /// Only waits until the child has ended, and lets signals have their effect again: for a helper
    /// that is not a payload.
    pub fn reap(&self) -> Result<Exit> {
        SigSet::empty().thread_set_mask().op("sigprocmask")?;
        self.end()
    }

    /// Only waits until the child has ended: for who sees to signals itself.
    pub fn end(&self) -> Result<Exit> {
        let status = waitpid(Some(self.pid), WaitOptions::empty()).op("waitpid")?;
        let exit = status.and_then(|(_, status)| ended(status));
        exit.ok_or_else(|| Error::new("waitpid: the child has not ended"))
    }

    /// What this needs to be kept open as long as the child is to live, and to be ended by
    /// [`kill`](Self::kill). The first can be read when there is a [`signal`](Self::signal), the second
    /// when the child has ended.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.signals.as_fd(), self.pidfd.as_fd(), self.alive.as_fd()]
    }

    /// The process that this child, which has ended, has started as a child of this process (CLONE_PARENT in
    /// clone(2)) to take its place. Error: that is no child of this process.
    pub fn succeeded_by(self, pid: Pid) -> Result<Self> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).op("waitid")?;
        // Nobody else reaps the process, so the number is not reused.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).op("pidfd_open")?;
        Ok(Self { pid, pidfd, ..self })
    }

    /// Ends a helper that would otherwise go on, and waits until it has.
    pub fn kill(&self) -> Result<()> {
        self.send(libc::SIGKILL)?;
        self.end().map(drop)
    }

    /// Takes one of the signals that have come for this process, if there is any.
    pub fn signal(&self) -> Result<Option<siginfo>> {
        self.signals.read_signal().op("read signalfd")
    }

    /// Waits until the child has ended. Until then every signal that reaches this process is handed
    /// on, and a child that the terminal stops stops this process too, so that the shell sees it.
    /// The caller's descriptors stay open.
    pub fn wait(&self) -> Result<Exit> {
        self.attend(&mut Waiter::Link(None), None)
    }

    /// Waits like [`wait`](Self::wait), and lets others see to theirs meanwhile.
    pub fn wait_beside(&self, beside: &mut dyn Beside) -> Result<Exit> {
        self.attend(&mut Waiter::Link(None), Some(beside))
    }

    /// Waits like [`wait`](Self::wait), having closed all descriptors but these and those that are
    /// needed for it: the caller must own no others any more. From then on an error could no longer
    /// be written.
    pub fn wait_holding(&self, held: &[BorrowedFd<'_>]) -> Result<Exit> {
        self.close_all_but(held, None);
        self.attend(&mut Waiter::Link(None), None)
    }

    /// Waits like [`wait_holding`](Self::wait_holding), as one or the other.
    pub(crate) fn wait_as(&self, mut waiter: Waiter, held: &[BorrowedFd<'_>]) -> Result<Exit> {
        let pipe = match &waiter {
            Waiter::Link(told) => told.as_ref(),
            Waiter::Init(tell) => Some(tell),
        };
        self.close_all_but(held, pipe);
        self.attend(&mut waiter, None)
    }

    fn close_all_but(&self, held: &[BorrowedFd<'_>], pipe: Option<&OwnedFd>) {
        let mut keep = self.descriptors().to_vec();
        keep.extend(pipe.map(AsFd::as_fd));
        keep.extend(self.status.as_ref().map(AsFd::as_fd));
        keep.extend(held);
        sys::close_all_but(&keep);
    }

    /// Waits until the child has ended. An error of the wait kills the child, since the caller undoes
    /// what the child uses.
    fn attend(&self, waiter: &mut Waiter, beside: Option<&mut (dyn Beside + '_)>) -> Result<Exit> {
        self.follow(waiter, beside).inspect_err(|_| {
            // The error of the wait is the one to report.
            let _: Result<()> = self.kill();
        })
    }

    fn follow(
        &self,
        waiter: &mut Waiter,
        mut beside: Option<&mut (dyn Beside + '_)>,
    ) -> Result<Exit> {
        deny_tracing()?;
        let mut acted = Acted::default();
        loop {
            // The child first: it may have ended before its SIGCHLD could reach the signalfd.
            if let Some(exit) = self.look(waiter, &mut acted)? {
                if let Some(status) = self.status {
                    status.exited(exit);
                }
                return Ok(exit);
            }
            if let Waiter::Link(told) = waiter
                && let Some(word) =
                    wait_for_word(told, self.signals.as_fd(), beside.as_deref_mut())?
            {
                match word {
                    Word::Stopped(signal) => self.stop(signal, waiter, &mut acted)?,
                    Word::Killed(signal) => acted.killed_inside = Some(signal),
                }
                continue;
            }
            if let Some(info) = self.signal()?
                && info.ssi_signo as i32 != libc::SIGCHLD
            {
                self.forward(&info, waiter, &mut acted)?;
            }
        }
    }

    /// The next change of the child's state, if there is one. A PID 1 reaps orphans meanwhile.
    fn status(&self, waiter: &Waiter) -> Result<Option<WaitStatus>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        // Not waitpid(None), which is about this process's group only.
        let next = || match waiter {
            Waiter::Link(_) => waitpid(Some(self.pid), options).op("waitpid"),
            Waiter::Init(_) => wait(options).op("wait"),
        };
        let mut found = next()?;
        while found.is_some_and(|(pid, _)| pid != self.pid) {
            found = next()?;
        }
        Ok(found.map(|(_, status)| status))
    }

    /// Sees to changes of the child's state, and as PID 1 to the orphans that have ended. The wait is
    /// rustix': to nix, real-time signals are errors.
    fn look(&self, waiter: &Waiter, acted: &mut Acted) -> Result<Option<Exit>> {
        let mut found = self.status(waiter)?;
        if found.is_none() && acted.killed_for.is_some() && ends_within(&self.pidfd, HAND_ON_LIMIT)
        {
            found = self.status(waiter)?;
            if found.is_none() {
                // A process that traces the child reaps it first, when it likes (ptrace(2)).
                let exit = Exit::Signal(libc::SIGKILL);
                return Ok(Some(acted.seen_from_outside(exit, self.is_init)));
            }
        }
        let Some(status) = found else { return Ok(None) };
        if let Some(signal) = status.stopping_signal() {
            // A SIGSTOP from elsewhere is not followed: who sent it will continue only the child.
            let followed = Some(signal).filter(|signal| stops_by_terminal(*signal));
            if let Some(signal) = followed.or(acted.stopped_for.take()) {
                self.stop(signal, waiter, acted)?;
            }
        }
        let Some(exit) = ended(status) else { return Ok(None) };
        if let Waiter::Link(told) = waiter {
            terminal::reclaim();
            let killed = told.as_ref().map(last_words).transpose()?.flatten();
            acted.killed_inside = killed.or(acted.killed_inside);
        }
        let exit = acted.seen_from_outside(exit, self.is_init);
        // No PID 1 can be killed by a signal of its own, to show by which.
        if let (Waiter::Init(tell), Exit::Signal(signal) | Exit::Key(signal)) = (waiter, exit) {
            tell_word(tell, Word::Killed(signal))?;
        }
        Ok(Some(exit))
    }

    /// Stops this process as the child was stopped, so that the shell sees a job stopped by it, and
    /// continues the child afterwards: also when the kernel did not stop us, as in an orphaned
    /// process group, where it would not have stopped a plain program.
    fn stop(&self, signal: i32, waiter: &Waiter, acted: &mut Acted) -> Result<()> {
        if let Waiter::Init(tell) = waiter {
            // It is for the link outside to stop, and to say when that is over.
            acted.told = true;
            return tell_word(tell, Word::Stopped(signal));
        }
        let signal = Signal::try_from(signal).op("raise")?;
        // The SIGCONT that ends the stop has its effect here: it is not to be forwarded besides.
        let both: SigSet = [signal, Signal::SIGCONT].into_iter().collect();
        // Raised while it is blocked, it is one with the terminal's, should that still be pending.
        raise(signal).op("raise")?;
        both.thread_unblock().op("sigprocmask")?;
        both.thread_block().op("sigprocmask")?;
        let Waiter::Link(Some(told)) = waiter else { return self.go_on() };
        // The stops that were told while this process was stopped itself are over.
        acted.killed_inside = last_words(told)?.or(acted.killed_inside);
        // The init may have had one with its group. From this one it can tell that by the code.
        sys::queue_signal(self.pid, libc::SIGCONT).op("sigqueue")
    }

    /// Continues the child after a stop, unless it has had a SIGCONT already, as all of a group
    /// have that a shell continues: an editor draws its screen at each.
    fn go_on(&self) -> Result<()> {
        let options = WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
        match waitid(WaitId::Pid(self.pid), options) {
            // It has ended meanwhile, which only who asks for that is told.
            Err(Errno::CHILD) => Ok(()),
            Ok(None) => self.send(libc::SIGCONT),
            continued => continued.op("waitid").map(drop),
        }
    }

    /// Hands a signal to the child, and where the kernel would drop it there, does what its default
    /// action is.
    fn forward(&self, info: &siginfo, waiter: &Waiter, acted: &mut Acted) -> Result<()> {
        let signal = info.ssi_signo as i32;
        if matches!(waiter, Waiter::Init(_)) {
            if self.is_stop_from_inside(info, acted) {
                return Ok(());
            }
            // The first that comes after a stop that was told, of the group's and the link's.
            if signal == libc::SIGCONT && (acted.told || info.ssi_code == SI_QUEUE) {
                return if mem::take(&mut acted.told) { self.go_on() } else { Ok(()) };
            }
        }
        let itself = self.stops_itself(info, waiter);
        let early = !self.has_begun()?;
        let dropped = itself || (early || self.is_init) && self.would_drop(signal, early);
        if !itself && !self.has_it_already(info) {
            match self.send(signal) {
                // A PID 1 that has the payload's capabilities may lack CAP_KILL over what that has become.
                Err(e) if matches!(waiter, Waiter::Init(_)) && e.errno() == Some(libc::EPERM) => {}
                sent => sent?,
            }
        } else if matches!(signal, libc::SIGINT | libc::SIGQUIT) {
            acted.key = Some(signal);
        }
        match default_action(signal) {
            Action::Terminate if dropped => {
                acted.killed_for.get_or_insert(signal);
                self.send(libc::SIGKILL)
            }
            Action::Stop if dropped => {
                acted.stopped_for = Some(signal);
                self.send(libc::SIGSTOP)
            }
            _ => Ok(()),
        }
    }

    /// Whether a PID 1 stops its own group, as editors do with kill(0, SIGTSTP): the kernel does not
    /// stop it, and leaves the sender's number that of its own namespace. An `--init` never does, so
    /// that is another PID 1, outside.
    fn stops_itself(&self, info: &siginfo, waiter: &Waiter) -> bool {
        self.is_init
            && matches!(waiter, Waiter::Link(None))
            && stops_by_terminal(info.ssi_signo as i32)
            && info.ssi_code == SI_USER
            && info.ssi_pid == 1
    }

    /// As `--init`, whether a program inside stops the group that this process and the child are in,
    /// as editors do: the child has the signal. So it has what the links outside, which are of the
    /// group too, make of theirs: to one that catches the signal a second is a second stop.
    fn is_stop_from_inside(&self, info: &siginfo, acted: &mut Acted) -> bool {
        let signal = info.ssi_signo as i32;
        if signal == libc::SIGCONT {
            acted.stop_from_inside = None;
        }
        if !stops_by_terminal(signal) || info.ssi_code != SI_USER || !self.is_in_own_group() {
            return false;
        }
        // A sender outside has no number here.
        if info.ssi_pid != 0 {
            acted.stop_from_inside = Some((signal, Instant::now()));
        }
        let same = |(from_inside, when): (i32, Instant)| {
            from_inside == signal && when.elapsed() < HAND_ON_LIMIT
        };
        acted.stop_from_inside.is_some_and(same)
    }

    /// The terminal signals the whole foreground process group, the child included.
    fn has_it_already(&self, info: &siginfo) -> bool {
        const SI_KERNEL: i32 = 0x80;
        let leads_session = getsid(None) == Ok(getpid());
        info.ssi_code == SI_KERNEL
            && goes_to_group(info.ssi_signo as i32, leads_session)
            && self.is_in_own_group()
    }

    /// By nix: to rustix no group is 0, as one outside of a PID namespace is.
    fn is_in_own_group(&self) -> bool {
        let child = unistd::Pid::from_raw(self.pid.as_raw_nonzero().get());
        getpgid(Some(child)) == Ok(getpgrp())
    }

    /// Whether the child has come to its exec, or as `--init` to waiting: then it has let go of its
    /// end of the pipe.
    fn has_begun(&self) -> Result<bool> {
        can_be_read(self.alive.as_fd())
    }

    /// Whether the kernel drops this signal, because the child is PID 1 of a namespace and leaves it
    /// at its default (pid_namespaces(7)). A blocked signal is not dropped: it waits to be taken.
    /// But early on, what is blocked is so by this program, and only what is ignored remains so.
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

    /// Sends the child a signal; one that has ended needs none.
    pub fn send(&self, signal: i32) -> Result<()> {
        let sent = match sys::send_signal(self.pidfd.as_fd(), signal) {
            // The pid cannot be reused: nobody has reaped it.
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => sys::kill(self.pid, signal),
            other => other,
        };
        match sent {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.op("pidfd_send_signal"),
        }
    }
}
