//! The directories of containers below `--root`. Each has the ID as its name, the record of the container in
//! `state.json`, and while the program waits for `start`, two FIFOs. A command that changes the container holds the
//! lock (flock(2)) of the directory.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use jc_unshare::descriptor::is_named;
use jc_unshare::private_dir::{Purpose, open_chain};
use jc_unshare::process::Process;
use jc_unshare::time::rfc3339_now;
use jc_unshare::{Context, Error, Kind, Result, lock, path_variable, remove_tree};
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, mkdirat, openat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::shared::SharedRoot;
use super::stored::StoredConfig;
use crate::linux::files::StateDir;

const FILE: &str = "state.json";

/// The FIFO that `start` writes to: the program waits for a byte.
pub const GATE: &str = "gate";

/// The FIFO to which the links write events.
pub const EVENTS: &str = "events";

const PURPOSE: Purpose = Purpose { name: "--root", hint: "--root DIR names another directory" };

/// The part of a container's life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The chain assembles the container.
    Creating,
    /// The program waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// The program has ended.
    Stopped,
    /// All processes are frozen. No record has this status: the kernel is asked.
    Paused,
}

impl Status {
    /// The word of the specification.
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
        }
    }
}

/// The facts about a container.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Record {
    pub id: String,
    pub bundle: PathBuf,
    /// The time of `create` in RFC 3339.
    pub created: String,
    /// The user who has created the container.
    pub owner: u32,
    /// The boot of the process: PIDs of another boot belong to other processes.
    pub boot: String,
    /// The phase: [`Status::Creating`], [`Status::Created`] or [`Status::Running`].
    pub phase: Status,
    /// The PID and start time of the program, once the links have written them.
    pub process: Option<(u32, u64)>,
    /// The path of the cgroup, if there is one.
    pub cgroup: Option<String>,
    /// The scope of systemd that has the cgroup, if there is one.
    pub unit: Option<String>,
    /// The root, if the container shares its mount namespace.
    #[serde(default)]
    pub shared_root: Option<SharedRoot>,
    /// The configuration at the time of `create`: later changes of the file count for nothing.
    pub config: StoredConfig,
}

impl Record {
    /// A container that is about to be created.
    pub fn new(id: &str, bundle: &Path, config: StoredConfig) -> Result<Self> {
        check_id(id)?;
        Ok(Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            created: rfc3339_now(),
            owner: geteuid().as_raw(),
            boot: crate::linux::state::boot_id()?.to_owned(),
            phase: Status::Creating,
            process: None,
            cgroup: None,
            unit: None,
            shared_root: None,
            config,
        })
    }

    /// The program or PID 1, if the links have started it.
    pub fn process(&self) -> Option<Process> {
        self.process.map(|(pid, start)| Process { pid, start })
    }

    /// The status, apart from a pause.
    pub fn status(&self) -> Result<Status> {
        let runs = match self.process() {
            Some(process) => self.boot == crate::linux::state::boot_id()? && process.runs()?,
            // The chain of a `create` that is at work, or that has been killed.
            None => true,
        };
        Ok(if runs { self.phase } else { Status::Stopped })
    }

    /// The state of the specification.
    pub fn state(&self, status: Status) -> Value {
        let pid = self.process.filter(|_| status != Status::Stopped).map_or(0, |(pid, _)| pid);
        let mut state = json!({
            "ociVersion": super::features::VERSION,
            "id": self.id,
            "status": status.word(),
            "pid": pid,
            "bundle": self.bundle,
        });
        if !self.config.annotations.is_empty() {
            state["annotations"] = json!(self.config.annotations);
        }
        state
    }

    /// The state for links, which know PID and status better.
    pub fn early_state(&self) -> Value {
        let mut state = self.state(Status::Creating);
        state.as_object_mut().map(|members| ["pid", "status"].map(|name| members.remove(name)));
        state
    }

    /// The state with the members that runc adds.
    pub fn long_state(&self, status: Status) -> Value {
        let mut state = self.state(status);
        let root = self.config.root.as_ref().map(|root| self.bundle.join(&root.path));
        state["rootfs"] = json!(root);
        state["created"] = json!(self.created);
        state["owner"] = json!("");
        state["annotations"] = json!(self.config.annotations);
        state
    }
}

/// The directory of all containers.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// `None` if the directory is absent.
    directory: Option<OwnedFd>,
}

