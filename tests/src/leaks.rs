//! The objects that a test must not leave behind: processes, mounts, network links, cgroups, files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use crate::inside::{WATCHED, store_tmp, store_volumes};
use crate::processes::{running, signal_pid};
use crate::wait::give_pauses;

/// The time that the kernel needs to clean up after a kill, as a number of pauses.
const GRACE: (u32, Duration) = (400, Duration::from_millis(5));

/// The time that another test needs to clean up after a kill.
const CGROUP_GRACE: (u32, Duration) = (100, Duration::from_millis(50));

/// The objects at the start of a test.
pub struct Snapshot {
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    hostname: String,
}

impl Snapshot {
    /// Records the present objects.
    pub fn take() -> Self {
        Self {
            mounts: mounts(),
            links: links(),
            cgroups: cgroups(),
            files: files(),
            hostname: hostname(),
        }
    }

    /// The new objects, one on a line. Remaining processes are killed.
    pub fn leaks(&self) -> Vec<String> {
        let mut leaks = processes();
        leaks.extend(mounts().difference(&self.mounts).map(|m| format!("mount {m}")));
        leaks.extend(links().difference(&self.links).map(|l| format!("network link {l}")));
        leaks.extend(files().difference(&self.files).map(|f| format!("file {}", f.display())));
        leaks.extend(self.new_cgroups().iter().map(|c| format!("cgroup {}", c.display())));
        if hostname() != self.hostname {
            leaks.push(format!("the hostname {}", hostname()));
        }
        leaks
    }

    /// The new groups that stay. Concurrent tests and other users of the host have groups in the same hierarchies:
    /// those groups have processes, or a process with a lock, or end soon.
    fn new_cgroups(&self) -> BTreeSet<PathBuf> {
        let mut suspects: BTreeSet<PathBuf> =
            cgroups().difference(&self.cgroups).cloned().collect();
        give_pauses(CGROUP_GRACE, || {
            suspects.retain(is_dead);
            suspects.is_empty()
        });
        suspects
    }
}

/// Whether a group is empty and unlocked. The process that made the group locks it.
fn is_dead(group: &PathBuf) -> bool {
    let procs = fs::read_to_string(group.join("cgroup.procs"));
    procs.is_ok_and(|procs| procs.is_empty())
        && File::open(group)
            .is_ok_and(|dir| flock(dir, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// The processes besides this one, which is PID 1 of its namespace. The processes are killed.
fn processes() -> Vec<String> {
    let mut left = Vec::new();
    give_pauses(GRACE, || {
        left = running();
        left.is_empty()
    });
    for (pid, _) in &left {
        signal_pid(*pid, Signal::KILL);
    }
    left.into_iter().map(|(pid, command)| format!("process {pid} {command}")).collect()
}

/// The mounts, each as its fields from the root on (`proc(5)`). The earlier fields are numbers.
fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect()
}

/// Whether the network namespace has a link with this name.
pub fn has_link(name: &str) -> bool {
    links().contains(name)
}

fn links() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/net/dev").unwrap();
    // The first two lines are headings.
    let names = table.lines().skip(2).filter_map(|l| l.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn files() -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for dir in WATCHED {
        walk(Path::new(dir), &mut |path| files.insert(path.to_owned()));
    }
    files.extend(entries(&store_tmp()));
    files.extend(entries(&store_volumes()));
    files
}

/// The cgroups of jc in every hierarchy, by their names.
fn cgroups() -> BTreeSet<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut groups = BTreeSet::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if matches!(fields[2], "cgroup" | "cgroup2") {
            walk(Path::new(fields[1]), &mut |path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let is_ours = ["jc+", "jc-exec+"].iter().any(|prefix| name.starts_with(prefix));
                is_ours && path.is_dir() && groups.insert(path.to_owned())
            });
        }
    }
    groups
}

/// Visits all files below a directory, in this file system only. Files that are removed meanwhile are passed over.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path) -> bool) {
    for path in entries(dir) {
        visit(&path);
        let below = path.symlink_metadata().is_ok_and(|m| m.is_dir());
        if below && same_device(dir, &path) {
            walk(&path, visit);
        }
    }
}

fn same_device(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.symlink_metadata().map(|m| m.dev()).ok();
    device(one) == device(other)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sandbox;

    /// The test uses a hierarchy of its own, since a group in a hierarchy of the host would fail concurrent tests.
    #[test]
    fn a_cgroup_that_stays_is_found() {
        sandbox(|s| {
            let hierarchy = s.path("hierarchy");
            fs::create_dir(&hierarchy).unwrap();
            let mount = "mount -t cgroup -o none,name=jc-tests jc-tests hierarchy";
            if !s.sh(mount).run().status().success() {
                crate::skip!("this kernel has no cgroup v1");
            }
            // A hierarchy survives a failed test, and its groups must not.
            let remove = || {
                ["jc+left", "other"]
                    .iter()
                    .filter(|group| fs::remove_dir(hierarchy.join(group)).is_ok())
                    .count()
            };
            remove();
            let before = Snapshot::take();
            let group = hierarchy.join("jc+left");
            fs::create_dir_all(&group).unwrap();
            fs::create_dir(hierarchy.join("other")).unwrap();
            assert_eq!(before.leaks(), [format!("cgroup {}", group.display())]);

            let mut member = Command::new("sleep").arg("1000").spawn().unwrap();
            fs::write(group.join("cgroup.procs"), member.id().to_string()).unwrap();
            assert_eq!(before.new_cgroups(), BTreeSet::new());
            member.kill().unwrap();
            member.wait().unwrap();
            let held = File::open(&group).unwrap();
            flock(&held, FlockOperation::LockExclusive).unwrap();
            assert_eq!(before.new_cgroups(), BTreeSet::new());
            drop(held);
            assert_eq!(remove(), 2);
            assert_eq!(before.leaks(), Vec::<String>::new());
            // The kernel ends an unmounted hierarchy asynchronously, after the removal of its groups.
            let end = "umount hierarchy
                while sleep 0.2; grep -q name=jc-tests: /proc/self/cgroup; do
                    mount -t cgroup -o none,name=jc-tests jc-tests hierarchy && umount hierarchy
                done";
            s.sh(end).run().code(0);
        });
    }
}
