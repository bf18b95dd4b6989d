//! The eight kinds of namespaces, and the creation of namespaces.

use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

use super::hints::advise;
use super::procfs;
use super::program::Step;
use super::sys::vfork::Call;
use super::sys::{self, clone};
use crate::error::{Context, Error, Result};
use crate::on_demand::Group;

/// A kind of namespace (namespaces(7)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// User and group IDs, capabilities.
    User,
    /// Mounts.
    Mount,
    /// Process IDs.
    Pid,
    /// Host and domain name.
    Uts,
    /// System V IPC, POSIX message queues.
    Ipc,
    /// Network devices, stacks, ports.
    Net,
    /// The cgroup root directory.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
}

impl Kind {
    /// All kinds, in the order in which `--join` enters them.
    pub const ALL: [Self; 8] = [
        Self::User,
        Self::Mount,
        Self::Pid,
        Self::Uts,
        Self::Ipc,
        Self::Net,
        Self::Cgroup,
        Self::Time,
    ];

    /// The name of the kind's file in `/proc/PID/ns`.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Pid => "pid",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Net => "net",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The flag for clone(2), unshare(2) and setns(2).
    pub fn flag(self) -> u64 {
        match self {
            Self::User => clone::NEWUSER,
            Self::Mount => clone::NEWNS,
            Self::Pid => clone::NEWPID,
            Self::Uts => clone::NEWUTS,
            Self::Ipc => clone::NEWIPC,
            Self::Net => clone::NEWNET,
            Self::Cgroup => clone::NEWCGROUP,
            Self::Time => clone::NEWTIME,
        }
    }

    /// The kinds that fulfil a condition, as flags of clone(2).
    fn flags(is_wanted: impl Fn(Self) -> bool) -> u64 {
        Self::ALL.into_iter().filter(|kind| is_wanted(*kind)).map(Self::flag).sum()
    }

    /// Finds a kind by its name.
    pub fn parse(word: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == word);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("{word:?} is none of {names}")
        })
    }
}

/// New namespaces that any link can make for its child, with their settings: they need no maps of IDs, clock offsets or
/// mounts. The letters are those of unshare(1).
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Basic {
    /// New PID namespace: the program is its PID 1, and all of it ends with the program
    #[arg(short = 'p', long)]
    pub pid: bool,
    /// New UTS namespace: host and domain name
    #[arg(short = 'u', long)]
    pub uts: bool,
    /// New IPC namespace: System V IPC and POSIX message queues
    #[arg(short = 'i', long)]
    pub ipc: bool,
    /// New network namespace, all interfaces down (jc-net makes those that lead outside)
    #[arg(short = 'n', long)]
    pub net: bool,
    /// New cgroup namespace: the cgroup of the program becomes its root
    #[arg(short = 'C', long)]
    pub cgroup: bool,
    /// Set the host name of the UTS namespace
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Set the NIS domain name of the UTS namespace
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
    /// Bring the loopback interface up (with -n)
    #[arg(long)]
    pub loopback: bool,
}

impl Group for Basic {
    const NAMES: &'static [(&'static str, Option<char>)] = &[
        ("pid", Some('p')),
        ("uts", Some('u')),
        ("ipc", Some('i')),
        ("net", Some('n')),
        ("cgroup", Some('C')),
        ("hostname", None),
        ("domainname", None),
        ("loopback", None),
    ];
}

