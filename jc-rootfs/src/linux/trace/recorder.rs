//! The thread that answers notifications. Each answer lets the kernel make the call.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, MutexGuard};

use jc_unshare::supervise::{are_ready, at_end};
use jc_unshare::{Context, Error, Result};
use nix::libc;

use super::super::seccomp::Abi;
use super::super::sys::notify::{LastCall, Notification, proceed, receive, wake_here};
use super::calls::{Meaning, Meanings, abi_of};
use super::event::{FLAGS, Program, bit, use_bit};
use super::lookups::{Job, Look};
use super::observe::{Observation, Observer, process_of};
use super::place::{Found, Place, Root, link_of};
use super::shared::{Beginning, Shared, lock};
use super::tables::{CallKey, Gap, Tables, Use};

/// The most processes whose program is known.
const MOST_PROCESSES: usize = 1 << 16;

/// The state of the thread.
pub struct Recorder {
    listener: Arc<OwnedFd>,
    /// The call that the keeper answers if this process is killed.
    last: LastCall,
    shared: Arc<Shared>,
    jobs: SyncSender<Job>,
    meanings: Meanings,
    /// The root of the payload, from its first execve(2) on.
    root: Option<Arc<Root>>,
    /// Processes may have other roots.
    has_moved: bool,
    /// The programs of processes, by their numbers in the tables.
    programs: HashMap<u32, usize>,
    /// The programs whose interpreters are looked up.
    looked_programs: HashSet<usize>,
    /// Every event is a line.
    is_all: bool,
}

impl Recorder {
    /// A recorder that has seen no execution yet.
    pub fn new(
        listener: Arc<OwnedFd>,
        last: LastCall,
        shared: Arc<Shared>,
        jobs: SyncSender<Job>,
        is_all: bool,
    ) -> Self {
        wake_here(listener.as_fd());
        Self {
            listener,
            last,
            shared,
            jobs,
            meanings: Meanings::new(),
            root: None,
            has_moved: false,
            programs: HashMap::new(),
            looked_programs: HashSet::new(),
            is_all,
        }
    }

