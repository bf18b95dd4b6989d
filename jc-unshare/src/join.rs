//! Entering namespaces that exist: those of a process, or those that a file stands for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use crate::error::{Context, Error, Result};
use crate::namespaces::Kind;
use crate::sys;

/// `PID[:KIND,...]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    pid: u32,
    /// Which of its namespaces; empty for all.
    kinds: Vec<Kind>,
}

impl Process {
    /// Parses `PID[:KIND,...]`.
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

/// `TYPE=PATH`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    kind: Kind,
    path: PathBuf,
}

impl File {
    /// Parses `TYPE=PATH`.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        match word.split_once('=') {
            Some((kind, path)) if !path.is_empty() => {
                Ok(Self { kind: Kind::parse(kind)?, path: path.into() })
            }
            _ => Err("not TYPE=PATH".to_owned()),
        }
    }
}

/// Namespaces to join, held open.
#[derive(Debug, Default)]
pub struct Joined(Vec<(Kind, OwnedFd, PathBuf)>);

impl Joined {
    /// Opens them all before any is entered: what they are found by may be out of sight then.
    pub fn open(processes: &[Process], files: &[File]) -> Result<Self> {
        let mut namespaces = Vec::new();
        for process in processes {
            namespaces.extend(process.open()?);
        }
        for file in files {
            let fd = open(CWD, &file.path)?;
            namespaces.push((file.kind, fd, file.path.clone()));
        }
        // The user namespace first: it may own the others.
        namespaces.sort_by_key(|(kind, ..)| *kind != Kind::User);
        Ok(Self(namespaces))
    }

    /// Whether children of this process will be in another PID namespace than it is.
    pub fn has_pid(&self) -> bool {
        self.0.iter().any(|(kind, ..)| *kind == Kind::Pid)
    }

    /// Enters them.
    pub fn enter(&self) -> Result<()> {
        for (kind, fd, path) in &self.0 {
            sys::setns(fd.as_fd(), kind.flag()).on("setns", path).map_err(|e| {
                e.hint("this needs CAP_SYS_ADMIN here and in the user namespace that owns it")
            })?;
        }
        Ok(())
    }
}

impl Process {
    /// Opens the namespaces that are not this process's own already. Everything is found from one
    /// held directory of /proc, which stays that of the same process even if its PID is reused.
    fn open(&self) -> Result<Vec<(Kind, OwnedFd, PathBuf)>> {
        let directory = PathBuf::from(format!("/proc/{}", self.pid));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = openat(CWD, &directory, flags, Mode::empty())
            .map_err(|_| Error::new(format_args!("join {}: no such process", self.pid)))?;
        let kinds = if self.kinds.is_empty() { Kind::ALL.to_vec() } else { self.kinds.clone() };
        let mut namespaces = Vec::new();
        for kind in kinds {
            let file = format!("ns/{}", kind.name());
            let path = directory.join(&file);
            let fd = openat(&process, &file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .on("open", &path)
                .map_err(|e| e.hint("one may look into processes of one's own user, or as root"))?;
            let own = open(CWD, &PathBuf::from("/proc/self").join(&file))?;
            let number = |fd: &OwnedFd| fstat(fd).on("stat", &path).map(|stat| stat.st_ino);
            if number(&fd)? != number(&own)? {
                namespaces.push((kind, fd, path));
            }
        }
        Ok(namespaces)
    }
}

fn open(dir: impl AsFd, path: &PathBuf) -> Result<OwnedFd> {
    openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_files() {
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