impl Basic {
    /// Whether this kind is asked for.
    pub fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Pid => self.pid,
            Kind::Uts => self.uts,
            Kind::Ipc => self.ipc,
            Kind::Net => self.net,
            Kind::Cgroup => self.cgroup,
            Kind::User | Kind::Mount | Kind::Time => false,
        }
    }

    /// The namespaces as flags of clone(2).
    pub fn flags(&self) -> u64 {
        Kind::flags(|kind| self.has(kind))
    }

    /// Usage error: a name is to be set, and there is no UTS namespace for it.
    pub fn check_names(&self, has_uts: bool) -> Result<()> {
        if has_uts || self.hostname.is_none() && self.domainname.is_none() {
            return Ok(());
        }
        let why =
            "--hostname and --domainname need a UTS namespace (-u): they would rename the host";
        Err(Error::usage(why))
    }

    /// Usage error: loopback is to be brought up, and there is no new network namespace.
    pub fn check_loopback(&self, has_net: bool) -> Result<()> {
        if has_net || !self.loopback {
            return Ok(());
        }
        Err(Error::usage("--loopback needs -n: it would change the host's network"))
    }

    /// The steps that set up the namespaces from inside.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
        let loopback = self.loopback.then(steps::loopback_up).into_iter();
        let names = self.hostname.as_deref().map(steps::host_name).into_iter();
        loopback.chain(names).chain(self.domainname.as_deref().map(steps::domain_name))
    }
}

/// New namespaces to enter, as the command line names them (unshare(1)'s letters).
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct New {
    /// The namespaces that any link can make for its child.
    #[command(flatten)]
    pub basic: Basic,
    /// New time namespace: the monotonic and boot-time clocks
    #[arg(short = 'T', long)]
    pub time: bool,
    /// New mount namespace (jc-rootfs makes its own)
    #[arg(short = 'm', long)]
    pub mount: bool,
    /// New user namespace: the caller can be root inside without being root outside
    #[arg(short = 'U', long)]
    pub user: bool,
    /// New namespaces of all these kinds
    #[arg(long)]
    pub all: bool,
}

impl New {
    /// Whether this kind is asked for.
    pub fn has(&self, kind: Kind) -> bool {
        self.all
            || match kind {
                Kind::User => self.user,
                Kind::Mount => self.mount,
                Kind::Time => self.time,
                kind => self.basic.has(kind),
            }
    }

    /// The clone(2) flags of all but the time namespace, which [`enter_time`] makes.
    pub fn flags(&self) -> u64 {
        Kind::flags(|kind| kind != Kind::Time && self.has(kind))
    }
}

/// unshare(2), with advice when it fails.
pub fn unshare(flags: u64) -> Result<()> {
    if flags == 0 { Ok(()) } else { sys::unshare(flags).op("unshare").map_err(advise(flags)) }
}

/// An offset of a clock, `SECONDS[.DIGITS]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offset {
    seconds: i64,
    nanoseconds: u32,
}

impl Offset {
    /// Parses an offset. The digits after the point are a positive part of a second, as in timens_offsets
    /// (time_namespaces(7)).
    fn parse(word: &str) -> std::result::Result<Self, String> {
        let (seconds, digits) = word.split_once('.').unwrap_or((word, "0"));
        // Minus zero has no sign as a number of seconds.
        let are_digits = digits.bytes().all(|b| b.is_ascii_digit()) && seconds != "-0";
        let nanoseconds = format!("{digits:0<9}").parse().ok();
        match (seconds.parse(), nanoseconds) {
            (Ok(seconds), Some(nanoseconds)) if are_digits && (1..=9).contains(&digits.len()) => {
                Ok(Self { seconds, nanoseconds })
            }
            _ => Err("not a number of seconds with at most 9 decimals".to_owned()),
        }
    }
}

impl Group for Clocks {
    const NAMES: &'static [(&'static str, Option<char>)] =
        &[("boottime", None), ("monotonic", None)];
}

/// Offsets of the clocks of a time namespace against those outside.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Clocks {
    /// Shift the boot-time clock by this number of seconds (with -T)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = Offset::parse)]
    pub boottime: Option<Offset>,
    /// Shift the monotonic clock by this number of seconds (with -T)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = Offset::parse)]
    pub monotonic: Option<Offset>,
}