    /// Answers until no process has the filter.
    pub fn run(mut self) -> Result<()> {
        loop {
            match receive(self.listener.as_fd()) {
                Ok(call) => self.answer(&call)?,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The caller has gone before the receipt, or all callers have.
                    Some(libc::ENOENT) => {
                        if are_ready(vec![at_end(self.listener.as_fd())])?[0] {
                            return Ok(());
                        }
                    }
                    _ => return Err(error).op("SECCOMP_IOCTL_NOTIF_RECV"),
                },
            }
        }
    }

    fn answer(&mut self, call: &Notification) -> Result<()> {
        self.last.set(call.id);
        self.shared.set_answering(true);
        let abi = abi_of(call.arch, call.number);
        let meaning = abi.and_then(|abi| self.meanings.find(abi, call.number)).cloned();
        let is_execution = meaning.as_ref().is_some_and(|meaning| meaning.usage == "execute");
        if self.root.is_none() && is_execution {
            self.root = Some(Arc::new(Root::of(call.thread).ok_or_else(|| {
                Error::new("/proc: the root of the program cannot be opened").hint(
                    "the recorder needs a procfs of its own PID namespace, and the user of the program or CAP_SYS_PTRACE",
                )
            })?));
        }
        let answered = match &self.root {
            Some(root) => {
                let root = Arc::clone(root);
                self.record(call, abi, meaning.as_deref(), root)
            }
            // Steps of the links in front of the program.
            None => ended(proceed(self.listener.as_fd(), call.id)).map(drop),
        };
        if self.shared.set_answering(false) {
            self.tables().miss(Gap::Stalled);
        }
        answered
    }

    fn record(
        &mut self,
        call: &Notification,
        abi: Option<Abi>,
        meaning: Option<&Meaning>,
        root: Arc<Root>,
    ) -> Result<()> {
        let (Some(abi), Some(meaning)) = (abi, meaning) else {
            let key: CallKey = (format!("#{}", call.number).into(), abi, None);
            self.tables().add_call(call.thread, key);
            return ended(proceed(self.listener.as_fd(), call.id)).map(drop);
        };
        let root = match self.has_moved {
            true => Root::of(call.thread).map_or(root, Arc::new),
            false => root,
        };
        let seen = Observer::new(call, abi, meaning, &root).observe();
        self.has_moved |= seen.moves;
        let needs_process = seen.exit.is_some() || seen.program.is_some();
        let process = needs_process.then(|| self.process_of(call.thread)).flatten();
        // The tables are locked until the call has an entry: the call may end the program, and then the report is
        // written.
        let shared = Arc::clone(&self.shared);
        let mut tables = lock(&shared);
        let known = |used: &Use| match tables.has_file(&used.place.path) && !self.is_all {
            true => Looked::Before,
            false => root.look_cached(&used.place).map_or(Looked::Later, Looked::Now),
        };
        let looked: Vec<Looked> = seen.uses.iter().map(known).collect();
        if !ended(proceed(self.listener.as_fd(), call.id))? {
            return Ok(());
        }
        tables.add_call(call.thread, (meaning.name.into(), Some(abi), seen.value));
        let caller = Caller { thread: call.thread, process };
        self.add(&mut tables, caller, Seen { seen, looked, meaning, root: &root });
        Ok(())
    }

    /// Adds what a call has shown to the tables.
    fn add(&mut self, tables: &mut Tables, caller: Caller, call: Seen<'_>) {
        let Seen { seen, looked, meaning, root } = call;
        let Caller { thread, process } = caller;
        for gap in gaps(&seen, meaning) {
            tables.miss(gap);
        }
        if let Some(program) = self.present(&seen, looked.first()) {
            self.begin_program(tables, caller, program, root);
        }
        if let (Some(code), Some(process)) = (seen.exit, process)
            && let Some(number) = self.programs.remove(&process)
        {
            tables.add_exit(thread, number, code);
        }
        if let Some(address) = seen.address {
            tables.add_address(thread, address);
        }
        for (used, looked) in seen.uses.into_iter().zip(looked) {
            self.add_file(tables, thread, used, looked, root);
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.shared)
    }

    /// The process of a thread: the thread itself if it has executed a program.
    fn process_of(&self, thread: u32) -> Option<u32> {
        if self.programs.contains_key(&thread) { Some(thread) } else { process_of(thread) }
    }

    /// The program that is executed, unless its file is known to be absent or not executable.
    fn present(&self, seen: &Observation, looked: Option<&Looked>) -> Option<Program> {
        let is_present = match looked {
            Some(Looked::Now(found)) => found.is_program(),
            Some(Looked::Before | Looked::Later) => true,
            // A descriptor is executed. The first one is jc-rootfs as PID 1.
            None => !self.programs.is_empty(),
        };
        seen.program.clone().filter(|_| is_present)
    }

    fn begin_program(
        &mut self,
        tables: &mut Tables,
        Caller { thread, process }: Caller,
        program: Program,
        root: &Arc<Root>,
    ) {
        self.shared.begin(|| Beginning {
            arguments: program.arguments.clone(),
            directory: link_of(thread, "cwd").unwrap_or_default(),
        });
        let place = Place { path: program.path.clone(), follows: true };
        let Some(number) = tables.add_program(thread, program) else { return };
        if let Some(process) = process {
            if self.programs.len() >= MOST_PROCESSES {
                let has_entry = |process: u32| link_of(process, "exe").is_some();
                self.programs.retain(|process, _| has_entry(*process));
            }
            if self.programs.len() < MOST_PROCESSES {
                self.programs.insert(process, number);
            } else {
                tables.miss(Gap::Full);
            }
        }
        if self.looked_programs.insert(number) {
            self.send(tables, Look { root: Arc::clone(root), place, program: Some(number) });
        }
    }

    fn add_file(
        &self,
        tables: &mut Tables,
        thread: u32,
        used: Use,
        looked: Looked,
        root: &Arc<Root>,
    ) {
        // A later lookup would find what the call has made or removed.
        let changing = ["bind", "create", "remove", "rename"];
        let changes = used.flags & bit(&FLAGS, "create") != 0
            || changing.iter().any(|name| used.usage & use_bit(name) != 0);
        let is_later = matches!(looked, Looked::Later) && !changes;
        let is_new = !tables.has_file(&used.place.path);
        let place = (is_later && is_new).then(|| used.place.clone());
        let found = if let Looked::Now(found) = looked { Some(found) } else { None };
        tables.add_file(Some(thread), used, found);
        if let Some(place) = place {
            self.send(tables, Look { root: Arc::clone(root), place, program: None });
        }
    }

    /// Leaves a lookup to the other thread, unless too many wait.
    fn send(&self, tables: &mut Tables, look: Look) {
        if self.jobs.try_send(Job::Look(look)).is_err() {
            tables.miss(Gap::Unlooked);
        }
    }
}

/// The caller of a system call.
#[derive(Clone, Copy)]
struct Caller {
    thread: u32,
    /// The process of the thread, if the call needs it.
    process: Option<u32>,
}

/// A call that the kernel makes, with the lookups of its paths.
struct Seen<'a> {
    seen: Observation,
    looked: Vec<Looked>,
    meaning: &'a Meaning,
    root: &'a Arc<Root>,
}

/// The lookup of a path.
enum Looked {
    /// The path has an entry.
    Before,
    /// The caches of the kernel have the answer.
    Now(Found),
    /// The lookup may wait for a file system.
    Later,
}

fn gaps(seen: &Observation, meaning: &Meaning) -> impl Iterator<Item = Gap> {
    let gaps = [
        (Gap::Unreadable, seen.is_unreadable),
        (Gap::Listener, seen.wants_listener),
        (Gap::Ring, meaning.name == "io_uring_setup"),
    ];
    gaps.into_iter().filter(|(_, is_seen)| *is_seen).map(|(gap, _)| gap)
}

/// Whether the kernel makes the call. False: the caller has been killed or interrupted, so that its memory may have been
/// that of another thread.
fn ended(answer: std::io::Result<()>) -> Result<bool> {
    match answer {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINPROGRESS)) => {
            Ok(false)
        }
        Err(error) => Err(error).op("SECCOMP_IOCTL_NOTIF_SEND"),
    }
}
