//! A cgroup: a directory in every hierarchy that is needed. The process that created the group locks each directory
//! (flock(2)). A group without a lock was left by a SIGKILL, and the next jc-cgroup removes it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::descriptor::is_named;
use jc_unshare::program::Step;
use jc_unshare::{Absent, Context, Error, Kind, Result, id};
use rustix::fs::{CWD, FlockOperation, flock};
use rustix::io::Errno;

use super::hierarchy::{self, Hierarchy, Version};
use super::limits::Limits;
use super::parent::{enable, enter, inherit_cpuset, parent, parents, step_into};
use super::remove::{PATIENCE, children, clear, sweep_one};
use super::setting::{Setting, apply_all};

/// The place and the purpose of a group.
#[derive(Clone, Debug, Default)]
pub struct GroupSpec {
    pub parent: Option<PathBuf>,
    /// The value of `--name`. The default is 12 hexadecimal digits.
    pub name: Option<String>,
    pub evacuate: bool,
    /// The payload outlives this process, so no process locks the group.
    pub unattended: bool,
    /// The usage is measured, so the group has all controllers that count.
    pub measured: bool,
}

/// A cgroup that this process created.
pub struct Group {
    pub(super) parts: Vec<Part>,
}

/// The group's directory in one hierarchy.
pub struct Part {
    /// The version of the hierarchy.
    pub version: Version,
    /// The path of the directory.
    pub path: PathBuf,
    /// The directory, open as long as the group is in use, and locked unless the group has a path.
    pub(super) directory: File,
}

/// The prefixes of directories of groups: of groups that are locked, and of groups without a lock that `--exec`
/// created. A sweep removes only directories with a prefix.
const PREFIXES: [&str; 2] = ["jc+", "jc-exec+"];

/// The mode of a group's directory. Other users can open files in the directory by their names, which a payload
/// without root needs to read its limits. Other users cannot open the directory itself, and so cannot lock it.
const MODE: u32 = 0o711;

/// The controllers of both versions that measure usage.
const METERS: [&str; 6] = ["memory", "cpu", "cpuacct", "pids", "io", "blkio"];

impl Group {
    /// Creates a group with these limits.
    pub fn create(hierarchies: &[Hierarchy], limits: &Limits, spec: &GroupSpec) -> Result<Self> {
        let settings = limits.settings(hierarchies)?;
        let name = spec.name.clone().map_or_else(id::random, Ok)?;
        let mut group = Self { parts: Vec::new() };
        match group.fill(hierarchies, &settings, spec, &name) {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first error is the one to report; a sweep removes the rest later.
                let _: Result<()> = group.remove();
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        hierarchies: &[Hierarchy],
        settings: &[(&Hierarchy, Setting)],
        spec: &GroupSpec,
        name: &str,
    ) -> Result<()> {
        for (hierarchy, controllers) in needed(hierarchies, settings, spec.measured)? {
            self.parts.push(Part::create(hierarchy, &controllers, spec, name)?);
        }
        apply_all(settings.iter().filter_map(|(hierarchy, setting)| {
            let part = self.parts.iter().find(|part| part.path.starts_with(&hierarchy.mount))?;
            Some((part.path.as_path(), setting))
        }))
    }

    /// The directories of the group.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The v2 directory, for clone3(2) to start the payload in.
    pub fn v2(&self) -> Option<BorrowedFd<'_>> {
        let part = self.parts.iter().find(|part| part.version == Version::V2)?;
        Some(part.directory.as_fd())
    }

    /// The descriptors that lock the group.
    pub fn locks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.parts.iter().map(|part| part.directory.as_fd())
    }

    /// Moves the calling process into the group.
    pub fn join(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| enter(part.version, &part.path))
    }

    /// The steps that move a child into the directories of this version.
    pub fn steps(&self, version: Version) -> Result<Vec<Step>> {
        let parts = self.parts.iter().filter(|part| part.version == version);
        parts.map(|part| step_into(version, &part.path)).collect()
    }

    /// Kills the remaining processes of the group and removes it. An error in one hierarchy does not stop the removal in
    /// the others.
    pub fn remove(&self) -> Result<()> {
        let outcomes: Vec<Result<()>> = self.parts.iter().map(Part::remove).collect();
        outcomes.into_iter().collect()
    }
}

/// Removes dead groups in all hierarchies, since a dead group may use hierarchies that this process does not use.
pub fn sweep_all(
    hierarchies: &[Hierarchy],
    place: Option<&Path>,
    patience: Duration,
) -> Result<()> {
    for hierarchy in hierarchies {
        for (path, _, unattended) in groups_of(hierarchy, place)? {
            sweep_one(hierarchy.version, &path, unattended, patience)?;
        }
    }
    Ok(())
}

/// Checks the name of a group: one directory name without a dot, since the kernel's files have a dot in their
/// names.
pub fn name(word: &str) -> std::result::Result<String, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if word.bytes().all(fine) && (1..=64).contains(&word.len()) {
        Ok(word.to_owned())
    } else {
        Err("not a name of up to 64 letters, digits, - and _".to_owned())
    }
}

/// The groups below all [`parents`] of a hierarchy, as [`groups`] returns them: those right below, and without a `place`
/// those that are in such a group, since they do not escape its limit.
pub fn groups_of(
    hierarchy: &Hierarchy,
    place: Option<&Path>,
) -> Result<Vec<(PathBuf, String, bool)>> {
    let depth = if place.is_some() { 1 } else { DEPTH };
    let mut found = Vec::new();
    for top in parents(hierarchy, place)? {
        add_groups(&top, depth, &mut found)?;
    }
    Ok(found)
}

