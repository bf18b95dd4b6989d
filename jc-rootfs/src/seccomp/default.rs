//! The `default` profile: Docker's (moby/profiles, seccomp/default.json), with the differences that
//! `DIFFERENCES` in the tests below lists. A call that the profile lacks administers the machine, is
//! new attack surface, or has been a way out of containers.

use super::abi::Abi;
use super::rules::{Action, Condition, ENOSYS, Operator, Rule, Rules};
use super::syscalls::{Index, calls};

/// capabilities(7), by number: those that bring system calls with them.
mod cap {
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const SYS_MODULE: u32 = 16;
    pub const SYS_RAWIO: u32 = 17;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_PACCT: u32 = 20;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_BOOT: u32 = 22;
    pub const SYS_NICE: u32 = 23;
    pub const SYS_TIME: u32 = 25;
    pub const SYS_TTY_CONFIG: u32 = 26;
    pub const SYSLOG: u32 = 34;
    pub const PERFMON: u32 = 38;
    pub const BPF: u32 = 39;
}

const ABIS: &[Abi] = match Abi::native() {
    Abi::Aarch64 => &[Abi::Aarch64, Abi::Arm],
    // x32 is off in nearly every kernel, and its calls have had holes of their own (CVE-2014-0038).
    _ => &[Abi::X86_64, Abi::X86],
};

const ALWAYS: &[Index] = calls!(include_str!("default.tbl"));

/// What there is only on machines of one kind.
const NATIVE: &[Index] = match Abi::native() {
    Abi::Aarch64 => calls!(
        "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls"
    ),
    _ => calls!("arch_prctl modify_ldt"),
};

