//! The `default` profile: Docker's (moby/profiles, seccomp/default.json), with the differences that
//! `DIFFERENCES` in the tests below lists. A call that the profile lacks administers the machine, is
//! new attack surface, or has been a way out of containers.

use super::abi::Abi;
use super::rules::{Action, Condition, ENOSYS, Operator, Rule, Rules};
use super::syscalls::{Call, find};

/// The bit of [`Call::allowed_by`] for a call that needs no capability.
pub const ALWAYS: u64 = 1 << 63;

/// The CLONE_NEW* flags of clone(2), all but the one of time namespaces, which only clone3(2) has.
const NAMESPACES: u64 = 0x7E02_0000;

/// The personalities of Linux and Linux32, with or without UNAME26, and the query.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF];

/// Address families before this one are allowed.
const FIRST_NEW_FAMILY: u64 = 12;

/// Later address families that are allowed. The list lacks AF_ALG and AF_VSOCK, which Docker's profile denies as
/// ways into the host, families of the host's hardware, and families that kernels do not have.
const NEW_FAMILIES: [u64; 25] = [
    13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44,
    45,
];

/// Requests of ioctl(2) that type into a terminal: TIOCSTI (ioctl_tty(2)), and TIOCLINUX (ioctl_console(2)), which
/// pastes. Without `-t` a payload shares a terminal with the shell of its caller (CVE-2017-5226).
const TYPING: [u64; 2] = [0x5412, 0x541C];

/// EIO: the kernel's answer to TIOCSTI where the sysctl `dev.tty.legacy_tiocsti` is 0.
const EIO: u16 = 5;

/// The rules on a machine with this native ABI for a payload with these capabilities, a bit each. `table` has
/// all system calls.
pub fn rules(table: &[Call], native: Abi, capabilities: u64) -> Rules<'_> {
    let rule = |calls, action, condition: Option<Condition>| Rule {
        calls,
        action,
        conditions: condition.into_iter().collect(),
    };
    let named = |name: &str| Vec::from_iter(find(table, name));
    let allow_if = |name: &str, operator, value| {
        rule(named(name), Action::ALLOW, Some(Condition { argument: 0, operator, value }))
    };
    let deny = |name: &str| rule(named(name), Action::errno(ENOSYS), None);
    let abis = match native {
        Abi::Aarch64 => vec![Abi::Aarch64, Abi::Arm],
        // x32 is off in nearly every kernel, and its calls have had holes of their own (CVE-2014-0038).
        _ => vec![Abi::X86_64, Abi::X86],
    };

    let is_allowed = |call: &&Call| call.allowed_by & (capabilities | ALWAYS) != 0;
    let mut rules = vec![rule(table.iter().filter(is_allowed).collect(), Action::ALLOW, None)];
    if find(table, "clone").is_none_or(|call| !is_allowed(&call)) {
        rules.push(allow_if("clone", Operator::MaskedEqual(NAMESPACES), 0));
        // The flags of clone3(2) are in memory, which a filter cannot read. C libraries then use clone(2).
        rules.push(deny("clone3"));
    }
    // socketcall(2) of x86 reads the address family from memory, which a filter cannot read
    // (CVE-2026-31431). Programs then make the separate calls, which Linux 4.3 added to x86.
    rules.push(deny("socketcall"));
    rules.push(allow_if("socket", Operator::Less, FIRST_NEW_FAMILY));
    rules.extend(NEW_FAMILIES.map(|family| allow_if("socket", Operator::Equal, family)));
    rules.extend(ioctl(table));
    rules.extend(PERSONALITIES.map(|value| allow_if("personality", Operator::Equal, value)));
    Rules { abis, foreign: Action::errno(ENOSYS), default: Action::errno(1), rules }
}

/// The rules of ioctl(2). The kernel reads 32 bits of the request.
fn ioctl(table: &[Call]) -> impl Iterator<Item = Rule<'_>> {
    let masked =
        |mask, value| Condition { argument: 1, operator: Operator::MaskedEqual(mask), value };
    let typing = TYPING.map(|request| (Action::errno(EIO), masked(u32::MAX.into(), request)));
    let rules = typing.into_iter().chain([(Action::ALLOW, masked(0, 0))]);
    rules.map(|(action, condition)| Rule {
        calls: find(table, "ioctl").into_iter().collect(),
        action,
        conditions: vec![condition],
    })
}

#[cfg(test)]
mod tests {
    use super::super::bpf::{Instruction, run};
    use super::super::compile;
    use super::*;
    use crate::linux::seccomp::built::TABLE;
    use jc_unshare::capability::{BPF, SYS_ADMIN};

