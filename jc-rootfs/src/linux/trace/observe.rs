//! The facts about a call, read from the thread that waits.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use nix::libc;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::read;
use rustix::net::sockopt::socket_type;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::super::seccomp::Abi;
use super::super::sys::notify::Notification;
use super::calls::{Follows, Meaning, PathArgument};
use super::event::{Address, Program, USES, bit};
use super::memory::Memory;
use super::place::{Place, Root, link_of};
use super::tables::{Gap, Use};

/// The most bytes of the arguments of a program.
const LONGEST_ARGUMENTS: usize = 64 << 10;

const EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
const NEW_LISTENER: u64 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;

/// The facts about a call.
#[derive(Debug, Default)]
pub struct Observation {
    pub value: Option<u64>,
    pub uses: Vec<Use>,
    pub address: Option<Address>,
    pub program: Option<Program>,
    /// The exit code of exit_group(2).
    pub exit: Option<u8>,
    /// The process of the thread, if an execution or exit needs it.
    pub process: Option<u32>,
    /// The root or the mounts change.
    pub moves: bool,
    pub gaps: Vec<Gap>,
}

/// A call that waits, with its meaning.
pub struct Observer<'a> {
    pub call: &'a Notification,
    pub abi: Abi,
    pub meaning: &'a Meaning,
    pub root: &'a Root,
    pub memory: Memory<'a>,
}

impl Observer<'_> {
    /// Reads all facts about the call.
    pub fn observe(mut self) -> Observation {
        let argument = self.call.arguments;
        let mut seen = Observation {
            value: self.meaning.value.map(|(index, mask)| argument[usize::from(index)] & mask),
            moves: self.meaning.moves,
            ..Observation::default()
        };
        match self.meaning.name {
            "clone3" => seen.value = self.memory.number(argument[0], 8),
            "exit_group" => seen.exit = Some(argument[0] as u8),
            "connect" | "bind" => {
                self.address(&mut seen, self.meaning.name, argument[0], (argument[1], argument[2]))
            }
            "sendto" if argument[4] != 0 => {
                self.address(&mut seen, "connect", argument[0], (argument[4], argument[5]));
            }
            "socketcall" => self.socketcall(&mut seen),
            "seccomp" if argument[0] == 1 && argument[1] & NEW_LISTENER != 0 => {
                seen.gaps.push(Gap::ListenerRefused);
            }
            "io_uring_setup" => seen.gaps.push(Gap::Ring),
            _ => {}
        }
        if matches!(self.meaning.name, "clone" | "clone3") {
            seen.moves = seen.value.is_some_and(|flags| flags & libc::CLONE_NEWNS as u64 != 0);
        }
        for path in &self.meaning.paths {
            self.path(&mut seen, *path);
        }
        if self.meaning.usage == "execute" {
            self.program(&mut seen);
        }
        seen
    }

    fn path(&mut self, seen: &mut Observation, argument: PathArgument) {
        let thread = self.call.thread;
        let argument_at = |index: u8| self.call.arguments[usize::from(index)];
        let (index, directory) = match argument {
            PathArgument::Descriptor(index) => {
                let path = link_of(thread, &format!("fd/{}", argument_at(index) as i32));
                if let Some(path) = path.filter(|path| path.starts_with(b"/")) {
                    seen.uses.push(self.used(Place { path, follows: true }));
                }
                return;
            }
            PathArgument::Plain(index) => (index, libc::AT_FDCWD),
            PathArgument::At(directory, index) => (index, argument_at(directory) as i32),
        };
        let Some(path) = self.memory.path(argument_at(index)) else {
            // A null pointer is a path of some calls, such as utimensat(2).
            seen.gaps.extend((argument_at(index) != 0).then_some(Gap::UnreadableMemory));
            return;
        };
        let base = match directory {
            _ if path.starts_with(b"/") => None,
            libc::AT_FDCWD => {
                let base = link_of(thread, "cwd");
                seen.gaps.extend(base.is_none().then_some(Gap::UnreadableMemory));
                base
            }
            // A closed descriptor has no link, and the call fails.
            number => link_of(thread, &format!("fd/{number}")),
        };
        let place = self.root.place(&path, self.follows(), || base);
        seen.uses.extend(place.map(|place| self.used(place)));
    }

    fn used(&mut self, place: Place) -> Use {
        let usage = bit(&USES, self.meaning.usage);
        let flags = self.open_flags().map_or(0, |flags| flag_bits(flags as i32));
        Use { place, usage, flags, found: None }
    }

    /// The flags of an open, which openat2(2) reads from memory.
    fn open_flags(&mut self) -> Option<u64> {
        let arguments = self.call.arguments;
        match self.meaning.name {
            "open" => Some(arguments[1]),
            "openat" => Some(arguments[2]),
            "openat2" => self.memory.number(arguments[2], 8),
            "creat" => Some((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64),
            _ => None,
        }
    }

    /// Whether the call follows a symbolic link at the end of the path.
    fn follows(&mut self) -> bool {
        const AT: u64 = libc::AT_SYMLINK_NOFOLLOW as u64;
        const OPEN: u64 = libc::O_NOFOLLOW as u64;
        match self.meaning.follows {
            Follows::Always => true,
            Follows::Never => false,
            Follows::ByFlags(index) => self.call.arguments[usize::from(index)] & AT == 0,
            Follows::ByOpen => self.open_flags().is_none_or(|flags| flags & OPEN == 0),
        }
    }

    fn program(&mut self, seen: &mut Observation) {
        let arguments = self.call.arguments;
        let is_at = self.meaning.name == "execveat";
        let path = match seen.uses.first() {
            // The magic link leads to the program that runs now.
            Some(used) if used.place.path == b"/proc/self/exe" => {
                link_of(self.call.thread, "exe").unwrap_or_else(|| used.place.path.clone())
            }
            Some(used) => used.place.path.clone(),
            None if is_at && arguments[4] & EMPTY_PATH != 0 => {
                let link = link_of(self.call.thread, &format!("fd/{}", arguments[0] as i32));
                let Some(path) = link else { return };
                path
            }
            None => return,
        };
        let vector = arguments[if is_at { 2 } else { 1 }];
        let width = if self.abi.is_wide() { 8 } else { 4 };
        let words = match vector {
            0 => Some((Vec::new(), true)),
            _ => self.memory.strings(vector, width, LONGEST_ARGUMENTS),
        };
        seen.gaps.extend(words.is_none().then_some(Gap::UnreadableMemory));
        let (arguments, is_whole) = words.unwrap_or_default();
        seen.program = Some(Program { path, arguments, is_whole });
    }

    /// A call of x86 whose arguments are in memory.
    fn socketcall(&mut self, seen: &mut Observation) {
        let at = self.call.arguments[1];
        let mut argument = |index: u64| self.memory.number(at + 4 * index, 4).unwrap_or_default();
        let (first, second, third, fifth, sixth) =
            (argument(0), argument(1), argument(2), argument(4), argument(5));
        match self.call.arguments[0] {
            2 => self.address(seen, "bind", first, (second, third)),
            3 => self.address(seen, "connect", first, (second, third)),
            11 if fifth != 0 => self.address(seen, "connect", first, (fifth, sixth)),
            _ => {}
        }
    }

    /// Reads a socket address (sockaddr(3type)).
    fn address(
        &mut self,
        seen: &mut Observation,
        event: &'static str,
        descriptor: u64,
        (at, length): (u64, u64),
    ) {
        /// The size of `struct sockaddr_storage`.
        const LONGEST: u64 = 128;
        let Some(bytes) = self.memory.bytes(at, length.min(LONGEST) as usize) else {
            seen.gaps.push(Gap::UnreadableMemory);
            return;
        };
        let Some((family, rest)) = bytes.split_first_chunk::<2>() else { return };
        let family = u16::from_ne_bytes(*family);
        let port = rest.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
        let (family, address, port) = match (i32::from(family), rest) {
            (libc::AF_UNIX, [0, name @ ..]) => {
                ("unix".to_owned(), format!("@{}", String::from_utf8_lossy(name)), None)
            }
            (libc::AF_UNIX, [_, ..]) => {
                let path = rest.split(|byte| *byte == 0).next().unwrap_or_default();
                let thread = self.call.thread;
                let place = self.root.place(path, true, || link_of(thread, "cwd"));
                if let Some(place) = place {
                    seen.uses.push(Use { place, usage: bit(&USES, event), flags: 0, found: None });
                }
                ("unix".to_owned(), String::from_utf8_lossy(path).into_owned(), None)
            }
            (libc::AF_INET, [_, _, a, b, c, d, ..]) => {
                ("inet".to_owned(), Ipv4Addr::new(*a, *b, *c, *d).to_string(), port)
            }
            (libc::AF_INET6, rest) => {
                let Some(address) = rest.get(6..).and_then(|bytes| bytes.first_chunk::<16>())
                else {
                    return;
                };
                ("inet6".to_owned(), Ipv6Addr::from(*address).to_string(), port)
            }
            // AF_UNSPEC ends a connection.
            (libc::AF_UNSPEC, _) => return,
            (family, _) => (family.to_string(), String::new(), None),
        };
        let kind = self.socket_kind(descriptor);
        seen.address = Some(Address { event, family, address, port, kind });
    }

    /// The type of a socket. `None`: the socket cannot be copied to this process.
    fn socket_kind(&self, descriptor: u64) -> Option<String> {
        let socket = copy_of(self.call.thread, descriptor as i32)?;
        let kind = socket_type(&socket).ok()?.as_raw() as i32;
        Some(match kind {
            libc::SOCK_STREAM => "stream".to_owned(),
            libc::SOCK_DGRAM => "dgram".to_owned(),
            kind => kind.to_string(),
        })
    }
}