/// The levels of groups in groups that are found by name.
const DEPTH: u32 = 4;

fn add_groups(top: &Path, depth: u32, found: &mut Vec<(PathBuf, String, bool)>) -> Result<()> {
    if depth == 0 {
        return Ok(());
    }
    for group in groups(top)? {
        add_groups(&group.0, depth - 1, found)?;
        found.push(group);
    }
    Ok(())
}

/// The groups directly below a directory: the directory and name of each, and whether the group is unattended.
fn groups(top: &Path) -> Result<Vec<(PathBuf, String, bool)>> {
    let group = |path: PathBuf| {
        let (name, unattended) = parse_path(&path)?;
        Some((path, name, unattended))
    };
    Ok(children(top)?.into_iter().filter_map(group).collect())
}

/// The name of a group, and whether the group is unattended, by its directory. `None`: another program made the
/// directory.
pub fn parse_path(path: &Path) -> Option<(String, bool)> {
    let directory = path.file_name()?.to_str()?;
    let (name, unattended) = PREFIXES
        .into_iter()
        .zip([false, true])
        .find_map(|(prefix, unattended)| Some((directory.strip_prefix(prefix)?, unattended)))?;
    Some((self::name(name).ok()?, unattended))
}

/// The hierarchies of a group, with the controllers that are needed of each: the hierarchies of the settings, and the
/// unified hierarchy, by which the processes are found. Without a unified hierarchy the freezer takes its
/// place, since frozen processes cannot fork before they are killed.
fn needed<'a>(
    all: &'a [Hierarchy],
    settings: &[(&'a Hierarchy, Setting)],
    measured: bool,
) -> Result<Vec<(&'a Hierarchy, Vec<String>)>> {
    let unified = all.iter().find(|hierarchy| hierarchy.version == Version::V2);
    let always = match unified {
        Some(unified) => unified,
        None => match hierarchy::find(all, "freezer")? {
            Some(freezer) => freezer,
            None => hierarchy::with(all, "pids")?,
        },
    };
    let mut needed = vec![(always, Vec::new())];
    let mut need = |hierarchy: &'a Hierarchy, controller: &str| {
        let controller = controller.to_owned();
        match needed.iter_mut().find(|(known, _)| known.mount == hierarchy.mount) {
            Some((_, controllers)) if controllers.contains(&controller) => {}
            Some((_, controllers)) => controllers.push(controller),
            None => needed.push((hierarchy, vec![controller])),
        }
    };
    for (hierarchy, setting) in settings.iter().filter(|(_, one)| !one.controller.is_empty()) {
        need(hierarchy, &setting.controller);
    }
    for meter in METERS.iter().filter(|_| measured) {
        if let Some(hierarchy) = hierarchy::find(all, meter)? {
            need(hierarchy, meter);
        }
    }
    Ok(needed)
}

impl Part {
    fn create(
        hierarchy: &Hierarchy,
        controllers: &[String],
        spec: &GroupSpec,
        name: &str,
    ) -> Result<Self> {
        let controllers: Vec<&str> = controllers.iter().map(String::as_str).collect();
        let top = parent(hierarchy, spec.parent.as_deref(), &controllers, spec.evacuate)?;
        let path = top.join(format!("{}{name}", PREFIXES[usize::from(spec.unattended)]));
        if hierarchy.version == Version::V2 {
            enable(&hierarchy.mount, &top, &controllers, spec.evacuate)?;
        }
        let give_up = Instant::now() + PATIENCE;
        loop {
            match DirBuilder::new().mode(MODE).create(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let is_gone = sweep_one(hierarchy.version, &path, spec.unattended, PATIENCE)?;
                    if is_gone && Instant::now() < give_up {
                        continue;
                    }
                    let name = path.display();
                    return Err(Error::with_kind(Kind::Failed, format_args!("{name}: in use")));
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    let error = Err(e).on("mkdir", &path);
                    let why = if rustix::process::geteuid().is_root() {
                        "the cgroup belongs to the host, and this is root of a user namespace: a run without \
                             limits needs none"
                    } else {
                        "making cgroups here needs root"
                    };
                    return error.map_err(|e| e.hint(why));
                }
                other => other.on("mkdir", &path)?,
            }
            // Another jc-cgroup may have removed the directory before the lock, as that of a dead group.
            if let Some(directory) = lock(&path, give_up)? {
                if hierarchy.version == Version::V1 && hierarchy.has("cpuset")? {
                    inherit_cpuset(&top)?;
                    inherit_cpuset(&path)?;
                }
                return Ok(Self { version: hierarchy.version, path, directory });
            }
        }
    }

    fn remove(&self) -> Result<()> {
        clear(self.version, &self.path, PATIENCE)
    }
}

/// Opens and locks a group's directory. `None`: another jc-cgroup had the lock, and removed the directory.
fn lock(path: &Path, give_up: Instant) -> Result<Option<File>> {
    let Some(directory) = File::open(path).on("open", path).absent()? else { return Ok(None) };
    loop {
        let locked = flock(&directory, FlockOperation::NonBlockingLockExclusive);
        if !is_named(CWD, path, &directory, path)? {
            return Ok(None);
        }
        if locked != Err(Errno::WOULDBLOCK) || Instant::now() >= give_up {
            locked.on("flock", path)?;
            // The umask of the caller clears bits of mkdir(2).
            if directory.metadata().on("stat", path)?.mode() & 0o7777 != MODE {
                let mode = fs::Permissions::from_mode(MODE);
                directory.set_permissions(mode).on("chmod", path)?;
            }
            return Ok(Some(directory));
        }
        sleep(Duration::from_millis(1));
    }
}