/// What the capabilities bring, each with what it allows.
const BY_CAPABILITY: [(u32, &[Index]); 14] = [
    (cap::DAC_READ_SEARCH, calls!("open_by_handle_at")),
    (
        cap::SYS_ADMIN,
        calls!(
            "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
             lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
             open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
             umount umount2 unshare"
        ),
    ),
    (cap::SYS_BOOT, calls!("reboot")),
    (cap::SYS_CHROOT, calls!("chroot")),
    (cap::SYS_MODULE, calls!("delete_module init_module finit_module")),
    (cap::SYS_PACCT, calls!("acct")),
    (
        cap::SYS_PTRACE,
        calls!("kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ),
    (cap::SYS_RAWIO, calls!("iopl ioperm")),
    (cap::SYS_TIME, calls!("settimeofday stime clock_settime clock_settime64")),
    (cap::SYS_TTY_CONFIG, calls!("vhangup")),
    (cap::SYS_NICE, calls!("get_mempolicy mbind set_mempolicy set_mempolicy_home_node")),
    (cap::SYSLOG, calls!("syslog")),
    (cap::BPF, calls!("bpf")),
    (cap::PERFMON, calls!("perf_event_open")),
];

const CLONE: &[Index] = calls!("clone");
const CLONE3: &[Index] = calls!("clone3");
const PERSONALITY: &[Index] = calls!("personality");
const SOCKET: &[Index] = calls!("socket");
const SOCKETCALL: &[Index] = calls!("socketcall");

/// clone(2) may not make namespaces: not one of its CLONE_NEW* flags, save that of time namespaces,
/// which it does not know.
const NO_NAMESPACES: [Condition; 1] =
    [Condition { argument: 0, operator: Operator::MaskedEqual(0x7E02_0000), value: 0 }];

/// The personalities of Linux and Linux32, with or without UNAME26, and the query.
const PERSONALITIES: [Condition; 5] = first_is([0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF]);

/// Address families before this one are allowed,
const OLD_FAMILIES: [Condition; 1] =
    [Condition { argument: 0, operator: Operator::Less, value: 12 }];

/// and these of the later ones. AF_ALG and AF_VSOCK have been ways into the host, as Docker's profile
/// has it; the other families that are missing here have hardware of the host behind them, or no kernel
/// has them any more, or not yet.
const FAMILIES: [Condition; 25] = first_is([
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44,
    45,
]);

const fn first_is<const N: usize>(values: [u64; N]) -> [Condition; N] {
    let mut conditions = [Condition { argument: 0, operator: Operator::Equal, value: 0 }; N];
    let mut n = 0;
    while n < N {
        conditions[n].value = values[n];
        n += 1;
    }
    conditions
}

/// The rules for a payload that may have these capabilities, a bit each.
pub fn rules(capabilities: u64) -> Rules<'static> {
    let allow = |calls, conditions| Rule { calls, action: Action::ALLOW, conditions };
    let has = |number: u32| capabilities >> number & 1 == 1;
    let mut rules = vec![allow(ALWAYS, &[][..]), allow(NATIVE, &[])];
    let brought = BY_CAPABILITY.into_iter().filter(|(number, _)| has(*number));
    rules.extend(brought.map(|(_, calls)| allow(calls, &[])));
    if !has(cap::SYS_ADMIN) {
        rules.push(allow(CLONE, &NO_NAMESPACES));
        // Its flags are in memory, where no filter can look. C libraries then use clone(2).
        rules.push(Rule { calls: CLONE3, action: Action::errno(ENOSYS), conditions: &[] });
    }
    // A filter cannot see the address family, which socketcall(2) of x86 reads from memory
    // (CVE-2026-31431). Programs then make the calls themselves, which Linux 4.3 added to x86.
    rules.push(Rule { calls: SOCKETCALL, action: Action::errno(ENOSYS), conditions: &[] });
    rules.push(allow(SOCKET, &OLD_FAMILIES));
    rules.extend(FAMILIES.chunks(1).map(|condition| allow(SOCKET, condition)));
    rules.extend(PERSONALITIES.chunks(1).map(|condition| allow(PERSONALITY, condition)));
    Rules { abis: ABIS, foreign: Action::errno(ENOSYS), default: Action::errno(1), rules }
}

#[cfg(test)]
mod tests {
    use super::super::bpf::run;
    use super::super::compile::compile;
    use super::*;

    #[test]
    fn capabilities_bring_their_calls() {
        let native = Abi::native();
        for (name, first, capabilities, expected) in [
            ("read", 0, 0, Action::ALLOW),
            ("mount", 0, 0, Action::errno(1)),
            ("mount", 0, 1 << cap::SYS_ADMIN, Action::ALLOW),
            ("clone", 0x1_0011, 0, Action::ALLOW),
            ("clone", 0x1000_0000, 0, Action::errno(1)),
            ("clone", 0x1000_0000, 1 << cap::SYS_ADMIN, Action::ALLOW),
            ("clone3", 0, 0, Action::errno(ENOSYS)),
            ("clone3", 0, 1 << cap::SYS_ADMIN, Action::ALLOW),
            ("socket", 2, 0, Action::ALLOW),
            ("socket", 16, 0, Action::ALLOW),
            ("socket", 38, u64::MAX, Action::errno(1)),
            ("socket", 40, u64::MAX, Action::errno(1)),
            ("personality", 8, 0, Action::ALLOW),
            ("personality", 0x40000, 0, Action::errno(1)),
            ("io_uring_setup", 0, u64::MAX, Action::errno(1)),
            ("keyctl", 0, u64::MAX, Action::errno(1)),
            ("bpf", 0, 1 << cap::BPF, Action::ALLOW),
            ("ptrace", 0, 0, Action::ALLOW),
        ] {
            let program = compile(&rules(capabilities)).unwrap();
            let number = Index::find(name).unwrap().number(native).unwrap();
            let found = run(&program, number, native.audit_arch(), [first, 0, 0, 0, 0, 0]);
            assert_eq!(Action(found), expected, "{name} {first:#x} {capabilities:#x}");
        }
    }

    /// What the filter does about a call with this first argument.
    fn outcome(capabilities: u64, abi: Abi, number: u32, first: u64) -> Action {
        let program = compile(&rules(capabilities)).unwrap();
        Action(run(&program, number, abi.audit_arch(), [first, 0, 0, 0, 0, 0]))
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn no_abi_of_x86_has_a_socket_of_a_denied_family() {
        let number = |name: &str, abi| Index::find(name).unwrap().number(abi).unwrap();
        for family in [12, 34, 37, 38, 40] {
            for abi in [Abi::X86_64, Abi::X86] {
                let found = outcome(u64::MAX, abi, number("socket", abi), family);
                assert_eq!(found, Action::errno(1), "{abi:?} {family}");
            }
        }
        for operation in 0..25 {
            let found = outcome(u64::MAX, Abi::X86, number("socketcall", Abi::X86), operation);
            assert_eq!(found, Action::errno(ENOSYS), "{operation}");
        }
        for call in ["socket", "read", "execve"] {
            let number = super::super::abi::X32_BIT | number(call, Abi::X32);
            assert_eq!(outcome(u64::MAX, Abi::X32, number, 2), Action::errno(ENOSYS), "{call}");
        }
    }

    /// Calls that another profile always allows and this one does not, or the reverse, with the reason.
    type Differences = &'static [(&'static str, &'static str)];

    const DOCKER_ALLOWS: Differences = &[
        ("socketcall", "it hides the address family; Docker leaves AF_ALG to AppArmor and SELinux"),
        ("riscv_hwprobe", "riscv64 has it"),
    ];
    const DOCKER_LACKS: Differences =
        &[("process_vm_readv process_vm_writev ptrace", "Docker allows them from Linux 4.8 on")];

    const PODMAN_ALLOWS: Differences = &[
        ("clone clone3 setns unshare", "nested namespaces show more of the kernel"),
        (
            "fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root \
             umount umount2",
            "mounts need nested namespaces or CAP_SYS_ADMIN, which brings the calls",
        ),
        ("fanotify_init reboot syslog", "their capabilities bring them"),
        ("get_mempolicy mbind set_mempolicy", "CAP_SYS_NICE brings them"),
        ("keyctl", "keyrings belong to users and not to containers"),
        ("pidfd_getfd", "CAP_SYS_PTRACE brings it"),
        ("signal", "no ABI of these machines needs it"),
        ("socketcall", "it hides the address family"),
    ];
    const PODMAN_LACKS: Differences = &[
        ("io_pgetevents io_pgetevents_time64 vmsplice", "Docker allows them"),
        (
            "cachestat map_shadow_stack mseal uretprobe",
            "Docker allows them: they reach no one else",
        ),
        (
            "getxattrat listxattrat removexattrat setxattrat",
            "Docker allows them, as the older forms",
        ),
        ("listmount statmount", "Docker allows them: /proc/self/mountinfo has the same"),
    ];

    /// FNV-1a of the sorted names that a profile always allows: the names themselves are data of
    /// another project.
    fn digest(allows: Differences, lacks: Differences) -> u64 {
        let ours = include_str!("default.tbl").lines().filter(|line| !line.starts_with('#'));
        let split = |list: Differences| list.iter().flat_map(|(calls, _)| calls.split_whitespace());
        let lacks: Vec<&str> = split(lacks).collect();
        let ours: Vec<&str> = ours.flat_map(str::split_whitespace).collect();
        assert!(lacks.iter().all(|name| ours.contains(name)));
        assert!(split(allows).all(|name| !ours.contains(&name)));
        let same = ours.into_iter().filter(|name| !lacks.contains(name));
        let mut names: Vec<&str> = same.chain(split(allows)).collect();
        names.sort_unstable();
        names.join(" ").bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        })
    }

    /// Docker's: moby/profiles, seccomp/default.json of 2026-05-06. Podman's: containers/container-libs,
    /// common/pkg/seccomp/seccomp.json of 2026-03-04.
    #[test]
    fn the_lists_of_docker_and_podman_differ_in_these_calls_only() {
        assert_eq!(digest(DOCKER_ALLOWS, DOCKER_LACKS), 0x8C02_14BB_6DB3_53B4);
        assert_eq!(digest(PODMAN_ALLOWS, PODMAN_LACKS), 0xA1D6_A22C_B7F8_EB00);
    }

    #[test]
    fn docker_allows_more_address_families() {
        let native = Abi::native();
        let number = Index::find("socket").unwrap().number(native).unwrap();
        let differs = |family: &u64| {
            let docker = !matches!(family, 38 | 40);
            docker != (outcome(0, native, number, *family) == Action::ALLOW)
        };
        let differing: Vec<u64> = (0..48).filter(differs).collect();
        assert_eq!(differing, [12, 19, 20, 23, 25, 34, 37, 46, 47]);
    }

    #[test]
    fn the_program_is_short() {
        let length = compile(&rules(0)).unwrap().len();
        assert!(length < 300, "{length}");
    }
}
