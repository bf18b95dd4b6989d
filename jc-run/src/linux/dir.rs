//! State directories. Each belongs to one container, has the container's ID as its name, and is locked
//! (flock(2)) as long as the container's supervisor lives. A symbolic link beside the directory, whose text is the
//! ID, is the container's name.

use std::path::Path;
use std::rc::Rc;

use jc_unshare::descriptor::{is_named, open_dir_to_read};
use jc_unshare::{Context, Error, Result, lock};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, flock, mkdirat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::anonymous;
use super::base::Base;
use super::base_path::BasePath;
use super::files::StateDir;
use super::state::{State, Status, boot_id, is_id, now};
use super::tree;

/// A state directory that this process has locked.
#[derive(Debug)]
pub struct LockedDir {
    base: Rc<Base>,
    id: String,
    directory: Rc<StateDir>,
}

impl LockedDir {
    /// Makes the state directory of a container, and a link with the name of the container.
    pub fn create(base_path: &BasePath, id: &str, name: Option<&str>) -> Result<Self> {
        let locked = loop {
            let base = Rc::new(Base::create(base_path)?);
            match mkdirat(&*base, id, Mode::RWXU) {
                // The last other container has removed the parent directory.
                Err(Errno::NOENT) => continue,
                made => made
                    .on("mkdir", base.path().join(id))
                    .inspect_err(|_| base.remove_if_empty())?,
            }
            // A sweep may have removed the directory before the lock.
            if let Some(locked) = Self::lock(&base, id)? {
                break locked;
            }
        };
        if let Some(name) = name
            && let Err(error) = claim(&locked.base, name, id)
        {
            locked.remove_with_name(None)?;
            return Err(error);
        }
        Ok(locked)
    }

    /// Locks a state directory. `None`: the directory is absent, or another process has locked it.
    pub fn lock(base: &Rc<Base>, id: &str) -> Result<Option<Self>> {
        let Some(directory) = open(base, id)? else { return Ok(None) };
        let path = directory.path();
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked.on("flock", path)?,
        }
        // The supervisor may have removed the directory.
        if !is_named(&**base, id, &directory, path)? {
            return Ok(None);
        }
        let (base, id) = (Rc::clone(base), id.to_owned());
        Ok(Some(Self { base, id, directory: Rc::new(directory) }))
    }

    /// The open state directory.
    pub fn directory(&self) -> &Rc<StateDir> {
        &self.directory
    }

    /// Removes the directory with its contents, and the name in the state.
    pub fn remove(self) -> Result<()> {
        // Without a readable state the name stays, and jc-list removes names without target.
        let state = State::read(&self.directory).ok().flatten();
        self.remove_with_name(state.as_ref().and_then(|state| state.get("name")))
    }

    /// Removes the directory with its contents, and this name. The state file is removed first: after a kill, jc-list
    /// removes directories without a state, and names without a directory.
    pub fn remove_with_name(self, name: Option<&str>) -> Result<()> {
        let Self { base, id, directory } = &self;
        State::remove(directory)?;
        if let Some(name) = name
            && base.link(name)?.as_ref() == Some(id)
        {
            unlinkat(&**base, name, AtFlags::empty()).on("remove", base.path().join(name))?;
        }
        let path = directory.path();
        anonymous::remove(directory, id)?;
        tree::remove(&**base, id, path)?;
        base.remove_if_empty();
        Ok(())
    }
}

/// Opens the state directory of an ID. `None`: the directory is absent.
fn open(base: &Base, id: &str) -> Result<Option<StateDir>> {
    StateDir::open(base, Path::new(id), &base.path().join(id))
}

/// Makes the link with the name of a container. A name of another container is an error.
fn claim(base: &Rc<Base>, name: &str, id: &str) -> Result<()> {
    let _lock = lock_names(base)?;
    sweep_name(base, name)?;
    match symlinkat(id, &**base, name) {
        Err(Errno::EXIST) => {
            Err(Error::usage(format_args!("--name {name}: another container has it"))
                .hint("jc-list -a shows the container, jc-rm removes it"))
        }
        made => made.on("link", base.path().join(name)),
    }
}

/// Locks the names, so that no process sweeps a name that another process has just made.
fn lock_names(base: &Base) -> Result<OwnedFd> {
    let lock = open_dir_to_read(base, ".").on("open", base.path())?;
    lock::exclude(&lock, base.path())?;
    Ok(lock)
}

/// Removes a name whose container is absent.
fn sweep_name(base: &Rc<Base>, name: &str) -> Result<()> {
    // A link whose text is no ID is no name, and stays.
    let Some(id) = base.link(name)?.filter(|text| is_id(text)) else { return Ok(()) };
    if settled_state(base, &id)?.is_some() || open(base, &id)?.is_some() {
        return Ok(());
    }
    match unlinkat(&**base, name, AtFlags::empty()) {
        // The name was removed with the container.
        Err(Errno::NOENT) => Ok(()),
        removed => removed.on("remove", base.path().join(name)),
    }
}

