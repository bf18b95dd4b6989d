//! The threads that answer notifications. Each answer lets the kernel make the call.
//!
//! With one thread, all processes of a parallel build wait for it, and end up on its CPU or wake an idle CPU twice a call.
//! With two threads, each on its own half of the CPUs, the thread of the caller's CPU answers when the caller sleeps
//! (1.22 in place of 1.87 or 1.35 times the time of the build alone, for a recorder that only answers).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use jc_unshare::{Context, Error, Result};
use nix::libc;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::json;

use super::super::sys::notify::{LastCalls, MOST_THREADS, Notification, proceed, receive, waits};
use super::calls::{abi_of, find_meaning};
use super::event::{FLAGS, Program, USES, bit, put, put_arguments};
use super::lookups::{Job, Look};
use super::memory::{Memory, PAGE};
use super::observe::{Observation, Observer, process_of};
use super::place::{Found, Place, Root, link_of};
use super::shared::{Shared, lock};
use super::tables::{Gap, Tables, Use};

/// The state of a thread.
#[derive(Clone)]
pub struct Recorder {
    pub listener: Arc<OwnedFd>,
    /// The calls that the keeper answers if this process is killed.
    pub last: LastCalls,
    pub shared: Arc<Shared>,
    pub jobs: SyncSender<Job>,
}

/// The shares of the CPUs of this process, one for each thread of the recorder.
pub fn shares() -> Vec<CpuSet> {
    // A set that has no place for all CPUs is an error, and costs only speed.
    let all = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect();
    let threads = cpus.len().clamp(1, MOST_THREADS);
    let share = |thread| {
        let mut set = CpuSet::new();
        let its = cpus.chunks(cpus.len().div_ceil(threads).max(1)).nth(thread);
        its.into_iter().flatten().for_each(|cpu| set.set(*cpu));
        set
    };
    (0..threads).map(share).collect()
}

impl Recorder {
    /// Answers as the thread with an index until no process has the filter.
    pub fn run(&self, index: usize, share: &CpuSet) -> Result<()> {
        // A share without a CPU that is there costs only speed.
        let _: rustix::io::Result<()> = sched_setaffinity(None, share);
        let mut page = [0; PAGE];
        while let Some(call) = receive(self.listener.as_fd())? {
            self.last.set(index, call.id);
            self.shared.set_reading(index, true);
            let program = self.record(&call, &mut page)?;
            if self.shared.set_reading(index, false) {
                lock(&self.shared).miss(Gap::Stalled);
            }
            match proceed(self.listener.as_fd(), call.id) {
                // The caller has been killed, or a signal has interrupted the call, which is notified again.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINPROGRESS)) =>
                {
                    let tables = &mut lock(&self.shared);
                    program.into_iter().for_each(|number| tables.remove_program(number));
                }
                answered => answered.op("SECCOMP_IOCTL_NOTIF_SEND")?,
            }
        }
        Ok(())
    }

    /// Records a call. The kernel makes the call afterwards: the call may end the program, and then the report is
    /// written. Returns the number of the program that is executed.
    fn record(&self, call: &Notification, page: &mut [u8; PAGE]) -> Result<Option<usize>> {
        let abi = abi_of(call.arch, call.number);
        let meaning = abi.and_then(|abi| find_meaning(abi, call.number));
        let is_execution = meaning.is_some_and(|meaning| meaning.usage == "execute");
        let root = match self.shared.root.get() {
            Some(root) => root,
            None if is_execution => {
                let root = Root::of(call.thread).ok_or_else(|| {
                    Error::new("/proc: the root of the program cannot be opened").hint(
                        "the recorder needs a procfs of its own PID namespace, and the user of the program or CAP_SYS_PTRACE",
                    )
                })?;
                self.shared.root.get_or_init(|| Arc::new(root))
            }
            // Steps of the links in front of the program.
            None => return Ok(None),
        };
        let (Some(abi), Some(meaning)) = (abi, meaning) else {
            if waits(self.listener.as_fd(), call.id) {
                lock(&self.shared).add_call(call.thread, (abi, call.number, None));
            }
            return Ok(None);
        };
        let has_moved = self.shared.has_moved.load(Ordering::Relaxed);
        let own = if has_moved { Root::of(call.thread).map(Arc::new) } else { None };
        let root = own.as_ref().unwrap_or(root);
        let memory = Memory::new(call.thread, page);
        let mut seen = Observer { call, abi, meaning, root, memory }.observe();
        if seen.moves {
            self.shared.has_moved.store(true, Ordering::Relaxed);
        }
        seen.process = self.process(call.thread, &seen);
        self.look(&mut seen, root);
        // A caller that waits no more has been killed or interrupted, and the memory may have been that of another thread.
        if !waits(self.listener.as_fd(), call.id) {
            return Ok(None);
        }
        let tables = &mut lock(&self.shared);
        tables.add_call(call.thread, (Some(abi), call.number, seen.value));
        Ok(self.add(tables, call.thread, seen, root))
    }

