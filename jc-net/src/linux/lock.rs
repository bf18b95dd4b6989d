//! A lock for each network namespace. In the namespace of PID 1, which other users and payloads share, the lock is on a
//! file that only root can open. The name of the file is the inode number of the namespace (namespaces(7)), and the file
//! stays as long as a bridge does. In other namespaces the lock is on the namespace itself, which ends with the last
//! process.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use jc_unshare::descriptor::open_dir_to_read;
use jc_unshare::{Context, Error, Result};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::linux::enter::is_root_of_host;

const DIRECTORY: &str = "/run/jc-net";
const NAMESPACE: &str = "/proc/self/ns/net";
/// The longest wait for other jc-net processes.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lock of the network namespace in which this process is at the first use.
#[derive(Default)]
pub struct Lock(RefCell<Option<LockFile>>);

struct LockFile {
    file: File,
    /// The name in [`DIRECTORY`]. The lock on a namespace itself has none.
    name: Option<String>,
}

impl Lock {
    /// Takes a shared lock, so that no process changes bridges. A wait longer than [`PATIENCE`] is an error.
    pub fn keep_bridges(&self) -> Result<()> {
        self.acquire(FlockOperation::NonBlockingLockShared)
    }

    /// Takes the exclusive lock, for changes of bridges. A wait longer than [`PATIENCE`] is an error.
    pub fn change_bridges(&self) -> Result<()> {
        self.acquire(FlockOperation::NonBlockingLockExclusive)
    }

    fn acquire(&self, operation: FlockOperation) -> Result<()> {
        let start = Instant::now();
        loop {
            let locked = match self.0.take() {
                Some(locked) => locked,
                None => open(start)?,
            };
            match flock(&locked.file, operation) {
                Ok(()) => {
                    // Another process may have removed the file before this one locked the file.
                    if fstat(&locked.file).on("fstat", DIRECTORY)?.st_nlink > 0 {
                        self.0.replace(Some(locked));
                        return Ok(());
                    }
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    self.0.replace(Some(locked));
                    sleep(Duration::from_micros(200));
                }
                Err(errno) => return Err(errno).on("flock", DIRECTORY),
            }
            check_patience(start)?;
        }
    }

    /// Removes the file unless another process has locked it. A process that waits for the lock makes a new file.
    pub fn remove(&self) -> Result<()> {
        match self.0.take() {
            Some(LockFile { file, name: Some(name) }) => remove_unheld(&file, &name),
            _ => Ok(()),
        }
    }
}

fn check_patience(start: Instant) -> Result<()> {
    if start.elapsed() < PATIENCE {
        return Ok(());
    }
    let seconds = PATIENCE.as_secs();
    let message = format!("flock {DIRECTORY}: held by another jc-net for {seconds} seconds");
    Err(Error::new(message))
}

/// Opens the file, or the namespace if root of a user namespace cannot write below `/run`.
fn open(start: Instant) -> Result<LockFile> {
    let namespace = fs::metadata(NAMESPACE).on("stat", NAMESPACE)?.ino();
    let name = namespace.to_string();
    let is_shared = match fs::metadata("/proc/1/ns/net") {
        Ok(first) => first.ino() == namespace,
        Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => false,
        Err(e) => return Err(e).on("stat", "/proc/1/ns/net"),
    };
    loop {
        if !is_shared {
            return open_namespace();
        }
        match open_beneath(&name) {
            // Another process has just removed the directory.
            Err(Errno::NOENT) if Path::new(DIRECTORY).parent().is_some_and(Path::exists) => {}
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOENT)
                if !is_root_of_host()? =>
            {
                return open_namespace();
            }
            opened => {
                let file = File::from(opened.on("open", format!("{DIRECTORY}/{name}"))?);
                return Ok(LockFile { file, name: Some(name) });
            }
        }
        check_patience(start)?;
    }
}

fn open_namespace() -> Result<LockFile> {
    File::open(NAMESPACE).on("open", NAMESPACE).map(|file| LockFile { file, name: None })
}

/// Opens a file in the directory. A missing file or directory is made. EACCES: the directory belongs to another user, or
/// other users have access.
fn open_beneath(name: &str) -> rustix::io::Result<OwnedFd> {
    let open = || open_dir_to_read(CWD, DIRECTORY);
    let directory = match open() {
        Err(Errno::NOENT) => {
            match DirBuilder::new().mode(0o700).create(DIRECTORY) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                made => made.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?,
            }
            open()?
        }
        opened => opened?,
    };
    let stat = fstat(&directory)?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
        return Err(Errno::ACCESS);
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)
}

fn remove_unheld(file: &File, name: &str) -> Result<()> {
    let path = Path::new(DIRECTORY).join(name);
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(()),
        locked => locked.on("flock", &path)?,
    }
    if fstat(file).on("fstat", &path)?.st_nlink > 0 {
        fs::remove_file(&path).on("remove", &path)?;
    }
    match fs::remove_dir(DIRECTORY) {
        Err(e) if is_in_use(&e) => Ok(()),
        removed => removed.on("rmdir", DIRECTORY),
    }
}

/// Whether the directory has other files, or another process has removed the directory.
fn is_in_use(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound)
}

/// Removes the files that no process has locked, such as those of network namespaces that have ended.
pub fn sweep() -> Result<()> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) if e.kind() == ErrorKind::PermissionDenied && !is_root_of_host()? => return Ok(()),
        entries => entries.on("read", DIRECTORY)?,
    };
    for entry in entries {
        let name = entry.on("read", DIRECTORY)?.file_name().to_string_lossy().into_owned();
        match open_beneath(&name) {
            Err(Errno::NOENT) => {}
            file => {
                let file = File::from(file.on("open", format!("{DIRECTORY}/{name}"))?);
                remove_unheld(&file, &name)?;
            }
        }
    }
    Ok(())
}