    fn compiled(capabilities: u64) -> Vec<Instruction> {
        compile::compile(&rules(&TABLE, Abi::native(), capabilities))
    }

    fn number(name: &str, abi: Abi) -> u32 {
        find(&TABLE, name).unwrap().number(abi).unwrap()
    }

    #[test]
    fn a_capability_allows_its_calls() {
        let native = Abi::native();
        for (name, first, capabilities, expected) in [
            ("read", 0, 0, Action::ALLOW),
            ("mount", 0, 0, Action::errno(1)),
            ("mount", 0, 1 << SYS_ADMIN, Action::ALLOW),
            ("clone", 0x1_0011, 0, Action::ALLOW),
            ("clone", 0x1000_0000, 0, Action::errno(1)),
            ("clone", 0x1000_0000, 1 << SYS_ADMIN, Action::ALLOW),
            ("clone3", 0, 0, Action::errno(ENOSYS)),
            ("clone3", 0, 1 << SYS_ADMIN, Action::ALLOW),
            ("socket", 2, 0, Action::ALLOW),
            ("socket", 16, 0, Action::ALLOW),
            ("socket", 38, u64::MAX, Action::errno(1)),
            ("socket", 40, u64::MAX, Action::errno(1)),
            ("personality", 8, 0, Action::ALLOW),
            ("personality", 0x40000, 0, Action::errno(1)),
            ("io_uring_setup", 0, u64::MAX, Action::errno(1)),
            ("keyctl", 0, u64::MAX, Action::errno(1)),
            ("bpf", 0, 1 << BPF, Action::ALLOW),
            ("ptrace", 0, 0, Action::ALLOW),
        ] {
            let program = compiled(capabilities);
            let found =
                run(&program, number(name, native), native.audit_arch(), [first, 0, 0, 0, 0, 0]);
            assert_eq!(Action(found), expected, "{name} {first:#x} {capabilities:#x}");
        }
    }

    /// The action of the filter at a call with this first argument.
    fn outcome(capabilities: u64, abi: Abi, number: u32, first: u64) -> Action {
        let program = compiled(capabilities);
        Action(run(&program, number, abi.audit_arch(), [first, 0, 0, 0, 0, 0]))
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn no_abi_of_x86_has_a_socket_of_a_denied_family() {
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

    #[test]
    fn no_request_of_ioctl_types_into_a_terminal() {
        let abis = match Abi::native() {
            Abi::Aarch64 => [Abi::Aarch64, Abi::Arm],
            _ => [Abi::X86_64, Abi::X86],
        };
        let program = compiled(u64::MAX);
        for (abi, upper) in abis.into_iter().flat_map(|abi| [0, 1, 0xFFFF_FFFF].map(|u| (abi, u))) {
            let outcome = |request: u64| {
                let arguments = [0, upper << 32 | request, 0, 0, 0, 0];
                Action(run(&program, number("ioctl", abi), abi.audit_arch(), arguments))
            };
            assert_eq!([0x5412, 0x541C].map(outcome), [Action::errno(EIO); 2], "{abi:?}");
            assert_eq!([0x5401, 0x5413, 0].map(outcome), [Action::ALLOW; 3], "{abi:?}");
        }
    }

    /// Calls that another profile always allows and this one does not, or the reverse, with the reason.
    type Differences = &'static [(&'static str, &'static str)];

    const DOCKER_ALLOWS: Differences = &[
        ("socketcall", "it hides the address family; Docker leaves AF_ALG to AppArmor and SELinux"),
        (
            "ioctl",
            "TIOCSTI and TIOCLINUX type for the caller of a payload that shares its terminal",
        ),
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
        (
            "ioctl",
            "TIOCSTI and TIOCLINUX type for the caller of a payload that shares its terminal",
        ),
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
        let split = |list: Differences| list.iter().flat_map(|(calls, _)| calls.split_whitespace());
        let lacks: Vec<&str> = split(lacks).collect();
        let ours = include_str!("../../../../build/default.tbl").lines();
        let ours = ours.filter(|line| !line.starts_with('#'));
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
        let number = number("socket", native);
        let differs = |family: &u64| {
            let docker = !matches!(family, 38 | 40);
            docker != (outcome(0, native, number, *family) == Action::ALLOW)
        };
        let differing: Vec<u64> = (0..48).filter(differs).collect();
        assert_eq!(differing, [12, 19, 20, 23, 25, 34, 37, 46, 47]);
    }

    #[test]
    fn the_program_is_short() {
        let length = compiled(0).len();
        assert!(length < 300, "{length}");
    }
}