/// The state of a container. If the supervisor is dead, a kept container is recorded as stopped, and another one is
/// removed. `None`: the container is absent, or not recorded yet.
fn settled_state(base: &Rc<Base>, id: &str) -> Result<Option<State>> {
    let Some(directory) = open(base, id)? else { return Ok(None) };
    let state = State::read(&directory)?;
    if state.as_ref().is_some_and(|state| state.status == Status::Stopped) {
        return Ok(state);
    }
    let Some(locked) = LockedDir::lock(base, id)? else {
        return state.map(|state| Ok(state.in_boot(boot_id()?))).transpose();
    };
    // The state may have changed before this process had the lock.
    match State::read(&locked.directory)? {
        Some(mut state) if state.is_kept() && state.get("started").is_some() => {
            if state.status != Status::Stopped {
                state.stop();
                state.set("finished", now());
                // On a full disk the file stays unchanged, and the next reader tries again.
                let _: Result<()> = state.write(&locked.directory);
            }
            Ok(Some(state))
        }
        _ => locked.remove().map(|()| None),
    }
}

/// All recorded containers, after the removal of remains of dead supervisors, and the errors of containers whose state
/// cannot be read.
pub fn all(base_path: &BasePath) -> Result<(Vec<State>, Vec<Error>)> {
    let (mut states, mut errors, mut names) = (Vec::new(), Vec::new(), Vec::new());
    let Some(base) = Base::open(base_path)?.map(Rc::new) else { return Ok((states, errors)) };
    for (name, is_link) in base.entries()? {
        let Some(name) = name.to_str().map(str::to_owned) else { continue };
        if is_link {
            names.push(name);
        } else if is_id(&name) {
            match settled_state(&base, &name) {
                Ok(state) => states.extend(state),
                Err(error) => errors.push(error),
            }
        }
    }
    let is_left = |name: &String| {
        let id = base.link(name)?.filter(|text| is_id(text));
        Ok(match id {
            Some(id) => open(&base, &id)?.is_none(),
            None => false,
        })
    };
    for name in names {
        match is_left(&name) {
            Ok(false) => {}
            Ok(true) => {
                let _lock = lock_names(&base)?;
                errors.extend(sweep_name(&base, &name).err());
            }
            Err(error) => errors.push(error),
        }
    }
    // The directory is empty if a start was killed before it had a state, or after the removal of the last name.
    base.remove_if_empty();
    Ok((states, errors))
}

/// A recorded container, with the directory of all state directories.
pub struct RecordedContainer {
    /// The state from `state.json`.
    pub state: State,
    base: Rc<Base>,
}

impl RecordedContainer {
    /// Opens the state directory.
    pub fn open(&self) -> Result<StateDir> {
        open(&self.base, &self.state.id)?.ok_or_else(|| none(&self.state.id))
    }

    /// Whether the state directory is absent.
    pub fn is_gone(&self) -> Result<bool> {
        open(&self.base, &self.state.id).map(|directory| directory.is_none())
    }

    /// Locks the state directory. `None`: the directory is absent or locked.
    pub fn lock(&self) -> Result<Option<LockedDir>> {
        LockedDir::lock(&self.base, &self.state.id)
    }
}

/// The container of a word: a name, an ID, or the beginning of exactly one ID.
pub fn find(base_path: &BasePath, word: &str) -> Result<RecordedContainer> {
    let base = Base::open(base_path)?.ok_or_else(|| none(word))?;
    find_in(&Rc::new(base), word)
}

/// The containers that words name, and the errors of the other words.
pub fn find_all<'a>(
    base_path: &BasePath,
    words: impl Iterator<Item = &'a String>,
) -> Result<(Vec<RecordedContainer>, Vec<Error>)> {
    let base = Base::open(base_path)?.map(Rc::new);
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for word in words {
        match base.as_ref().map_or_else(|| Err(none(word)), |base| find_in(base, word)) {
            Ok(container) => found.push(container),
            Err(error) => errors.push(error),
        }
    }
    Ok((found, errors))
}

fn find_in(base: &Rc<Base>, word: &str) -> Result<RecordedContainer> {
    let id = resolve(base, word)?;
    let state = match settled_state(base, &id) {
        // No supervisor has locked the directory, so the container has ended, and jc-rm can remove it.
        Err(error) => LockedDir::lock(base, &id)?.map(|locked| lost(&id, &locked)).ok_or(error)?,
        Ok(state) => state.ok_or_else(|| none(word))?,
    };
    Ok(RecordedContainer { state, base: Rc::clone(base) })
}

fn none(word: &str) -> Error {
    Error::new(format_args!("{word}: no such container")).hint("jc-list -a shows all containers")
}

/// A state for a container that has ended, and whose recorded state cannot be read.
fn lost(id: &str, locked: &LockedDir) -> State {
    let mut state = State::new(id, locked.directory.path());
    state.stop();
    state
}

/// The ID for a word.
fn resolve(base: &Base, word: &str) -> Result<String> {
    if word.is_empty() || word.contains('/') || word.starts_with('.') {
        return Err(none(word));
    }
    match base.link(word)? {
        Some(id) if is_id(&id) => return Ok(id),
        Some(_) => return Err(none(word)),
        None if is_id(word) => return Ok(word.to_owned()),
        None => {}
    }
    let entries = base.entries()?.into_iter().filter(|(_, is_link)| !is_link);
    let names = entries.filter_map(|(name, _)| name.into_string().ok());
    let ids: Vec<String> = names.filter(|id| is_id(id) && id.starts_with(word)).collect();
    match ids.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(none(word)),
        more => Err(Error::new(format_args!(
            "\"{word}\" is ambiguous: it matches {} containers",
            more.len()
        ))),
    }
}
