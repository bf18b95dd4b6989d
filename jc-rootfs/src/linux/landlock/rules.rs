//! The rules of a command line, and the ruleset that the kernel gets.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jc_unshare::{Absent, Context, Error, Result};
use nix::libc;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::linux::sys::landlock::{self as sys, Handled};

/// Rights on files (landlock(7)), by bit.
mod right {
    pub const EXECUTE: u64 = 1 << 0;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    /// All rights of the first version: the above, and removing and making files of each type.
    pub const FIRST: u64 = (1 << 13) - 1;
    /// Renaming and linking between directories. Without it the kernel denies both.
    pub const REFER: u64 = 1 << 13;
    pub const TRUNCATE: u64 = 1 << 14;
    pub const IOCTL_DEV: u64 = 1 << 15;
    /// The rights on a file that is no directory.
    pub const OF_FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
    pub const BIND: u64 = 1 << 0;
    pub const CONNECT: u64 = 1 << 1;
    pub const ABSTRACT: u64 = 1 << 0;
    pub const SIGNAL: u64 = 1 << 1;
}

/// The access that an option allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Access(u64);

impl Access {
    /// Reading files and listing directories.
    pub const READ: Self = Self(right::READ_FILE | right::READ_DIR);
    /// Executing files, for which the kernel also reads the interpreter.
    pub const EXECUTE: Self = Self(right::EXECUTE);
    /// All rights that change files and directories.
    pub const WRITE: Self = Self(
        (right::FIRST & !(right::EXECUTE | right::READ_FILE | right::READ_DIR))
            | right::REFER
            | right::TRUNCATE
            | right::IOCTL_DEV,
    );
}

impl std::ops::BitOr for Access {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A value of `--connect` or `--bind`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Port {
    /// No port.
    None,
    /// A port of TCP.
    One(u16),
}

impl Port {
    /// Parses a port or `none`.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        match (word, word.parse()) {
            ("none", _) => Ok(Self::None),
            (_, Ok(port)) => Ok(Self::One(port)),
            _ => Err("not a port or none".to_owned()),
        }
    }
}

/// A value of `--scope`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Scope {
    /// Signals reach no process outside.
    Signal,
    /// Abstract sockets of processes outside cannot be connected to.
    Abstract,
}

/// A restriction that the first versions of Landlock lack.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Rule {
    /// truncate(2), from version 3 (Linux 6.2)
    Truncate,
    /// ioctl(2) on devices, from version 5 (Linux 6.10)
    IoctlDev,
    /// bind(2) and connect(2) of TCP, from version 4 (Linux 6.7)
    Tcp,
    /// Signals, from version 6 (Linux 6.12)
    Signal,
    /// Abstract sockets, from version 6 (Linux 6.12)
    Abstract,
}

impl Rule {
    /// The name, and the first version of Landlock with the rule.
    fn name_and_version(self) -> (&'static str, u32) {
        match self {
            Self::Truncate => ("truncate", 3),
            Self::IoctlDev => ("ioctl-dev", 5),
            Self::Tcp => ("tcp", 4),
            Self::Signal => ("signal", 6),
            Self::Abstract => ("abstract", 6),
        }
    }
}

/// The rules of a command line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    pub files: Vec<(Access, PathBuf)>,
    pub connect: Vec<Port>,
    pub bind: Vec<Port>,
    pub scopes: Vec<Scope>,
}

/// A ruleset of the kernel.
pub struct Ruleset {
    fd: OwnedFd,
    /// The rights on files that are denied without a rule.
    files: u64,
}

/// Devices that stay usable, where they exist.
const DEVICES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

impl Rules {
    /// Adds the rules of a file, a word and a path or port on each line. A line that begins with "#" is a comment.
    pub fn add_lines(&mut self, text: &[u8]) -> Result<()> {
        for line in text.split(|byte| *byte == b'\n') {
            let wrong = || Error::new(format_args!("{}: no rule", String::from_utf8_lossy(line)));
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let end = line.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let (word, value) = (&line[..end], OsStr::from_bytes(&line[end + 1..]));
            let port = || value.to_str().and_then(|port| Port::parse(port).ok()).ok_or_else(wrong);
            let access = match word {
                b"connect" => {
                    self.connect.push(port()?);
                    continue;
                }
                b"bind" => {
                    self.bind.push(port()?);
                    continue;
                }
                b"ro" => Access::READ,
                b"rx" => Access::READ | Access::EXECUTE,
                b"rw" => Access::READ | Access::WRITE,
                b"rwx" => Access::READ | Access::WRITE | Access::EXECUTE,
                _ => return Err(wrong()),
            };
            self.files.push((access, value.into()));
        }
        Ok(())
    }

