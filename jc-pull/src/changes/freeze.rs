//! A stop of all processes of a container, without a control group. The processes are traced (ptrace(2)), so that
//! neither the payload nor its parent sees a signal. The tracer is a thread of this program: the kernel resumes the
//! processes when that thread ends, and gives each the signal that it was stopped with.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use jc_unshare::{Context, Error, Result};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::in_use::inspected;
use crate::parallel::lock;
use crate::sys::{self, Traced};

/// The longest wait for all threads to stop.
const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(1);

/// The most threads of a container.
const MAX_THREADS: usize = 1 << 18;

/// The descriptor of a [`Frozen`] that a program has from its parent.
const HELD: &str = "JC_CHANGES_FD";

/// A container whose processes are stopped as long as this pipe is open. The tracer reads the other end.
pub struct Frozen(OwnedFd);

impl Frozen {
    /// Stops all processes of the container of a payload. A process that another program traces is an error, and so is
    /// a thread that does not stop.
    pub fn container(payload: u32) -> Result<Self> {
        let (reader, writer): (PipeReader, PipeWriter) = pipe().op("pipe")?;
        let (sender, receiver) = channel();
        let traces = Arc::new(Traces::default());
        let known = Arc::clone(&traces);
        let trace = move || {
            // The receiver waits for the value, so it is there.
            let send = |stopped| drop(sender.send(stopped));
            match stop(payload, &known) {
                Ok(()) => {
                    send(Ok(()));
                    // The read ends with the last writer, since no program writes.
                    let _: std::io::Result<usize> = (&reader).read(&mut [0]);
                }
                Err(error) => send(Err(error)),
            }
        };
        thread::Builder::new().spawn(trace).op("start a thread")?;
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(stopped) => return stopped.map(|()| Self(writer.into())),
                // The tracer may wait in ptrace(2) for an execve(2), which waits until a thread is reaped.
                Err(RecvTimeoutError::Timeout) => drop(traces.update()?),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new("the thread that stops processes has ended"));
                }
            }
        }
    }

    /// Starts a program that gets this value, and finds it by [`Frozen::inherited`].
    pub fn spawn(self, command: &mut Command) -> std::io::Result<Child> {
        fcntl_setfd(&self.0, FdFlags::empty())?;
        command.env(HELD, self.0.as_raw_fd().to_string()).spawn()
    }

    /// The value that this program has from its parent.
    pub fn inherited() -> Result<Option<Self>> {
        let Some(number) = env::var_os(HELD) else { return Ok(None) };
        let number = number.to_str().and_then(|number| number.parse().ok());
        let number = number.ok_or_else(|| Error::usage(format_args!("{HELD}: not a number")))?;
        sys::inherit_fd(number, HELD).map(Self).map(Some)
    }
}

/// The threads that this program traces.
#[derive(Default)]
struct Traces(Mutex<BTreeSet<u32>>);

impl Traces {
    fn has(&self, thread: u32) -> bool {
        lock(&self.0).contains(&thread)
    }

    fn add(&self, thread: u32) -> Result<()> {
        let mut threads = lock(&self.0);
        threads.insert(thread);
        if threads.len() > MAX_THREADS {
            return Err(Error::new(format_args!("more than {MAX_THREADS} threads")));
        }
        Ok(())
    }

    /// Reaps threads that have ended. Returns one that is not stopped.
    fn update(&self) -> Result<Option<u32>> {
        let (mut running, threads) = (None, lock(&self.0).clone());
        for thread in threads {
            match sys::trace_state(thread).op("wait for a thread")? {
                Traced::Runs if waits_for_its_child(thread)? => {}
                Traced::Runs => running = Some(thread),
                Traced::Stopped => {}
                Traced::Ended => drop(lock(&self.0).remove(&thread)),
            }
        }
        Ok(running)
    }
}

/// Stops all processes of the container of a payload, until the calling thread ends.
fn stop(payload: u32, traces: &Traces) -> Result<()> {
    let start = Instant::now();
    // Processes that are not stopped yet make others, until a search finds no new one.
    while seize_others(payload, traces)? {
        wait(traces, start)?;
    }
    Ok(())
}

/// Begins to stop the threads that are not traced yet. Returns whether there may be others.
fn seize_others(payload: u32, traces: &Traces) -> Result<bool> {
    let mut found = false;
    for process in processes(payload)? {
        let path = PathBuf::from(format!("/proc/{process}/task"));
        for thread in numbers(&path)? {
            if traces.has(thread) {
                continue;
            }
            match seize(thread, &path).map_err(|e| e.context(format_args!("process {process}")))? {
                Seized::Yes => traces.add(thread)?,
                Seized::Ended => continue,
                Seized::Gone => {}
            }
            found = true;
        }
    }
    Ok(found)
}

