//! A stop of all processes of a container, without a control group. The processes are traced (ptrace(2)), so that
//! neither the payload nor its parent sees a signal, and the kernel resumes them if this process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::{Context, Error, Result};

use crate::in_use::inspected;
use crate::sys::{self, Traced};

/// The longest wait for all threads to stop.
const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(1);

/// The most threads of a container.
const MAX_THREADS: usize = 1 << 18;

/// Threads that stay stopped as long as this value lives, and the signal that each gets then.
pub struct Frozen(BTreeMap<u32, Option<i32>>);

impl Frozen {
    /// Stops all processes of the container of a payload. A process that another program traces is an error, and so is
    /// a thread that does not stop.
    pub fn container(payload: u32) -> Result<Self> {
        let start = Instant::now();
        let mut frozen = Self(BTreeMap::new());
        // Processes that are not stopped yet make others, until a search finds no new one.
        while frozen.seize_others(payload)? {
            frozen.wait(start)?;
        }
        Ok(frozen)
    }

    /// Begins to stop the threads that are not known yet. Returns whether there are any.
    fn seize_others(&mut self, payload: u32) -> Result<bool> {
        let before = self.0.len();
        for process in processes(payload)? {
            let path = PathBuf::from(format!("/proc/{process}/task"));
            for thread in numbers(&path)? {
                if self.0.contains_key(&thread) {
                    continue;
                }
                match sys::trace_begin(thread) {
                    Err(e) if e.raw_os_error() == Some(ESRCH) => continue,
                    begun => begun.op(&format!("stop process {process}"))?,
                }
                self.0.insert(thread, None);
                if self.0.len() > MAX_THREADS {
                    return Err(Error::new(format_args!("more than {MAX_THREADS} threads")));
                }
            }
        }
        Ok(self.0.len() > before)
    }

    /// Waits until all threads have stopped or ended.
    fn wait(&mut self, start: Instant) -> Result<()> {
        let mut waiting: BTreeSet<u32> = self.0.keys().copied().collect();
        loop {
            for thread in waiting.clone() {
                match sys::trace_state(thread).op("wait for a thread")? {
                    Traced::Runs if waits_for_its_child(thread)? => {}
                    Traced::Runs => continue,
                    Traced::Stopped(signal) => {
                        self.0.insert(thread, signal);
                    }
                    Traced::Ended => {
                        self.0.remove(&thread);
                    }
                }
                waiting.remove(&thread);
            }
            let Some(first) = waiting.first() else { return Ok(()) };
            if start.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(Error::new(format_args!(
                    "thread {first}: does not stop within {seconds} seconds"
                )));
            }
            sleep(TICK);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for (thread, signal) in &self.0 {
            // The thread may have been killed.
            let _: std::io::Result<()> = sys::trace_end(*thread, *signal);
        }
    }
}

const ESRCH: i32 = rustix::io::Errno::SRCH.raw_os_error();

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

/// The fourth field of proc_pid_stat(5). The second one may have any characters.
fn parent(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
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
    }
}