    /// Whether nothing is restricted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a rule for files restricts all other files.
    pub fn restricts_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// The restrictions that are asked for beyond the first version.
    fn newer(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.restricts_files() {
            rules.extend([Rule::Truncate, Rule::IoctlDev]);
        }
        if !self.connect.is_empty() || !self.bind.is_empty() {
            rules.push(Rule::Tcp);
        }
        rules.extend(self.scopes.iter().map(|scope| match scope {
            Scope::Signal => Rule::Signal,
            Scope::Abstract => Rule::Abstract,
        }));
        rules
    }

    /// Makes the ruleset. A restriction that the kernel lacks is an error, except those of `optional`.
    pub fn ruleset(&self, optional: &[Rule]) -> Result<Ruleset> {
        let version = version()?;
        let handled = self.handled(version, optional)?;
        let fd = sys::create_ruleset(handled).op("landlock_create_ruleset")?;
        let ruleset = Ruleset { fd, files: handled.files };
        for (access, path) in &self.files {
            ruleset.allow(path, access.0 & handled.files)?;
        }
        if handled.files != 0 {
            let rights = right::READ_FILE | right::WRITE_FILE | right::TRUNCATE | right::IOCTL_DEV;
            for device in DEVICES {
                ruleset.allow(device.as_ref(), rights & handled.files).absent()?;
            }
        }
        let ports = [(&self.connect, right::CONNECT), (&self.bind, right::BIND)];
        for (list, right) in ports.into_iter().filter(|(_, right)| handled.tcp & right != 0) {
            for port in list {
                if let Port::One(port) = port {
                    sys::allow_port(ruleset.fd.as_fd(), *port, right)
                        .on("landlock_add_rule", port.to_string())?;
                }
            }
        }
        Ok(ruleset)
    }

    /// The rights that the ruleset denies unless a rule allows them.
    fn handled(&self, version: u32, optional: &[Rule]) -> Result<Handled> {
        let mut lacking = Vec::new();
        for rule in self.newer() {
            let (name, first) = rule.name_and_version();
            if version >= first {
                continue;
            }
            lacking.push(rule);
            if !optional.contains(&rule) {
                return Err(Error::new(format_args!(
                    "{name}: this kernel has version {version} of Landlock, and version {first} restricts it"
                ))
                .hint(format_args!("--if-supported {name} leaves the restriction out")));
            }
        }
        let has = |rule| !lacking.contains(&rule);
        let bit = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
        let files = right::FIRST
            | bit(version >= 2, right::REFER)
            | bit(has(Rule::Truncate), right::TRUNCATE)
            | bit(has(Rule::IoctlDev), right::IOCTL_DEV);
        let tcp =
            bit(!self.connect.is_empty(), right::CONNECT) | bit(!self.bind.is_empty(), right::BIND);
        let scopes = self.scopes.iter().fold(0, |scopes, scope| {
            scopes
                | match scope {
                    Scope::Signal => bit(has(Rule::Signal), right::SIGNAL),
                    Scope::Abstract => bit(has(Rule::Abstract), right::ABSTRACT),
                }
        });
        Ok(Handled {
            files: bit(self.restricts_files(), files),
            tcp: bit(has(Rule::Tcp), tcp),
            scopes,
        })
    }
}

/// The version of Landlock of this kernel.
fn version() -> Result<u32> {
    sys::version().map_err(|error| {
        let cause = match error.raw_os_error() {
            Some(libc::ENOSYS) => "not built into this kernel",
            Some(libc::EOPNOTSUPP) => "disabled in this kernel",
            _ => {
                return Err::<(), _>(error)
                    .op("landlock_create_ruleset")
                    .err()
                    .unwrap_or_else(Error::quiet);
            }
        };
        Error::new(format_args!("Landlock: {cause}"))
            .hint("the kernel needs CONFIG_SECURITY_LANDLOCK, and landlock in the list of lsm=")
    })
}