/// The outcome of [`seize`].
enum Seized {
    Yes,
    /// The thread has ended, and is not reaped yet.
    Ended,
    /// The thread has ended, or has the ID of the first thread of its process (execve(2)).
    Gone,
}

/// Begins to stop a thread, in the directory of the threads of its process.
fn seize(thread: u32, threads: &Path) -> Result<Seized> {
    // execve(2) gives the ID of the first thread, which has ended, to another thread, which may be traced already.
    const ATTEMPTS: usize = 5;
    let mut attempt = 0;
    loop {
        attempt += 1;
        match sys::trace_begin(thread) {
            Err(e) if e.raw_os_error() == Some(ESRCH) => return Ok(Seized::Gone),
            Err(e) if e.raw_os_error() == Some(EPERM) => {
                if has_ended(threads, thread)? {
                    return Ok(Seized::Ended);
                }
                let state = sys::trace_state(thread).op("wait for a thread")?;
                if !matches!(state, Traced::Ended) {
                    return Ok(Seized::Yes);
                }
                if attempt == ATTEMPTS {
                    return Err(e).op("stop");
                }
                sleep(TICK);
            }
            begun => return begun.op("stop").map(|()| Seized::Yes),
        }
    }
}

/// Waits until all traced threads have stopped or ended.
fn wait(traces: &Traces, start: Instant) -> Result<()> {
    loop {
        let running = traces.update()?;
        if start.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            return Err(Error::new(match running {
                Some(thread) => format!("thread {thread}: does not stop within {seconds} seconds"),
                None => "processes are started faster than they can be stopped".to_owned(),
            }));
        }
        if running.is_none() {
            return Ok(());
        }
        sleep(TICK);
    }
}

const ESRCH: i32 = rustix::io::Errno::SRCH.raw_os_error();
const EPERM: i32 = rustix::io::Errno::PERM.raw_os_error();

/// Whether a thread, in the directory of the threads of its process, has ended.
fn has_ended(threads: &Path, thread: u32) -> Result<bool> {
    let path = threads.join(thread.to_string()).join("stat");
    let stat = inspected(fs::read(&path), &path)?;
    Ok(stat.is_none_or(|stat| field(&stat, 0).is_none_or(|state| matches!(state, "Z" | "X"))))
}

/// Whether a thread is in vfork(2), which ends with the child, and the child is stopped. Such a thread changes nothing.
fn waits_for_its_child(thread: u32) -> Result<bool> {
    let path = PathBuf::from(format!("/proc/{thread}/wchan"));
    // Kernels without the file have other threads wait, and the wait ends with an error.
    let wchan = inspected(fs::read_to_string(&path), &path)?;
    Ok(wchan.is_some_and(|wchan| {
        wchan.trim_end().ends_with("wait_for_vfork_done") || wchan.starts_with("kernel_clone")
    }))
}

/// The processes in the mount namespace of the payload, and all their descendants.
fn processes(payload: u32) -> Result<BTreeSet<u32>> {
    let namespace = |process: u32| {
        let path = PathBuf::from(format!("/proc/{process}/ns/mnt"));
        inspected(fs::read_link(&path), &path)
    };
    let Some(own) = namespace(payload)? else { return Ok(BTreeSet::new()) };
    let (mut found, mut parents) = (BTreeSet::new(), BTreeMap::new());
    for process in numbers(Path::new("/proc"))? {
        if namespace(process)?.as_ref() == Some(&own) {
            found.insert(process);
        }
        let path = PathBuf::from(format!("/proc/{process}/stat"));
        if let Some(stat) = inspected(fs::read(&path), &path)? {
            parents.extend(parent(&stat).map(|parent| (process, parent)));
        }
    }
    // A child may have a lower number than its parent.
    loop {
        let children = parents.iter().filter(|(_, parent)| found.contains(parent));
        let new: Vec<u32> = children.map(|(child, _)| *child).collect();
        let before = found.len();
        found.extend(new);
        if found.len() == before {
            return Ok(found);
        }
    }
}

/// The parent in proc_pid_stat(5).
fn parent(stat: &[u8]) -> Option<u32> {
    field(stat, 1)?.parse().ok()
}

/// A field of proc_pid_stat(5), the number 0 being the third one. The second one may have any characters.
fn field(stat: &[u8], number: usize) -> Option<&str> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(number)
}

/// The names in a directory of procfs that are numbers. The directory of a process that has ended has none.
fn numbers(path: &Path) -> Result<Vec<u32>> {
    let Some(entries) = inspected(fs::read_dir(path), path)? else { return Ok(Vec::new()) };
    let mut numbers = Vec::new();
    for entry in entries {
        let Some(entry) = inspected(entry, path)? else { break };
        numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent(b"7 (a) b) S 3 7 7 0"), Some(3));
        assert_eq!(parent(b"7 (x"), None);
        assert_eq!(field(b"7 (a) Z b) Z 3 7 7 0", 0), Some("Z"));
    }
}