impl Root {
    /// Opens the directory, and makes it if `makes`.
    pub fn open(option: Option<&Path>, makes: bool) -> Result<Self> {
        let path = match option {
            Some(path) => path.to_owned(),
            None => default_root(),
        };
        let path = std::path::absolute(&path).on("find", &path)?;
        Ok(Self { directory: open_chain(&path, PURPOSE, makes)?, path })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The IDs of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        // The descriptor is for lookups only (O_PATH).
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(directory, ".", flags, Mode::empty()).on("open", &self.path)?;
        for entry in Dir::new(directory).on("read", &self.path)? {
            let entry = entry.on("read", &self.path)?;
            if ![FileType::Directory, FileType::Unknown].contains(&entry.file_type()) {
                continue;
            }
            ids.extend(entry.file_name().to_str().ok().filter(|id| is_id(id)).map(str::to_owned));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Refuses an ID that is no name of a new container.
    pub fn check_free(&self, id: &str) -> Result<()> {
        self.try_find(id)?.map_or(Ok(()), |_| Err(taken(id)))
    }

    /// Makes the directory of a new container, and locks it. Before the lock a `delete` may remove the directory, and then
    /// another `create` may make it again, and its container.
    pub fn create(&self, id: &str) -> Result<Container> {
        let path = self.path.join(id);
        let directory = self.directory.as_ref().ok_or(Errno::NOENT).on("open", &self.path)?;
        loop {
            match mkdirat(directory, id, Mode::RWXU) {
                Err(Errno::EXIST) => return Err(taken(id)),
                made => made.on("mkdir", &path)?,
            }
            match self.lock_new(id) {
                Ok(Some(container)) => return Ok(container),
                Ok(None) => {}
                Err(error) => {
                    // A directory with a state stays.
                    let _: rustix::io::Result<()> = unlinkat(directory, id, AtFlags::REMOVEDIR);
                    return Err(error);
                }
            }
        }
    }

    /// Locks a directory that has no state yet; `None` if another command has removed the directory.
    fn lock_new(&self, id: &str) -> Result<Option<Container>> {
        let Some(container) = self.try_find(id)? else { return Ok(None) };
        if !container.lock()? {
            return Ok(None);
        }
        match container.try_read()? {
            Some(_) => Err(taken(id)),
            None => Ok(Some(container)),
        }
    }

    /// Opens the directory of a container, without a lock.
    pub fn find(&self, id: &str) -> Result<Container> {
        self.try_find(id)?.ok_or_else(|| absent(id))
    }

    /// Opens the directory of a container, without a lock; `None` if it is absent.
    pub fn try_find(&self, id: &str) -> Result<Option<Container>> {
        let Some(parent) = self.directory.as_ref().filter(|_| is_id(id)) else { return Ok(None) };
        let path = self.path.join(id);
        let Some(directory) = StateDir::open(parent, Path::new(id), &path)? else {
            return Ok(None);
        };
        let parent = parent.try_clone().op("dup")?;
        Ok(Some(Container { id: id.to_owned(), directory, parent }))
    }

    /// Opens the directory of a container, and waits for its lock.
    pub fn lock(&self, id: &str) -> Result<Container> {
        let container = self.find(id)?;
        if container.lock()? { Ok(container) } else { Err(absent(id)) }
    }
}

/// The directory of a container.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    directory: StateDir,
    parent: OwnedFd,
}

impl Container {
    /// Waits for the lock. `false`: another command has removed the directory.
    pub fn lock(&self) -> Result<bool> {
        let path = self.directory.path();
        lock::exclude(&self.directory, path)?;
        is_named(&self.parent, &self.id, &self.directory, path)
    }

    /// Releases the lock, for other commands.
    pub fn unlock(&self) -> Result<()> {
        flock(&self.directory, FlockOperation::Unlock).on("flock", self.directory.path())
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Reads the record; `None` if a `create` has been killed before it wrote one, or is about to.
    pub fn try_read(&self) -> Result<Option<Record>> {
        self.directory.read_json(FILE)
    }

    /// Reads the record, which must be there.
    pub fn read(&self) -> Result<Record> {
        self.try_read()?.ok_or_else(|| absent(&self.id))
    }

    /// Writes the record, whole or not at all.
    pub fn write(&self, record: &Record) -> Result<()> {
        let text =
            serde_json::to_vec(record).map_err(|e| Error::new(format_args!("state: {e}")))?;
        self.directory.replace(FILE, &text)
    }

    /// Removes a file, if it is there.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed.on("remove", self.path(name)),
        }
    }

    /// Removes the directory with the record.
    pub fn remove(self) -> Result<()> {
        remove_tree(&self.parent, self.id.as_bytes()).on("remove", self.directory.path())
    }
}

/// The error of a container that is absent, in words that engines look for.
fn absent(id: &str) -> Error {
    Error::with_kind(Kind::NotFound, format_args!("container does not exist: {id}"))
}

/// The error of an ID that another container has.
fn taken(id: &str) -> Error {
    Error::new(format_args!("container with id exists: {id}"))
}

/// The directory of all containers of this user.
fn default_root() -> PathBuf {
    let runtime = path_variable("XDG_RUNTIME_DIR").filter(|_| !geteuid().is_root());
    runtime.map_or_else(|| "/run/jc-oci".into(), |runtime| runtime.join("jc-oci"))
}

/// Refuses a text that is no ID of a container.
pub fn check_id(text: &str) -> Result<()> {
    match fault_of_id(text) {
        Some(fault) => Err(Error::new(format_args!("container ID {text:?}: {fault}"))),
        None => Ok(()),
    }
}

/// The fault of a text that is no ID. The characters are those that runc allows.
fn fault_of_id(text: &str) -> Option<String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    match text.chars().find(|c| !is_fine(*c)) {
        Some(character) => Some(format!("invalid character {character:?}")),
        None if text.is_empty() => Some("invalid: it is empty".to_owned()),
        None if text.len() > 255 => Some("invalid: it has more than 255 characters".to_owned()),
        None if text.starts_with('.') => Some("invalid: it begins with a dot".to_owned()),
        None => None,
    }
}

fn is_id(text: &str) -> bool {
    fault_of_id(text).is_none()
}