impl Ruleset {
    /// Allows rights for a path, and for a directory all that is below.
    fn allow(&self, path: &Path, rights: u64) -> Result<()> {
        let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).on("open", path)?;
        let is_directory =
            FileType::from_raw_mode(fstat(&file).on("stat", path)?.st_mode) == FileType::Directory;
        let rights = if is_directory { rights } else { rights & right::OF_FILE };
        sys::allow_beneath(self.fd.as_fd(), file.as_fd(), rights).on("landlock_add_rule", path)
    }

    /// Allows the execution of a program, if files are restricted.
    pub fn allow_execution(&self, program: BorrowedFd<'_>) -> Result<()> {
        match self.files & (right::EXECUTE | right::READ_FILE) {
            0 => Ok(()),
            rights => sys::allow_beneath(self.fd.as_fd(), program, rights).op("landlock_add_rule"),
        }
    }

    /// Restricts this process and its later children.
    pub fn restrict_self(&self) -> Result<()> {
        sys::restrict_self(self.fd.as_fd()).op("landlock_restrict_self")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: bool, tcp: bool, scopes: &[Scope]) -> Rules {
        let files = if files { vec![(Access::READ, "/".into())] } else { Vec::new() };
        let connect = if tcp { vec![Port::None] } else { Vec::new() };
        Rules { files, connect, bind: Vec::new(), scopes: scopes.to_vec() }
    }

    #[test]
    fn a_file_has_a_rule_on_each_line() {
        let mut rules = Rules::default();
        rules.add_lines(b"# learned\nro /a b\n\nrwx /c\nconnect 443\nbind none\n").unwrap();
        let all = Access::READ | Access::WRITE | Access::EXECUTE;
        assert_eq!(rules.files, [(Access::READ, "/a b".into()), (all, "/c".into())]);
        assert_eq!(
            (&rules.connect[..], &rules.bind[..]),
            (&[Port::One(443)][..], &[Port::None][..])
        );
        for line in ["ro", "rz /a", "connect x", "/a"] {
            assert!(Rules::default().add_lines(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn only_a_category_with_an_option_is_restricted() {
        let handled = |rules: Rules| rules.handled(7, &[]).unwrap();
        let files = right::FIRST | right::REFER | right::TRUNCATE | right::IOCTL_DEV;
        for (rules, expected) in [
            (rules(true, false, &[]), Handled { files, tcp: 0, scopes: 0 }),
            (rules(false, true, &[]), Handled { files: 0, tcp: right::CONNECT, scopes: 0 }),
            (
                rules(false, false, &[Scope::Signal]),
                Handled { files: 0, tcp: 0, scopes: right::SIGNAL },
            ),
        ] {
            assert_eq!(handled(rules), expected);
        }
    }

    #[test]
    fn a_restriction_that_the_kernel_lacks_is_an_error_unless_it_is_optional() {
        for (version, rules, name, rule) in [
            (2, rules(true, false, &[]), "truncate", Rule::Truncate),
            (4, rules(true, false, &[]), "ioctl-dev", Rule::IoctlDev),
            (3, rules(false, true, &[]), "tcp", Rule::Tcp),
            (5, rules(false, false, &[Scope::Signal]), "signal", Rule::Signal),
            (5, rules(false, false, &[Scope::Abstract]), "abstract", Rule::Abstract),
        ] {
            let error = rules.handled(version, &[]).unwrap_err().report("t");
            assert!(error.contains(&format!("--if-supported {name}")), "{error}");
            assert!(rules.handled(version, &[rule, Rule::IoctlDev]).is_ok(), "{name}");
        }
        let oldest = rules(true, true, &[Scope::Signal, Scope::Abstract]);
        let all = [Rule::Truncate, Rule::IoctlDev, Rule::Tcp, Rule::Signal, Rule::Abstract];
        let expected = Handled { files: right::FIRST, tcp: 0, scopes: 0 };
        assert_eq!(oldest.handled(1, &all).unwrap(), expected);
    }

    #[test]
    fn writing_does_not_execute() {
        assert_eq!(Access::WRITE.0 & (right::EXECUTE | right::READ_FILE | right::READ_DIR), 0);
        assert_eq!((Access::READ | Access::WRITE | Access::EXECUTE).0, (1 << 16) - 1);
        assert_eq!(Port::parse("none"), Ok(Port::None));
        assert_eq!(Port::parse("443"), Ok(Port::One(443)));
        assert!(Port::parse("65536").is_err());
    }
}