/// The flags of an open as bits of [`FLAGS`](super::event::FLAGS).
fn flag_bits(flags: i32) -> u16 {
    let has = |flag: i32| flags & flag == flag;
    let (is_path, mode) = (has(libc::O_PATH), flags & libc::O_ACCMODE);
    let all = [
        has(libc::O_APPEND),
        has(libc::O_CREAT),
        has(libc::O_DIRECTORY),
        has(libc::O_EXCL),
        has(libc::O_NOFOLLOW),
        is_path,
        !is_path && mode != libc::O_WRONLY,
        has(libc::O_TRUNC),
        !is_path && mode != libc::O_RDONLY,
    ];
    all.iter().rev().fold(0, |bits, is_set| bits << 1 | u16::from(*is_set))
}

/// A copy of a descriptor of another process (pidfd_getfd(2)).
fn copy_of(thread: u32, descriptor: i32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(process_of(thread)? as i32)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).ok()
}

/// The process of a thread (proc_pid_status(5)).
pub fn process_of(thread: u32) -> Option<u32> {
    let status = open(format!("/proc/{thread}/status"), OFlags::CLOEXEC, Mode::empty()).ok()?;
    // The line stands behind the name, which may be no UTF-8.
    let mut head = [0; 512];
    let length = read(&status, &mut head).ok()?;
    let head = String::from_utf8_lossy(&head[..length]);
    head.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
