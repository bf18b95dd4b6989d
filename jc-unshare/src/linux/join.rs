//! Entry of existing namespaces, which processes or files name.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat, stat};
use rustix::io::Errno;

use super::namespaces::Kind;
use super::sys;
use crate::descriptor::{is_same, open_dir};
use crate::error::{Absent, Context, Error, Result};

/// The value of `--join`, `PID[:KIND,...]`: namespaces of a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    pid: u32,
    /// The kinds of namespaces; empty for all.
    kinds: Vec<Kind>,
}

impl Process {
    /// Parses a process, `PID[:KIND,...]`.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        let (pid, kinds) = match word.split_once(':') {
            Some((pid, kinds)) => {
                (pid, kinds.split(',').map(Kind::parse).collect::<Result<_, _>>()?)
            }
            None => (word, Vec::new()),
        };
        match pid.parse() {
            Ok(pid) if pid > 0 => Ok(Self { pid, kinds }),
            _ => Err("not a PID".to_owned()),
        }
    }
}

/// The value of `--join-file`, `KIND=PATH`: the namespace of a file like `/proc/PID/ns/net`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    kind: Kind,
    path: PathBuf,
}

impl File {
    /// Parses a file, `KIND=PATH`.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        match word.split_once('=') {
            Some((kind, path)) if !path.is_empty() => {
                Ok(Self { kind: Kind::parse(kind)?, path: path.into() })
            }
            _ => Err("not TYPE=PATH".to_owned()),
        }
    }
}

/// An open namespace, with the path for error messages.
type Namespace = (Kind, OwnedFd, PathBuf);

/// The open namespaces of processes and files.
#[derive(Debug, Default)]
pub struct Joined(Vec<Namespace>);

impl Joined {
    /// Opens all namespaces before any is entered, since their paths may not exist inside.
    pub fn open(processes: &[Process], files: &[File]) -> Result<Self> {
        let mut namespaces = Vec::new();
        for process in processes {
            namespaces.extend(process.open()?);
        }
        for file in files {
            // O_NONBLOCK: the open of a FIFO would wait.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = openat(CWD, &file.path, flags, Mode::empty()).on("open", &file.path)?;
            if !is_own(file.kind, &fd)? {
                namespaces.push((file.kind, fd, file.path.clone()));
            }
        }
        Ok(Self(namespaces))
    }

    /// Whether another namespace of this kind is among the namespaces. Only children of this process enter a PID
    /// namespace.
    pub fn has(&self, kind: Kind) -> bool {
        self.0.iter().any(|(joined, ..)| *joined == kind)
    }

    /// Enters the namespaces. A caller without IDs in the user namespace becomes root there, as with nsenter(1), since
    /// execve(2) would otherwise clear its capabilities.
    pub fn enter(self) -> Result<()> {
        let (users, others): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|(kind, ..)| *kind == Kind::User);
        let set = |(kind, fd, _): &Namespace| sys::setns(fd.as_fd(), kind.flag());
        // CAP_SYS_ADMIN over a namespace comes from the present user namespace, or from the user namespace to enter.
        let left: Vec<&&Namespace> =
            others.iter().filter(|namespace| users.is_empty() || set(namespace).is_err()).collect();
        let nobody = if users.is_empty() { None } else { overflow_ids()? };
        let groups_dropped = !users.is_empty() && setgroups(&[]).is_ok();
        for namespace in users.iter().chain(left) {
            set(namespace).on("setns", &namespace.2).map_err(|e| {
                e.hint("this needs CAP_SYS_ADMIN here and in the user namespace that owns it")
            })?;
        }
        let is_nobody = nobody == Some((geteuid().as_raw(), getegid().as_raw()));
        if is_nobody { become_root(groups_dropped) } else { Ok(()) }
    }
}

impl Process {
    /// Opens the namespaces that differ from those of this process. All lookups start at one open directory of
    /// /proc, which belongs to the same process even if the PID is reused.
    fn open(&self) -> Result<Vec<Namespace>> {
        let directory = PathBuf::from(format!("/proc/{}", self.pid));
        let gone = || Error::new(format_args!("join {}: no such process", self.pid));
        let process = open_dir(&directory).absent()?.ok_or_else(gone)?;
        let kinds = if self.kinds.is_empty() { Kind::ALL.to_vec() } else { self.kinds.clone() };
        let mut namespaces = Vec::new();
        for kind in kinds {
            let file = format!("ns/{}", kind.name());
            let path = directory.join(&file);
            let fd = openat(&process, &file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .on("open", &path)
                .map_err(|error| match error.errno().map(Errno::from_raw_os_error) {
                    // A process that ends has no namespaces.
                    Some(Errno::NOENT | Errno::SRCH) if own(kind).exists() => gone(),
                    _ => error.hint("only root and the user of the process may inspect it"),
                })?;
            if !is_own(kind, &fd)? {
                namespaces.push((kind, fd, path));
            }
        }
        Ok(namespaces)
    }
}

/// The namespace of this process.
fn own(kind: Kind) -> PathBuf {
    PathBuf::from("/proc/self/ns").join(kind.name())
}

/// Whether a namespace is that of this process. setns(2) fails for the own user namespace.
fn is_own(kind: Kind, fd: &OwnedFd) -> Result<bool> {
    let path = own(kind);
    let own = stat(&path).on("stat", &path)?;
    let given = fstat(fd).on("stat", &path)?;
    Ok(is_same(&own, &given))
}

/// The overflow user and group IDs: those of a process without IDs in its user namespace
/// (user_namespaces(7)).
fn overflow_ids() -> Result<Option<(u32, u32)>> {
    let read = |path: &str| {
        let text = fs::read_to_string(path).on("read", path).absent()?;
        Ok::<_, Error>(text.and_then(|text| text.trim().parse().ok()))
    };
    let ids = (read("/proc/sys/kernel/overflowuid")?, read("/proc/sys/kernel/overflowgid")?);
    Ok(ids.0.zip(ids.1))
}

/// Becomes root of the user namespace, if the namespace has a root.
fn become_root(groups_dropped: bool) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    if setresgid(gid, gid, gid) == Err(nix::errno::Errno::EINVAL) {
        return Ok(());
    }
    // Where an ordinary user made the namespace, setgroups(2) is denied inside, so the caller drops its groups before.
    if let (Err(e), false) = (setgroups(&[]), groups_dropped) {
        return Err(e).op("setgroups");
    }
    setresuid(uid, uid, uid).op("setresuid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_process_or_a_file() {
        let parsed = Process::parse("12:net,mnt").unwrap();
        assert_eq!(parsed, Process { pid: 12, kinds: vec![Kind::Net, Kind::Mount] });
        assert_eq!(Process::parse("7").unwrap().kinds, []);
        for word in ["", "0", "x", "-1", "1:", "1:nets", "1:net,"] {
            assert!(Process::parse(word).is_err(), "{word}");
        }
        let parsed = File::parse("net=/run/netns/a=b").unwrap();
        assert_eq!(parsed, File { kind: Kind::Net, path: "/run/netns/a=b".into() });
        for word in ["", "net", "net=", "nets=/x"] {
            assert!(File::parse(word).is_err(), "{word}");
        }
    }
}
