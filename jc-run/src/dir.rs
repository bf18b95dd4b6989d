//! State dirs: one for each container, named by its ID, held by a lock (flock(2)) as long as its
//! supervisor lives. A link beside it is the container's name.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ArgMatches;
use jc_unshare::exec::tool;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, unlinkat};
use rustix::process::{geteuid, getuid};

use crate::state::{State, Status, now};

/// The directory that the state dirs are in.
pub fn base(matches: &ArgMatches) -> Result<PathBuf> {
    let given = matches.get_one::<PathBuf>("state-dir").cloned();
    let path = given.or_else(|| set("JC_STATE_DIR")).unwrap_or_else(default_base);
    std::path::absolute(&path).on("find", &path)
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn default_base() -> PathBuf {
    match (geteuid().is_root(), set("XDG_RUNTIME_DIR")) {
        (true, _) => "/run/jc".into(),
        (false, Some(dir)) => dir.join("jc"),
        // Nobody has logged in, as in a CI job.
        (false, None) => format!("/tmp/jc-{}", getuid().as_raw()).into(),
    }
}

/// A state dir that this process holds.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    _lock: File,
}

impl Held {
    /// Makes a state dir, and with `name` a link to it of that name.
    pub fn make(path: &Path, name: Option<&str>) -> Result<Self> {
        let base = path.parent().unwrap_or(Path::new("/"));
        let held = loop {
            make_private(base)?;
            match fs::DirBuilder::new().mode(0o700).create(path) {
                // The last of the others has just gone, and taken it along.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                made => made.on("mkdir", path)?,
            }
            // Somebody who sweeps may take it for left over at any moment.
            if let Some(held) = Self::take(path)? {
                break held;
            }
        };
        if let Some(name) = name
            && let Err(error) = claim(base, name, path)
        {
            held.remove_called(None)?;
            return Err(error);
        }
        Ok(held)
    }

    /// Takes hold of a state dir that nobody holds, if it is there.
    pub fn take(path: &Path) -> Result<Option<Self>> {
        let lock = match File::open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.on("open", path)?,
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let inode = |meta: io::Result<fs::Metadata>| meta.map(|meta| meta.ino()).ok();
        let same = inode(lock.metadata()) == inode(fs::metadata(path));
        Ok(same.then(|| Self { path: path.to_owned(), _lock: lock }))
    }

    /// Removes it with all that is in it, and the name that its state has.
    pub fn remove(self) -> Result<()> {
        let state = State::read(&self.path);
        self.remove_called(state.as_ref().and_then(|state| state.get("name")))
    }

    /// Removes it with all that is in it, and its name.
    pub fn remove_called(self, name: Option<&str>) -> Result<()> {
        if let Some(name) = name {
            let link = self.path.with_file_name(name);
            if fs::read_link(&link).is_ok_and(|to| Some(to.as_os_str()) == self.path.file_name()) {
                fs::remove_file(&link).on("remove", &link)?;
            }
        }
        match remove_files(&self.path).or_else(|_| fs::remove_dir_all(&self.path)) {
            // Files of a user namespace, which only its root may remove.
            Err(e) if e.kind() == ErrorKind::PermissionDenied && !geteuid().is_root() => {
                remove_as_mapped(&self.path)
            }
            removed => removed.on("remove", &self.path),
        }?;
        if let Some(base) = self.path.parent().filter(|base| *base == default_base()) {
            // Goes with the last container; until then it is not empty.
            let _: io::Result<()> = fs::remove_dir(base);
        }
        Ok(())
    }
}

/// A directory for this user alone; one that is another's is an error.
fn make_private(path: &Path) -> Result<()> {
    let meta = loop {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::DirBuilder::new().mode(0o700).recursive(true).create(path).on("mkdir", path)?;
            }
            made => made.on("mkdir", path)?,
        }
        match fs::symlink_metadata(path) {
            // The last of the others has just gone, and taken it along.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            meta => break meta.on("stat", path)?,
        }
    };
    if !meta.is_dir() || meta.uid() != geteuid().as_raw() {
        let path = path.display();
        return Err(Error::new(format_args!(
            "state dir {path}: is not a directory of this user's"
        ))
        .hint("--state-dir DIR, or JC_STATE_DIR, names another"));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).on("chmod", path)?;
    }
    Ok(())
}

