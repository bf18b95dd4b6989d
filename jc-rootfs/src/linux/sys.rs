//! System calls that nix and rustix lack. No other module of this package has unsafe code.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CString;
use std::hint::black_box;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc::{self, sock_filter, sock_fprog};
use rustix::process::Pid;

pub mod notify;

/// Attributes of a mount (mount_setattr(2), fsmount(2)).
pub mod attr {
    use nix::libc;

    /// The files below the mount cannot be changed.
    pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
    /// Set-user-ID bits and file capabilities have no effect.
    pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
    /// Device files cannot be opened.
    pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
    /// Programs cannot be executed.
    pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
    /// Access times of directories do not change.
    pub const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
    /// Access times do not change.
    pub const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
    /// Access times change at each access.
    pub const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
    /// The bits of the choice between access times; without a bit the times are relative.
    pub const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
    /// The attributes of a file system without programs and devices.
    pub const DATA_ONLY: u64 = NOSUID | NODEV | NOEXEC;
}

/// Propagation types of a mount (mount_namespaces(7)).
pub mod propagation {
    use nix::libc;

    /// The type does not change.
    pub const KEEP: u64 = 0;
    /// No later mount propagates.
    pub const PRIVATE: u64 = libc::MS_PRIVATE;
    /// Later mounts of the host propagate to this mount.
    pub const SLAVE: u64 = libc::MS_SLAVE;
    /// Later mounts propagate both ways.
    pub const SHARED: u64 = libc::MS_SHARED;
    /// The mount is private, and cannot be bound.
    pub const UNBINDABLE: u64 = libc::MS_UNBINDABLE;

    /// The type that a word of mount(8) names.
    pub fn parse(word: &str) -> Option<u64> {
        Some(match word {
            "private" => PRIVATE,
            "slave" => SLAVE,
            "shared" => SHARED,
            "unbindable" => UNBINDABLE,
            _ => return None,
        })
    }
}

/// A change of flags of [`attr`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// The flags to set.
    pub set: u64,
    /// The flags to clear first.
    pub clear: u64,
}

impl Change {
    /// Adds a later change.
    pub fn add(&mut self, later: Self) {
        self.set = self.set & !later.clear | later.set;
        self.clear = (self.clear | later.clear) & !(later.set & !attr::ATIME);
    }

    /// Whether the attributes stay as they are.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// mount_setattr(2): adds flags of [`attr`] to a mount and sets its [`propagation`], and if `recursive` does
/// the same with all mounts below. EINVAL: the descriptor does not hold the root of a mount.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    set_attributes(mount, &attr, recursive)
}

/// mount_setattr(2): changes the attributes of a mount, and if `recursive` of all mounts below.
pub fn change_mount(mount: BorrowedFd<'_>, change: Change, recursive: bool) -> io::Result<()> {
    let Change { set, clear } = change;
    let attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    set_attributes(mount, &attr, recursive)
}

/// mount_setattr(2) with MOUNT_ATTR_IDMAP: the mount, and if `recursive` all mounts below, show owners by the maps of a
/// user namespace. EINVAL: the file system does not support that. EPERM: this process does not own the file system.
pub fn map_ids(
    mount: BorrowedFd<'_>,
    namespace: BorrowedFd<'_>,
    recursive: bool,
) -> io::Result<()> {
    let userns_fd = namespace.as_raw_fd() as u64;
    let set = libc::MOUNT_ATTR_IDMAP;
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd };
    set_attributes(mount, &attr, recursive)
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    attr: &libc::mount_attr,
    recursive: bool,
) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant. `attr` outlives the call, which reads as many bytes as
    // the last argument says.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    })
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC: the next program does not inherit the descriptors from `first` on.
/// Where the kernel or a filter lacks the call, /proc/self/fd lists the descriptors.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the descriptors stay open.
    let result = check(unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    });
    match result {
        // Filters that are older than the call answer with EPERM.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            close_each_on_exec(first)
        }
        other => other,
    }
}

