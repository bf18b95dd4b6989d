//! Actions on an existing group, by its name.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::descriptor::is_named;
use jc_unshare::{Absent, Context, Error, Result, exists, print};
use rustix::fs::CWD;
use rustix::io::Errno;
use serde_json::{Value, json};

use super::group::{groups_of, sweep_all};
use super::hierarchy::{self, Hierarchy, Version};
use super::limits::Limits;
use super::parent::{absolute, below, enter};
use super::remove::{
    PATIENCE, clear, freeze, is_asked_to_freeze, is_frozen, is_locked, kill_all, members,
};
use super::setting::apply_all;
use super::sweep::sweep_everywhere;
use super::usage::Meter;

/// A group, in all hierarchies that have it.
pub struct ExistingGroup {
    name: String,
    parts: Vec<(Hierarchy, PathBuf)>,
}

/// The groups below `place`, or below the default places.
fn all(hierarchies: Vec<Hierarchy>, place: Option<&Path>) -> Result<Vec<ExistingGroup>> {
    let mut all: Vec<ExistingGroup> = Vec::new();
    for hierarchy in hierarchies {
        for (path, name, _) in groups_of(&hierarchy, place)? {
            let part = (hierarchy.clone(), path);
            match all.iter_mut().find(|group| group.name == name) {
                // A group in another one has a name of its own, or is reached by its path.
                Some(group) if group.parts.iter().any(|(known, _)| *known == hierarchy) => {}
                Some(group) => group.parts.push(part),
                None => all.push(ExistingGroup { name, parts: vec![part] }),
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Finds the group of that name, after a removal of dead groups. A name with a slash in front is a path from the top
/// of the hierarchies.
fn named(name: &str, place: Option<&Path>) -> Result<ExistingGroup> {
    let hierarchies = hierarchy::all(true)?;
    if name.starts_with('/') {
        let path = absolute(name).map_err(Error::usage)?;
        return at(hierarchies, name, &path);
    }
    sweep_all(&hierarchies, place, PATIENCE)?;
    let group = all(hierarchies, place)?.into_iter().find(|group| group.name == name);
    group.ok_or_else(|| absent(name))
}

fn absent(name: &str) -> Error {
    Error::new(format_args!("{name}: no such group"))
}

/// Finds the group of that name as [`named`] does, and acts on it. The files of a group that is removed meanwhile are
/// absent, or give ENODEV after the open.
pub fn on(
    name: &str,
    place: Option<&Path>,
    act: impl FnOnce(&ExistingGroup) -> Result<()>,
) -> Result<()> {
    let group = named(name, place)?;
    let directories = group.inodes();
    act(&group).map_err(|error| match error.errno().map(Errno::from_raw_os_error) {
        // A new group may have the name by now.
        Some(Errno::NOENT | Errno::NODEV)
            if directories.contains(&None) || group.inodes_after_removals() != directories =>
        {
            absent(name)
        }
        _ => error,
    })
}

/// Finds the group of a path, in the hierarchies that have it.
fn at(hierarchies: Vec<Hierarchy>, name: &str, path: &Path) -> Result<ExistingGroup> {
    let mut parts = Vec::new();
    for hierarchy in hierarchies {
        let directory = below(&hierarchy.mount, path);
        if exists(&directory)? {
            parts.push((hierarchy, directory));
        }
    }
    if parts.is_empty() {
        return Err(absent(name));
    }
    Ok(ExistingGroup { name: name.to_owned(), parts })
}

/// Prints one line for each group: name, processes, memory in bytes. Dead groups are removed, in the whole
/// hierarchy if `place` is `None`.
pub fn list(place: Option<&Path>) -> Result<()> {
    let hierarchies = hierarchy::all(true)?;
    let swept = match place {
        None => sweep_everywhere(&hierarchy::listed()?),
        Some(_) => sweep_all(&hierarchies, place, PATIENCE),
    };
    let mut lines = String::new();
    for group in all(hierarchies, place)? {
        let usage = group.meter().read()?;
        let count = group.members()?.len();
        let memory = usage.get("memory_bytes").filter(|memory| !memory.is_null());
        let memory = memory.map_or_else(|| "-".to_owned(), Value::to_string);
        let frozen = if group.is_frozen()? { "\tfrozen" } else { "" };
        lines.push_str(&format!("{}\t{count}\t{memory}{frozen}\n", group.name));
    }
    print(lines)?;
    swept
}

impl ExistingGroup {
    fn meter(&self) -> Meter<'_> {
        Meter(self.parts.iter().map(|(h, path)| (h.version, path.as_path())).collect())
    }

    /// Whether a hierarchy has frozen the group. A hierarchy without a freezer freezes nothing.
    fn is_frozen(&self) -> Result<bool> {
        for (hierarchy, path) in &self.parts {
            if is_frozen(hierarchy.version, path)? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn members(&self) -> Result<Vec<i32>> {
        let mut all = Vec::new();
        for (_, path) in &self.parts {
            all.extend(members(path)?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// The inode number of each directory that is there.
    fn inodes(&self) -> Vec<Option<u64>> {
        let inode = |path: &Path| path.metadata().ok().map(|found| found.ino());
        self.parts.iter().map(|(_, path)| inode(path)).collect()
    }

    /// The inode numbers, when no rmdir(2) of a directory is in progress. rmdir(2) takes the files away first, and locks
    /// the directory until it is gone, so a read of the directory waits for the end.
    fn inodes_after_removals(&self) -> Vec<Option<u64>> {
        for (_, path) in &self.parts {
            // A directory that cannot be read is gone, or another user's, whose files this process cannot write to.
            if let Ok(mut entries) = fs::read_dir(path) {
                entries.next();
            }
        }
        self.inodes()
    }

    fn exists(&self) -> Result<bool> {
        for (_, path) in &self.parts {
            if exists(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Prints the usage of the group, once or at each interval until the group is removed.
    pub fn stat(&self, interval: Option<Duration>) -> Result<()> {
        loop {
            let meter = self.meter();
            let mut usage = meter.read()?;
            usage.insert("memory_limit_bytes".into(), json!(meter.memory_limit()?));
            usage.insert("pids_limit".into(), json!(meter.pids_limit()?));
            usage.insert("name".into(), json!(self.name));
            usage.insert("frozen".into(), json!(self.is_frozen()?));
            print(format!("{}\n", json!(usage)))?;
            let Some(interval) = interval else { return Ok(()) };
            sleep(interval);
            if !self.exists()? {
                return Ok(());
            }
        }
    }

    /// Changes the limits of the group.
    pub fn update(&self, limits: &Limits) -> Result<()> {
        if !limits.any() {
            return Err(Error::usage("--update: no limit given"));
        }
        let hierarchies = hierarchy::all(true)?;
        let settings = limits.settings(&hierarchies)?;
        let mut placed = Vec::new();
        for (hierarchy, setting) in &settings {
            let part = self.parts.iter().find(|(h, _)| h.mount == hierarchy.mount);
            let Some((_, path)) = part else {
                let (name, controller) = (&self.name, &setting.controller);
                return Err(Error::new(format_args!(
                    "{name}: made without the {controller} controller"
                )));
            };
            placed.push((path.as_path(), setting));
        }
        apply_all(placed)
    }

    /// Freezes or thaws the group's processes, and waits until the kernel has done so. Only one hierarchy is asked to, the one
    /// with the v1 freezer if the group has it, since a second hierarchy never reports as frozen what the first has frozen. A
    /// group that does not freeze within [`PATIENCE`] is thawed, and the call fails.
    pub fn freeze(&self, stop: bool) -> Result<()> {
        let mut parts: Vec<_> = self.parts.iter().collect();
        parts.sort_by_key(|(hierarchy, _)| hierarchy.version == Version::V2);
        let mut changed = Vec::new();
        for (hierarchy, path) in parts {
            if freeze(hierarchy.version, path, stop)? {
                changed.push((hierarchy.version, path));
                if stop {
                    break;
                }
            }
        }
        if changed.is_empty() {
            // A group is in the unified hierarchy first, and leaves it first.
            if hierarchy::all(true)?.iter().any(|it| it.version == Version::V2) {
                return Err(absent(&self.name));
            }
            let why = "no hierarchy of this group can freeze";
            return Err(Error::new(format_args!("{}: {why}", self.name)));
        }
        let give_up = Instant::now() + PATIENCE;
        for (version, path) in changed {
            while is_frozen(version, path)?.ok_or(Errno::NOENT).on("read", path)? != stop {
                if is_asked_to_freeze(version, path)? == Some(!stop) {
                    let state = if stop { "thawed" } else { "frozen" };
                    let why = format_args!("{}: another process has {state} it", self.name);
                    return Err(Error::new(why));
                }
                if Instant::now() > give_up {
                    if stop {
                        freeze(version, path, false)?;
                    }
                    let (name, seconds) = (&self.name, PATIENCE.as_secs());
                    let state = if stop { "frozen" } else { "thawed" };
                    return Err(Error::new(format_args!("{name}: not {state} after {seconds} s")));
                }
                sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Moves this process into the group, which is not frozen unless `waits`.
    pub fn join(&self, waits: bool) -> Result<()> {
        if !waits && self.is_frozen()? {
            let name = &self.name;
            return Err(Error::new(format_args!("{name}: frozen, a program would not run"))
                .hint(format_args!("jc-cgroup --thaw {name} continues it")));
        }
        self.parts.iter().try_for_each(|(hierarchy, path)| enter(hierarchy.version, path))
    }

    /// Kills all processes of the group.
    pub fn kill(&self) -> Result<()> {
        // Each hierarchy has all processes of the group, and version 2 kills them at once.
        let best = self.parts.iter().max_by_key(|(h, _)| h.version == Version::V2);
        best.map_or(Ok(()), |(hierarchy, path)| kill_all(hierarchy.version, path))
    }

    /// Removes the group with its processes. A group that a jc-cgroup has locked is an error. This process keeps its own
    /// locks, so that no process makes a new group of the name before the kill.
    pub fn remove(&self) -> Result<()> {
        let mut locked = Vec::new();
        for (hierarchy, path) in &self.parts {
            let Some(directory) = File::open(path).on("open", path).absent()? else { continue };
            if is_locked(&directory, path)? {
                let error = Error::new(format_args!("{}: in use", self.name));
                if !members(path)?.is_empty() {
                    return Err(error.hint("--kill ends its processes, and with them the group"));
                }
                let path = path.display();
                let hint = "nothing runs in it, and a process has locked";
                return Err(error.hint(format_args!("{hint} {path}: see lslocks(8)")));
            }
            // Another process may have removed the group before the lock, and made a new one of the same name.
            if is_named(CWD, path, &directory, path)? {
                locked.push((hierarchy.version, path, directory));
            }
        }
        locked.iter().try_for_each(|(version, path, _)| clear(*version, path, PATIENCE))
    }
}