/// Makes the name lead to the state dir; a name is one container's.
fn claim(base: &Path, name: &str, path: &Path) -> Result<()> {
    let (link, id) = (base.join(name), path.file_name().unwrap_or_default());
    let _lock = lock_names(base)?;
    sweep_name(&link);
    match symlink(id, &link) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            Err(Error::usage(format_args!("--name {name}: another container has it"))
                .hint("jc-list -a shows which, jc-rm removes it"))
        }
        made => made.on("link", &link),
    }
}

/// Whoever makes or sweeps a name holds this, so that none sweeps what another has just made.
fn lock_names(base: &Path) -> Result<File> {
    let lock = File::open(base).on("open", base)?;
    flock(&lock, FlockOperation::LockExclusive).on("flock", base)?;
    Ok(lock)
}

/// Removes a name that leads to no container any more.
fn sweep_name(link: &Path) {
    let is_link = fs::symlink_metadata(link).is_ok_and(|meta| meta.is_symlink());
    if is_link && sweep_one(link) {
        // Gone with the container, or has led nowhere.
        let _: io::Result<()> = fs::remove_file(link);
    }
}

/// What a dead supervisor has left is removed, or if it is kept, noted to have ended. Says whether
/// it is gone.
fn sweep_one(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return true };
    let state = State::read(&path);
    if state.as_ref().is_some_and(|state| state.status == Status::Stopped) {
        return false;
    }
    let Ok(Some(held)) = Held::take(&path) else { return false };
    // Not what was read before the lock was ours.
    match State::read(&path) {
        Some(mut state) if state.is_kept() && state.get("started").is_some() => {
            if state.status != Status::Stopped {
                state.status = Status::Stopped;
                state.pid = None;
                state.set("finished", now());
            }
            // Who cannot write there is not whose it is.
            let _: Result<()> = state.write();
            false
        }
        _ => held.remove().is_ok(),
    }
}

/// Removes a directory that holds files only, which a state dir mostly does: the general way to remove
/// one is a hundredth of a start slower.
fn remove_files(path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if entry.file_type() != FileType::Directory {
            unlinkat(&directory, entry.file_name(), AtFlags::empty())?;
        }
    }
    fs::remove_dir(path)
}

/// `rm -r` in the user namespace that the files were made in.
fn remove_as_mapped(path: &Path) -> Result<()> {
    let status = Command::new(tool("jc-unshare".as_ref())?)
        .args(["-U", "--map-auto", "--", "rm", "-rf", "--"])
        .arg(path)
        .stdin(Stdio::null())
        .status()
        .op("run jc-unshare")?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(format_args!("remove {}: not all of it could be", path.display()))),
    }
}

/// All containers that are recorded, what dead supervisors left swept.
pub fn all(base: &Path) -> Result<Vec<State>> {
    let entries = match fs::read_dir(base) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.on("read", base)?,
    };
    let (mut states, mut names) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.on("read", base)?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            names.push(path);
            continue;
        }
        match State::read(&path) {
            Some(state) if state.status == Status::Stopped => states.push(state),
            _ if sweep_one(&path) => {}
            // Again: it may have just been told to have ended.
            _ => states.extend(State::read(&path)),
        }
    }
    if names.iter().any(|name| fs::metadata(name).is_err()) {
        let _lock = lock_names(base)?;
        names.iter().for_each(|name| sweep_name(name));
    }
    Ok(states)
}

/// The container that a word names: a name, an ID, or the beginning of just one ID.
pub fn find(base: &Path, word: &str) -> Result<State> {
    let none = || {
        Error::new(format_args!("{word}: no such container"))
            .hint("jc-list -a shows those there are")
    };
    if word.is_empty() || word.contains('/') || word.starts_with('.') {
        return Err(none());
    }
    let direct = base.join(word);
    if direct.exists() && !sweep_one(&direct) {
        let target = fs::canonicalize(&direct).on("find", &direct)?;
        return State::read(&target).ok_or_else(none);
    }
    let entries = fs::read_dir(base).map_err(|_| none())?.flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ids: Vec<String> = names.filter(|name| name.starts_with(word)).collect();
    match ids.as_slice() {
        [id] if !sweep_one(&base.join(id)) => State::read(&base.join(id)).ok_or_else(none),
        [_] | [] => Err(none()),
        more => Err(Error::new(format_args!("{word}: {} containers begin so", more.len()))),
    }
}
