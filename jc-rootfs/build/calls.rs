//! The calls that the default profile allows.

use crate::capability;
use crate::compiler::abi::Abi;
use crate::compiler::default::ALWAYS;

/// The only default capability of jc-run that allows system calls.
pub const CAPABILITIES: u64 = 1 << capability::SYS_CHROOT;

/// The capabilities that change the filter, a bit each.
pub fn relevant() -> u64 {
    BY_CAPABILITY.iter().fold(0, |set, (number, _)| set | 1 << number)
}

/// Names of system calls, between white space. Lines that begin with "#" are comments.
type Names = &'static str;

/// Calls that every payload may make.
const EVERYWHERE: Names = include_str!("default.tbl");

/// Calls that only x86_64 or x86 has.
const ON_X86: Names = "arch_prctl modify_ldt";

/// Calls that only ARM has.
const ON_ARM: Names =
    "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// The calls that each capability allows. CAP_DAC_READ_SEARCH does not bring open_by_handle_at(2), which opens every
/// file of a file system of which one directory is mounted.
const BY_CAPABILITY: [(u32, Names); 13] = [
    (
        capability::SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    (capability::SYS_BOOT, "reboot"),
    (capability::SYS_CHROOT, "chroot"),
    (capability::SYS_MODULE, "delete_module init_module finit_module"),
    (capability::SYS_PACCT, "acct"),
    (
        capability::SYS_PTRACE,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (capability::SYS_RAWIO, "iopl ioperm"),
    (capability::SYS_TIME, "settimeofday stime clock_settime clock_settime64"),
    (capability::SYS_TTY_CONFIG, "vhangup"),
    (capability::SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (capability::SYSLOG, "syslog"),
    (capability::BPF, "bpf"),
    (capability::PERFMON, "perf_event_open"),
];

/// Calls with conditions, which the rules name.
const CONDITIONAL: Names = "clone clone3 ioctl personality socket socketcall";

fn split(names: Names) -> impl Iterator<Item = &'static str> {
    let lines = names.lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_ascii_whitespace)
}

/// The capabilities each of which allows a call, and [`ALWAYS`] if every payload may make the call.
pub fn allowed_by(name: &str, native: Abi) -> u64 {
    let here = if native == Abi::Aarch64 { ON_ARM } else { ON_X86 };
    let lists =
        [(ALWAYS.ilog2(), EVERYWHERE), (ALWAYS.ilog2(), here)].into_iter().chain(BY_CAPABILITY);
    let has = |(_, names): &(u32, Names)| split(names).any(|known| known == name);
    lists.filter(has).fold(0, |set, (number, _)| set | 1 << number)
}

/// Every name of the lists.
pub fn names() -> impl Iterator<Item = &'static str> {
    let lists = [EVERYWHERE, ON_X86, ON_ARM, CONDITIONAL].into_iter();
    lists.chain(BY_CAPABILITY.map(|(_, names)| names)).flat_map(split)
}