    /// The process of a thread, if the call needs it: the thread itself if it has executed a program.
    fn process(&self, thread: u32, seen: &Observation) -> Option<u32> {
        let is_needed = seen.exit.is_some() || seen.program.is_some();
        let is_known = || lock(&self.shared).processes.contains_key(&thread);
        if is_needed && !is_known() { process_of(thread) } else { is_needed.then_some(thread) }
    }

    /// Looks up the paths of a call that have no entry.
    fn look(&self, seen: &mut Observation, root: &Root) {
        for used in &mut seen.uses {
            let is_known = seen.program.is_none() && lock(&self.shared).knows(&used.place.path);
            if !is_known {
                used.found = root.look_cached(&used.place);
            }
        }
    }

    /// Adds what a call has shown. Returns the number of the program that is executed.
    fn add(
        &self,
        tables: &mut Tables,
        thread: u32,
        mut seen: Observation,
        root: &Arc<Root>,
    ) -> Option<usize> {
        seen.gaps.iter().for_each(|gap| tables.miss(*gap));
        let program = present(tables, &mut seen).and_then(|program| {
            let is_found = seen.uses.first().is_none_or(|used| used.found.is_some());
            let (number, is_first) = begin_program(tables, thread, &program)?;
            if let Some(process) = seen.process {
                tables.add_process(process, number);
            }
            if is_first || !is_found {
                let place = Place { path: program.path, follows: true };
                let (root, program) = (Arc::clone(root), (!is_found).then_some(number));
                self.send(tables, Look { root, place, program, is_interpreted: is_first });
            }
            Some(number)
        });
        if let Some(code) = seen.exit
            && let Some(number) = seen.process.and_then(|process| tables.processes.remove(&process))
        {
            tables.add_exit(thread, number, code);
        }
        if let Some(address) = seen.address {
            tables.add_address(thread, address);
        }
        for used in seen.uses {
            self.add_file(tables, thread, used, root);
        }
        program
    }

    fn add_file(&self, tables: &mut Tables, thread: u32, used: Use, root: &Arc<Root>) {
        // A later lookup would find what the call has made or removed.
        let changing = ["bind", "create", "remove", "rename"];
        let changes = used.flags & bit(&FLAGS, "create") != 0
            || changing.iter().any(|name| used.usage & bit(&USES, name) != 0);
        if tables.add_file(Some(thread), &used) && used.found.is_none() && !changes {
            let (root, place) = (Arc::clone(root), used.place);
            self.send(tables, Look { root, place, program: None, is_interpreted: false });
        }
    }

    /// Leaves a lookup to the other thread, unless too many wait.
    fn send(&self, tables: &mut Tables, look: Look) {
        if self.jobs.try_send(Job::Look(look)).is_err() {
            tables.miss(Gap::LookupsLeftOut);
        }
    }
}

/// Adds an execution, whose first one begins the report.
fn begin_program(tables: &mut Tables, thread: u32, program: &Program) -> Option<(usize, bool)> {
    tables.first.get_or_insert_with(|| {
        let mut event = json!({ "event": "trace" });
        put_arguments(&mut event, &program.arguments);
        put(&mut event, "cwd", &link_of(thread, "cwd").unwrap_or_default());
        event
    });
    tables.add_program(thread, program)
}

/// The program that is executed, unless its file is known to be absent or not executable.
fn present(tables: &Tables, seen: &mut Observation) -> Option<Program> {
    let is_present = match seen.uses.first() {
        Some(used) => used.found.as_ref().is_none_or(Found::is_program),
        // A descriptor is executed. The first one is jc-rootfs as PID 1.
        None => !tables.processes.is_empty(),
    };
    seen.program.take().filter(|_| is_present)
}
