//! What is going to be done: the files that are made in the state dir, and the chain that uses them.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use jc_unshare::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::geteuid;

use crate::anonymous::{self, STATE, VOLUMES};
use crate::chain::{Chain, printf_format, spell};
use crate::state::State;

/// A container that is about to be.
#[derive(Debug)]
pub struct Plan {
    /// What is recorded of it; its `bundle` is the state dir.
    pub state: State,
    /// Files of the state dir, by name.
    pub files: Vec<(&'static str, String)>,
    /// The chain of jc-exec, which goes into a file too.
    pub exec: String,
    /// The directory of the image's volumes, if it declares any.
    pub volumes: Option<PathBuf>,
    /// Directories of the state dir.
    pub directories: Vec<Directory>,
    /// The descriptors to which links write events.
    pub status_fds: StatusFds,
    /// What is run.
    pub chain: Chain,
    /// Whether anybody is told how it has ended: else none of the links has to find out.
    pub is_told: bool,
    /// The most that the logs of a detached container take, in bytes.
    pub log_size: u64,
}

/// The descriptors to which links write events. The last link has one of its own: links that wait hold theirs
/// to their end, and the end of that of the last link shows that the payload has been executed.
#[derive(Clone, Copy, Debug)]
pub struct StatusFds {
    /// For jc-rootfs.
    pub last: u32,
    /// For all other links.
    pub others: u32,
}

/// A directory to be made in the state dir.
#[derive(Debug)]
pub struct Directory {
    /// Where it is, from the state dir on.
    pub name: String,
    /// Its permissions, user and group.
    pub mode: u32,
    /// Whose it is, as the image has it.
    pub owner: Option<(u32, u32)>,
}

/// The chain of jc-exec.
pub const EXEC: &str = "exec.json";

impl Plan {
    /// The container's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.state.get("name")
    }

    /// A path in the state dir.
    pub fn path(&self, name: &str) -> PathBuf {
        self.state.bundle.join(name)
    }

    /// Makes what the chain needs in the state dir. Gives the lock on the volumes, if there are any.
    pub fn prepare(&self) -> Result<Option<OwnedFd>> {
        for (name, text) in &self.files {
            write_readable(&self.path(name), text)?;
        }
        let make = |path: &PathBuf| anonymous::make(path, &self.state.bundle);
        let lock = self.volumes.as_ref().map(make).transpose()?;
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

    /// Writes the chain of jc-exec.
    pub fn write_exec(&self) -> Result<()> {
        let path = self.path(EXEC);
        let mut file = create(&path, 0o600)?;
        file.write_all(self.exec.as_bytes()).on("write", &path)
    }

    /// The same for a shell to paste: the files, then the chain, one link a line. The events go to a file.
    pub fn to_shell(&self) -> Vec<u8> {
        let path = |name: &str| quote_path(&self.path(name));
        let mut shell =
            [b"mkdir -p -m 700 ", quote_path(&self.state.bundle).as_slice(), b"\n"].concat();
        for (name, text) in &self.files {
            let text = format!("printf {} >", printf_format(text.as_bytes()));
            shell.extend([text.as_bytes(), &path(name), b"\n"].concat());
        }
        shell.extend(b"chmod 644");
        for (name, _) in &self.files {
            shell.extend([b" ", path(name).as_slice()].concat());
        }
        shell.push(b'\n');
        if let Some(volumes) = &self.volumes {
            let (real, bundle) = (quote_path(volumes), quote_path(&self.state.bundle));
            let (state, link) = (quote_path(&volumes.join(STATE)), path(VOLUMES));
            let lines: [&[&[u8]]; 3] = [
                &[b"mkdir -p -m 700 ", &real],
                &[b"ln -s ", &bundle, b" ", &state],
                &[b"ln -s ", &real, b" ", &link],
            ];
            lines.iter().for_each(|line| shell.extend([line.concat().as_slice(), b"\n"].concat()));
        }
        for Directory { name, mode, owner } in &self.directories {
            let owner = owner.map_or(String::new(), |(uid, gid)| format!("-o {uid} -g {gid} "));
            let text = format!("install -d -m {mode:o} {owner}");
            shell.extend([text.as_bytes(), &path(name), b"\n"].concat());
        }
        shell.extend(self.chain.to_shell());
        shell.pop();
        let StatusFds { last, others } = self.status_fds;
        let events = path("events");
        shell.extend([format!(" {others}>").as_bytes(), &events].concat());
        shell.extend(format!(" {last}>&{others}\n").bytes());
        shell
    }
}

fn create(path: &Path, mode: u32) -> Result<File> {
    File::options().write(true).create_new(true).mode(mode).open(path).on("create", path)
}

/// Writes a file that every user of the container can read, whatever the umask(2) is.
fn write_readable(path: &Path, text: &str) -> Result<()> {
    let mut file = create(path, 0o600)?;
    file.write_all(text.as_bytes()).on("write", path)?;
    file.set_permissions(Permissions::from_mode(0o644)).on("chmod", path)
}

/// A FIFO for this user alone.
pub fn make_fifo(path: &Path) -> Result<()> {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).on("mkfifo", path)
}

fn quote_path(path: &Path) -> Vec<u8> {
    spell(path.as_os_str())
}

/// Words of a command line.
pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
