//! The contents of a state directory, and the chain that uses them.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::geteuid;

use super::anonymous::{self, STATE, VOLUMES};
use super::state::State;
use crate::link::Chain;
use crate::shell::{printf_format, spell};

/// A container before its start.
#[derive(Debug)]
pub struct Bundle {
    /// The state, whose `bundle` is the state directory.
    pub state: State,
    /// Files of the state directory, by name.
    pub files: Vec<(&'static str, String)>,
    /// The directory in the store of the image's volumes and of changes that are kept, if there are any.
    pub volumes: Option<PathBuf>,
    /// Directories of the state directory.
    pub directories: Vec<Directory>,
    /// The descriptors to which links write events.
    pub status_fds: StatusFds,
    /// The descriptor of the socket by which a link gets a network namespace that this program creates.
    pub net_fd: Option<u32>,
    pub chain: Chain,
    /// Whether the exit status of the payload is recorded or reported.
    pub needs_exit_status: bool,
    /// The most bytes of the logs of a detached container.
    pub log_size: u64,
}

/// A directory in the state directory.
#[derive(Debug)]
pub struct Directory {
    /// The path from the state directory on.
    pub name: String,
    pub mode: u32,
    /// User and group, as the image has them.
    pub owner: Option<(u32, u32)>,
}

/// The descriptors to which links write events. The last link has a pipe of its own, whose end shows that the payload
/// has been executed. Waiting links keep the other pipe open to their end.
#[derive(Clone, Copy, Debug)]
pub struct StatusFds {
    /// The descriptor of jc-rootfs.
    pub last: u32,
    /// The descriptor of all other links.
    pub others: u32,
}

impl Bundle {
    /// The container's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.state.get("name")
    }

    /// A path in the state directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.state.bundle.join(name)
    }

    /// Creates the files and directories. Returns the lock on the volumes, if there are any.
    pub fn create(&self) -> Result<Option<OwnedFd>> {
        for (name, text) in &self.files {
            write_readable(&self.path(name), text)?;
        }
        let create = |path: &PathBuf| anonymous::create(path, &self.state.bundle);
        let lock = self.volumes.as_ref().map(create).transpose()?;
        for directory in &self.directories {
            let path = self.path(&directory.name);
            fs::create_dir_all(&path).on("mkdir", &path)?;
            fs::set_permissions(&path, Permissions::from_mode(directory.mode))
                .on("chmod", &path)?;
            if let Some((uid, gid)) = directory.owner.filter(|_| geteuid().is_root()) {
                chown(&path, Some(uid), Some(gid)).on("chown", &path)?;
            }
        }
        Ok(lock)
    }

    /// A script that creates the files and runs the chain, one link on a line. The events go to a file.
    pub fn to_shell(&self) -> Vec<u8> {
        let StatusFds { last, others } = self.status_fds;
        let mut script = self.creation();
        script.extend(self.chain.to_shell());
        script.pop();
        let events = quote_path(&self.path("events"));
        script.extend([format!(" {others}>").as_bytes(), &events].concat());
        script.extend(format!(" {last}>&{others}\n").bytes());
        script
    }

    /// The lines of the script that create files and directories.
    fn creation(&self) -> Vec<u8> {
        let path = |name: &str| quote_path(&self.path(name));
        let bundle = quote_path(&self.state.bundle);
        let mut lines = vec![[b"mkdir -p -m 700 ", bundle.as_slice()].concat()];
        for (name, text) in &self.files {
            let text = format!("printf {} >", printf_format(text.as_bytes()));
            lines.push([text.as_bytes(), &path(name)].concat());
        }
        let files = self.files.iter().flat_map(|(name, _)| [b" ".to_vec(), path(name)].concat());
        lines.push(b"chmod 644".iter().copied().chain(files).collect());
        if let Some(volumes) = &self.volumes {
            let (real, state) = (quote_path(volumes), quote_path(&volumes.join(STATE)));
            lines.push([b"mkdir -p -m 700 ", real.as_slice()].concat());
            lines.push([b"ln -s ", bundle.as_slice(), b" ", &state].concat());
            lines.push([b"ln -s ", real.as_slice(), b" ", &path(VOLUMES)].concat());
        }
        for Directory { name, mode, owner } in &self.directories {
            let owner = owner.map_or(String::new(), |(uid, gid)| format!("-o {uid} -g {gid} "));
            let text = format!("install -d -m {mode:o} {owner}");
            lines.push([text.as_bytes(), &path(name)].concat());
        }
        lines.iter_mut().for_each(|line| line.push(b'\n'));
        lines.concat()
    }
}

/// Writes a file that every user of the container can read, whatever the umask(2) is.
fn write_readable(path: &Path, text: &str) -> Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.on("create", path)?;
    file.write_all(text.as_bytes()).on("write", path)?;
    file.set_permissions(Permissions::from_mode(0o644)).on("chmod", path)
}

/// Creates a FIFO for this user alone.
pub fn create_fifo(path: &Path) -> Result<()> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).on("mkfifo", path)
}

fn quote_path(path: &Path) -> Vec<u8> {
    spell(path.as_os_str())
}