fn close_each_on_exec(first: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<libc::c_int>().ok());
        if let Some(number) = number.filter(|number| *number as u32 >= first) {
            // SAFETY: the descriptor stays open.
            let set = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
            check(set.into())?;
        }
    }
    Ok(())
}

/// seccomp(2) with SECCOMP_SET_MODE_FILTER, for this thread. Returns the descriptor of a listener, if a flag asks for
/// one. EACCES: the thread has neither CAP_SYS_ADMIN nor no_new_privs.
pub fn seccomp_filter(program: &[sock_filter], flags: u64) -> io::Result<Option<OwnedFd>> {
    const NEW_LISTENER: u64 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let len = program.len().try_into().map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program outlives the call. The kernel reads `len` instructions and writes none.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    check(result)?;
    // SAFETY: with the flag the result is a new descriptor, which is close-on-exec.
    Ok((flags & NEW_LISTENER != 0).then(|| unsafe { OwnedFd::from_raw_fd(result as i32) }))
}

/// Sets the dispositions of all signals to the default, since a program inherits the ignored ones through
/// execve(2). SIGHUP keeps its disposition, because nohup(1) depends on the inheritance. The signals 32 and 33
/// belong to the C library, whose sigaction(3) refuses them, but a caller with another library can ignore them.
pub fn default_signals() -> io::Result<()> {
    /// `struct sigaction` of the kernel: SIG_DFL, no flags, no mask.
    const DEFAULT: [u64; 4] = [0; 4];
    // SIGKILL and SIGSTOP are always at their default.
    let stays = |signal: &i32| matches!(*signal, libc::SIGHUP | libc::SIGKILL | libc::SIGSTOP);
    for signal in (1..=64).filter(|signal| !stays(signal)) {
        // SAFETY: the kernel reads `DEFAULT`, which is as large as its structure. SIG_DFL is no handler.
        check(unsafe {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), old, size_of::<u64>())
        })?;
    }
    Ok(())
}

/// Ignores all signals that can be ignored, as a process that outlives a program of the terminal.
pub fn ignore_signals() -> io::Result<()> {
    /// `struct sigaction` of the kernel: SIG_IGN, no flags, no mask.
    const IGNORE: [u64; 4] = [1, 0, 0, 0];
    for signal in (1..=64).filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP)) {
        // SAFETY: the kernel reads `IGNORE`, which is as large as its structure. SIG_IGN is no handler.
        check(unsafe {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, IGNORE.as_ptr(), old, size_of::<u64>())
        })?;
    }
    Ok(())
}

/// keyctl(2) with KEYCTL_JOIN_SESSION_KEYRING: replaces the session keyring by an empty anonymous one.
pub fn new_session_keyring() -> io::Result<()> {
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: the kernel accepts a null pointer as the name of an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) })
}

/// Maps memory of libc for the handles of threads. The standard library allocates a handle there, and aborts without
/// memory; later handles come from the same page. ENOMEM: no memory.
pub fn map_thread_handles() -> io::Result<()> {
    const HANDLE: Layout = Layout::new::<[u64; 6]>();
    // SAFETY: the layout is not empty. The block is never freed, so that the page stays.
    let block = black_box(unsafe { System.alloc(HANDLE) });
    if block.is_null() { Err(io::Error::from_raw_os_error(libc::ENOMEM)) } else { Ok(()) }
}

/// clone(2) with CLONE_PARENT: a fork whose new process is a child of this process's parent. Returns the PID,
/// or `None` in the new process.
pub fn fork_sibling() -> io::Result<Option<Pid>> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and without a stack the new process has a copy of this memory, like a child of
    // fork(2). This process has one thread, so no other thread holds a lock.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    check(pid.min(0))?;
    Ok(Pid::from_raw(pid as i32))
}

/// The scheduling of a process (sched_setattr(2)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SchedulingAttributes {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// The runtime of a deadline policy, in nanoseconds.
    pub runtime: u64,
    /// The deadline of a deadline policy, in nanoseconds.
    pub deadline: u64,
    /// The period of a deadline policy, in nanoseconds.
    pub period: u64,
}