/// Makes a time namespace and moves the calling process there. unshare(2) alone moves only children
/// (time_namespaces(7)), and on kernels before 6.1 not even a program that this process executes.
pub fn enter_time(clocks: Clocks) -> Result<()> {
    unshare(clone::NEWTIME)?;
    let mut offsets = String::new();
    for (clock, offset) in [("monotonic", clocks.monotonic), ("boottime", clocks.boottime)] {
        if let Some(Offset { seconds, nanoseconds }) = offset {
            // Writing to a String cannot fail.
            let _: std::fmt::Result = writeln!(offsets, "{clock} {seconds} {nanoseconds}");
        }
    }
    if !offsets.is_empty() {
        procfs::write("self/timens_offsets", &offsets)?;
    }
    let path = "/proc/self/ns/time_for_children";
    let namespace = File::open(path).on("open", path)?;
    sys::setns(namespace.as_fd(), clone::NEWTIME).on("setns", path)
}

/// The propagation of later mounts between a new mount namespace and the old one (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Propagation {
    /// Neither namespace sees mounts of the other.
    #[default]
    Private,
    /// The new namespace sees mounts of the old one.
    Slave,
    /// Each namespace sees mounts of the other.
    Shared,
    /// Each mount keeps its propagation type.
    Unchanged,
}

/// Steps that set up new namespaces from inside. Outside of the namespace that its description names, a step
/// would change the host.
pub mod steps {
    use super::*;

    /// Sets the propagation of all mounts of the mount namespace.
    pub fn propagation(propagation: Propagation) -> Option<Step> {
        let flags = match propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Unchanged => return None,
        };
        Some(Step::new(Call::Propagate(flags | libc::MS_REC), "set propagation", "/"))
    }

    /// Mounts a procfs of the PID namespace in the mount namespace.
    pub fn mount_proc(target: &Path) -> Result<Step> {
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let path = CString::new(target.as_os_str().as_bytes()).on("mount proc on", target)?;
        Ok(Step::new(Call::Mount(c"proc".to_owned(), path, flags), "mount proc on", target))
    }

    /// Brings loopback up in the network namespace.
    pub fn loopback_up() -> Step {
        Step::new(Call::LoopbackUp, "set lo up", "")
    }

    /// Makes and enters namespaces, by flags of clone(2).
    pub fn unshare(flags: u64) -> Step {
        Step::new(Call::Unshare(flags), "unshare", "")
    }

    /// Sets the host name in the UTS namespace.
    pub fn host_name(name: &str) -> Step {
        Step::new(Call::HostName(name.into()), "sethostname", name).hint(too_long(name))
    }

    /// Sets the NIS domain name in the UTS namespace.
    pub fn domain_name(name: &str) -> Step {
        Step::new(Call::DomainName(name.into()), "setdomainname", name).hint(too_long(name))
    }

    fn too_long(name: &str) -> Option<String> {
        let is_too_long = name.len() > HOST_NAME_MAX;
        is_too_long.then(|| format!("it has at most {HOST_NAME_MAX} bytes"))
    }
}

/// The longest host name or domain name in bytes, see gethostname(2).
const HOST_NAME_MAX: usize = 64;

/// Brings loopback up in the network namespace of the caller.
pub fn loopback_up() -> Result<()> {
    steps::loopback_up().perform()
}

/// Enters a network namespace, which has the name `shown` in errors. EINVAL: the descriptor is of something else. EPERM:
/// this process has no CAP_SYS_ADMIN in the owner of the namespace.
pub fn enter_network(namespace: impl AsFd, shown: impl AsRef<Path>) -> Result<()> {
    let entered = sys::setns(namespace.as_fd(), clone::NEWNET).on("setns", shown);
    entered.map_err(|error| match error.errno() {
        Some(libc::EINVAL) => error.hint("that is not a network namespace"),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_all_options_of_the_group() {
        crate::on_demand::assert_names::<Clocks>();
    }

    #[test]
    fn an_offset_has_seconds_and_a_positive_part_of_a_second() {
        for (word, seconds, nanoseconds) in
            [("5", 5, 0), ("-5", -5, 0), ("1.5", 1, 500_000_000), ("-1.000000001", -1, 1)]
        {
            assert_eq!(Offset::parse(word), Ok(Offset { seconds, nanoseconds }), "{word}");
        }
        for word in ["", ".", "1.", ".5", "1.+5", "1.0000000001", "1e3", "x", "-0.5"] {
            assert!(Offset::parse(word).is_err(), "{word}");
        }
    }
}
