//! One cgroup: a directory `jc/NAME` in every hierarchy that is needed. Its maker holds a lock on
//! each (flock(2)); a group that nobody holds is what a SIGKILL left, and the next jc-cgroup removes
//! it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::{Context, Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::hierarchy::{self, Hierarchy, Version};
use crate::limits::Limit;

/// A cgroup that this process has made.
pub struct Group {
    parts: Vec<Part>,
}

/// The group's directory in one hierarchy.
struct Part {
    version: Version,
    path: PathBuf,
    /// Open and locked for as long as the group is in use.
    directory: File,
}

/// How long removing a group may take; killed processes need a moment to go.
const PATIENCE: Duration = Duration::from_secs(10);

impl Group {
    /// Makes a group with these limits, after sweeping what dead ones have left.
    pub fn make(limits: &[Limit]) -> Result<Self> {
        let hierarchies = hierarchy::all()?;
        let name = random_name()?;
        let mut group = Self { parts: Vec::new() };
        let made = group.fill(&hierarchies, limits, &name);
        match made {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first error is the one to tell; what cannot be removed is swept later.
                let _: Result<()> = group.remove();
                Err(error)
            }
        }
    }

    fn fill(&mut self, hierarchies: &[Hierarchy], limits: &[Limit], name: &str) -> Result<()> {
        for hierarchy in needed(hierarchies, limits)? {
            let controllers: Vec<&str> = limits
                .iter()
                .map(|limit| limit.controller())
                .filter(|name| hierarchy.controllers.iter().any(|has| has == name))
                .collect();
            self.parts.push(Part::make(hierarchy, &controllers, name)?);
        }
        for limit in limits {
            let hierarchy = hierarchy::with(hierarchies, limit.controller())?;
            let part = self.parts.iter().find(|part| part.path.starts_with(&hierarchy.mount));
            if let Some(part) = part {
                limit.apply(part.version, &part.path)?;
            }
        }
        Ok(())
    }

    /// The v2 directory, for clone3(2) to start the payload in.
    pub fn v2(&self) -> Option<BorrowedFd<'_>> {
        let part = self.parts.iter().find(|part| part.version == Version::V2)?;
        Some(part.directory.as_fd())
    }

    /// Moves the calling process into the v1 directories, which have no other way in.
    pub fn join_v1(&self) -> Result<()> {
        for part in self.parts.iter().filter(|part| part.version == Version::V1) {
            let procs = part.path.join("cgroup.procs");
            fs::write(&procs, "0").on("write", &procs)?;
        }
        Ok(())
    }

    /// Kills what is left in the group and removes it, in all hierarchies even if one fails.
    pub fn remove(&self) -> Result<()> {
        let outcomes: Vec<Result<()>> = self.parts.iter().map(Part::remove).collect();
        outcomes.into_iter().collect()
    }
}

/// 12 hexadecimal digits. Not a pid: other PID namespaces may see the same hierarchy.
fn random_name() -> Result<String> {
    let mut bytes = [0; 6];
    getrandom(&mut bytes, GetRandomFlags::empty()).op("getrandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The hierarchies that hold the limits, and the unified one anyway: it keeps the processes together.
fn needed<'a>(hierarchies: &'a [Hierarchy], limits: &[Limit]) -> Result<Vec<&'a Hierarchy>> {
    let mut needed: Vec<&Hierarchy> =
        hierarchies.iter().find(|h| h.version == Version::V2).into_iter().collect();
    for limit in limits {
        let hierarchy = hierarchy::with(hierarchies, limit.controller())?;
        if !needed.contains(&hierarchy) {
            needed.push(hierarchy);
        }
    }
    if needed.is_empty() {
        // Without the unified hierarchy, one whose controller limits nothing by itself.
        needed.push(hierarchy::with(hierarchies, "pids")?);
    }
    Ok(needed)
}

impl Part {
    fn make(hierarchy: &Hierarchy, controllers: &[&str], name: &str) -> Result<Self> {
        let parent = hierarchy.mount.join("jc");
        let path = parent.join(name);
        let give_up = Instant::now() + PATIENCE;
        loop {
            make_dir(&parent)?;
            sweep(hierarchy.version, &parent)?;
            if hierarchy.version == Version::V2 && !controllers.is_empty() {
                delegate(&hierarchy.mount, controllers)?;
                delegate(&parent, controllers)?;
            }
            // Another jc-cgroup may at any moment take the directories for left over.
            match fs::create_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && Instant::now() < give_up => {
                    continue;
                }
                other => other.on("mkdir", &path)?,
            }
            if let Some(directory) = lock(&path)? {
                return Ok(Self { version: hierarchy.version, path, directory });
            }
        }
    }

    fn remove(&self) -> Result<()> {
        clear(self.version, &self.path)?;
        if let Some(parent) = self.path.parent() {
            // Goes with the last group; until then it is busy, and so it should be.
            let _: io::Result<()> = fs::remove_dir(parent);
        }
        Ok(())
    }
}

fn make_dir(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.on("mkdir", path).map_err(|e| e.hint("making cgroups needs root")),
    }
}

/// Lets the children of a v2 group be limited by these controllers.
fn delegate(group: &Path, controllers: &[&str]) -> Result<()> {
    let path = group.join("cgroup.subtree_control");
    let words: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    match fs::write(&path, words.join(" ")) {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
            Err(e).on("write", &path).map_err(|e: Error| {
                e.hint("this cgroup holds processes itself, so it cannot limit groups below it")
            })
        }
        other => other.on("write", &path),
    }
}

/// Opens and locks a group's directory; none when it was removed before the lock was had.
fn lock(path: &Path) -> Result<Option<File>> {
    let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let directory = match File::open(path) {
        Err(e) if gone(&e) => return Ok(None),
        other => other.on("open", path)?,
    };
    flock(&directory, FlockOperation::LockExclusive).on("flock", path)?;
    let held = directory.metadata().on("stat", path)?.ino();
    match fs::metadata(path) {
        Err(e) if gone(&e) => Ok(None),
        found => Ok((found.on("stat", path)?.ino() == held).then_some(directory)),
    }
}

/// Removes the groups below `parent` that nobody holds, with what runs in them.
fn sweep(version: Version, parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).on("read", parent)? {
        let path = entry.on("read", parent)?.path();
        let Ok(directory) = File::open(&path) else { continue };
        let is_dir = directory.metadata().is_ok_and(|meta| meta.is_dir());
        if is_dir && flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            clear(version, &path)?;
        }
    }
    Ok(())
}

/// Kills what is in a group and removes its directory.
fn clear(version: Version, path: &Path) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        kill_members(version, path)?;
        match fs::remove_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && Instant::now() < give_up => {
                sleep(Duration::from_millis(1));
            }
            other => return other.on("rmdir", path),
        }
    }
}

fn kill_members(version: Version, path: &Path) -> Result<()> {
    let procs = path.join("cgroup.procs");
    let members = match fs::read_to_string(&procs) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.on("read", &procs)?,
    };
    if members.is_empty() {
        return Ok(());
    }
    let all_at_once = path.join("cgroup.kill"); // Linux 5.14, v2 only
    if version == Version::V2 && all_at_once.exists() {
        return fs::write(&all_at_once, "1").on("write", &all_at_once);
    }
    let pids = members.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    for pid in pids {
        // It may be gone by now; the caller comes back as long as there is one.
        let _: rustix::io::Result<()> = kill_process(pid, Signal::KILL);
    }
    Ok(())
}