/// sched_setattr(2) of this thread. EPERM: the policy needs CAP_SYS_NICE.
pub fn set_scheduling(attributes: &SchedulingAttributes) -> io::Result<()> {
    /// `struct sched_attr` in its first version.
    #[repr(C)]
    struct Attributes(u32, u32, u64, i32, u32, u64, u64, u64);
    let SchedulingAttributes { policy, flags, nice, priority, runtime, deadline, period } =
        *attributes;
    let size = size_of::<Attributes>() as u32;
    let kernel = Attributes(size, policy, flags, nice, priority, runtime, deadline, period);
    // SAFETY: `kernel` outlives the call, and has its size in the first member.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const kernel, 0) })
}

/// ioprio_set(2) of this thread, with a class and a priority.
pub fn set_io_priority(priority: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: ioprio_set(2) touches no memory.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) })
}

/// set_mempolicy(2) of this thread, with a mask of nodes.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes one bit less than it is given.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads the words of the mask, whose bits it is given.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}

/// personality(2): sets the execution domain.
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: the domain concerns later programs.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) })
}

/// execveat(2) of an open file. Returns only an error.
pub fn execute(file: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the strings and the arrays outlive the call. Each array ends in a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// System calls of Landlock (landlock(7)).
pub mod landlock {
    use std::io;
    use std::mem::size_of;
    use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

    use nix::libc::{self, c_int, c_long, c_void};

    /// `struct landlock_ruleset_attr`: the rights that a ruleset denies unless a rule allows them.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct Handled {
        pub files: u64,
        pub tcp: u64,
        pub scopes: u64,
    }

    #[repr(C, packed)]
    struct PathBeneath {
        rights: u64,
        parent: c_int,
    }

    #[repr(C)]
    struct NetPort {
        rights: u64,
        port: u64,
    }

    const RULE_PATH_BENEATH: c_int = 1;
    const RULE_NET_PORT: c_int = 2;
    const CREATE_RULESET_VERSION: c_int = 1;

    fn check(result: c_long) -> io::Result<c_long> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }

    /// The version of the kernel's interface. ENOSYS: the kernel lacks Landlock. EOPNOTSUPP: Landlock is disabled.
    pub fn version() -> io::Result<u32> {
        let none = std::ptr::null::<c_void>();
        // SAFETY: this form of the call takes no memory.
        let version = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, CREATE_RULESET_VERSION)
        };
        check(version).map(|version| version as u32)
    }

    /// Makes a ruleset without rules. E2BIG: the kernel does not know one of the rights.
    pub fn create_ruleset(handled: Handled) -> io::Result<OwnedFd> {
        let size = size_of::<Handled>();
        // SAFETY: the kernel reads `size` bytes of the structure.
        let fd = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size, 0)
        };
        // SAFETY: the descriptor is new, so it has no other owner.
        check(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as c_int) })
    }

    /// Allows rights for a file, or for a directory and all files beneath.
    pub fn allow_beneath(
        ruleset: BorrowedFd<'_>,
        parent: BorrowedFd<'_>,
        rights: u64,
    ) -> io::Result<()> {
        let rule = PathBeneath { rights, parent: parent.as_raw_fd() };
        add_rule(ruleset, RULE_PATH_BENEATH, (&raw const rule).cast())
    }

    /// Allows rights for a port of TCP.
    pub fn allow_port(ruleset: BorrowedFd<'_>, port: u16, rights: u64) -> io::Result<()> {
        let rule = NetPort { rights, port: port.into() };
        add_rule(ruleset, RULE_NET_PORT, (&raw const rule).cast())
    }

    fn add_rule(ruleset: BorrowedFd<'_>, kind: c_int, rule: *const c_void) -> io::Result<()> {
        // SAFETY: the callers pass a rule of the kind, which the kernel reads.
        check(unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, 0)
        })
        .map(drop)
    }

    /// Restricts this process for ever. EPERM: the process has neither no_new_privs nor CAP_SYS_ADMIN.
    pub fn restrict_self(ruleset: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the call takes no memory.
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
            .map(drop)
    }
}
