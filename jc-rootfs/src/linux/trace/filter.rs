//! The filter that notifies the recorder.

use jc_unshare::Result;
use nix::libc::{MSG_NOSIGNAL, sock_filter};

use super::super::seccomp::{Abi, Action, Condition, Filter, Operator, Rule, Rules, TABLE, find};
use super::calls::{LINKS, frequent};

/// The CLONE_NEW* flags of clone(2).
pub const NAMESPACES: u64 = 0x7E02_0000;

/// AT_EMPTY_PATH: the call is about the descriptor.
const EMPTY_PATH: u64 = 0x1000;

/// The sign of a descriptor, which AT_FDCWD has.
const SIGN: u64 = 0x8000_0000;

/// The option PR_SET_NAME of prctl(2): the name of a thread.
pub const SET_NAME: u64 = 15;

/// The option ARCH_SET_FS of arch_prctl(2): thread-local storage.
const SET_FS: u64 = 0x1002;

/// Requests of ioctl(2) that every program may make: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX and FIOCLEX.
pub const COMMON_REQUESTS: [u64; 6] = [0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451];

/// The calls that are notified.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::Args)]
pub struct Watched {
    /// Record every system call; without it, frequent harmless calls count as used
    #[arg(long)]
    pub calls: bool,
    /// Record paths of readlink(2) too, which realpath(3) calls for each part of a path
    #[arg(long)]
    pub links: bool,
}

/// The filter of a recorder. The descriptor by which the listener is sent has this number: that sendmsg(2) is not
/// notified, as nobody could answer yet.
pub fn filter(watched: Watched, number: u64) -> Result<Vec<sock_filter>> {
    let abis = match Abi::native() {
        Abi::Aarch64 => vec![Abi::Aarch64, Abi::Arm],
        _ => vec![Abi::X86_64, Abi::X86, Abi::X32],
    };
    let allow = |names: &[&str], conditions: Vec<Condition>| Rule {
        calls: names.iter().filter_map(|name| find(&TABLE, name)).collect(),
        action: Action::ALLOW,
        conditions,
    };
    let masked = |argument, mask, value| Condition {
        argument,
        operator: Operator::MaskedEqual(mask),
        value,
    };
    let whole = u64::from(u32::MAX);
    let mut rules = Vec::new();
    if watched.calls {
        let conditions = vec![masked(0, whole, number), masked(2, whole, MSG_NOSIGNAL as u64)];
        rules.push(allow(&["sendmsg"], conditions));
    } else {
        rules.push(allow(&frequent().collect::<Vec<_>>(), Vec::new()));
        rules.push(allow(
            &["newfstatat", "fstatat64"],
            vec![masked(0, SIGN, 0), masked(3, EMPTY_PATH, EMPTY_PATH)],
        ));
        rules.push(allow(&["statx"], vec![masked(0, SIGN, 0), masked(2, EMPTY_PATH, EMPTY_PATH)]));
        rules.push(allow(&["clone"], vec![masked(0, NAMESPACES, 0)]));
        // Without an address the socket is connected.
        rules.push(allow(&["sendto"], vec![masked(4, u64::MAX, 0)]));
        rules.push(allow(&["prctl"], vec![masked(0, whole, SET_NAME)]));
        rules.push(allow(&["arch_prctl"], vec![masked(0, whole, SET_FS)]));
        // The limits of the caller.
        rules.push(allow(&["prlimit64"], vec![masked(0, whole, 0)]));
        let requests = COMMON_REQUESTS.iter();
        rules.extend(requests.map(|request| allow(&["ioctl"], vec![masked(1, whole, *request)])));
        if !watched.links {
            rules.push(allow(&LINKS, Vec::new()));
        }
    }
    let notify = Action::NOTIFY;
    Filter::compiled(&Rules { abis, foreign: notify, default: notify, rules })
}

#[cfg(test)]
mod tests {
    use super::super::super::seccomp::{Instruction, run};
    use super::*;

    fn outcome(filter: &[sock_filter], name: &str, arguments: [u64; 6]) -> Action {
        let program: Vec<Instruction> = filter
            .iter()
            .map(|f| Instruction { code: f.code, jump_true: f.jt, jump_false: f.jf, operand: f.k })
            .collect();
        let native = Abi::native();
        let number = find(&TABLE, name).unwrap().number(native).unwrap();
        Action(run(&program, number, native.audit_arch(), arguments))
    }

    #[test]
    fn frequent_calls_are_not_notified() {
        let few = filter(Watched::default(), 9).unwrap();
        let all = filter(Watched { calls: true, links: false }, 9).unwrap();
        let at_fdcwd = u64::from(u32::MAX - 99);
        let signal = MSG_NOSIGNAL as u64;
        for (name, arguments, in_few, in_all) in [
            ("read", [0; 6], false, true),
            ("openat", [0; 6], true, true),
            ("newfstatat", [3, 0, 0, EMPTY_PATH, 0, 0], false, true),
            ("newfstatat", [at_fdcwd, 0, 0, EMPTY_PATH, 0, 0], true, true),
            ("newfstatat", [3, 0, 0, 0, 0, 0], true, true),
            ("clone", [0x120_0011, 0, 0, 0, 0, 0], false, true),
            ("clone", [0x1000_0011, 0, 0, 0, 0, 0], true, true),
            ("sendto", [3, 0, 0, 0, 0, 0], false, true),
            ("sendto", [3, 0, 0, 0, 0x7000, 16], true, true),
            ("prlimit64", [0, 7, 0, 0, 0, 0], false, true),
            ("prlimit64", [1, 7, 0, 0, 0, 0], true, true),
            ("ioctl", [0, 0x5401, 0, 0, 0, 0], false, true),
            ("ioctl", [0, 0x5412, 0, 0, 0, 0], true, true),
            ("keyctl", [0; 6], true, true),
            ("readlinkat", [0; 6], false, true),
            ("sendmsg", [9, 0, signal, 0, 0, 0], false, false),
            ("sendmsg", [8, 0, signal, 0, 0, 0], false, true),
        ] {
            let expected = |notified| if notified { Action::NOTIFY } else { Action::ALLOW };
            assert_eq!(outcome(&few, name, arguments), expected(in_few), "{name} {arguments:x?}");
            assert_eq!(outcome(&all, name, arguments), expected(in_all), "{name} {arguments:x?}");
        }
        let links = filter(Watched { calls: false, links: true }, 9).unwrap();
        assert_eq!(outcome(&links, "readlinkat", [0; 6]), Action::NOTIFY);
    }

    #[test]
    fn calls_that_the_table_lacks_are_notified() {
        let few = filter(Watched::default(), 9).unwrap();
        let program: Vec<Instruction> = few
            .iter()
            .map(|f| Instruction { code: f.code, jump_true: f.jt, jump_false: f.jf, operand: f.k })
            .collect();
        for (number, arch) in [(4000, Abi::native().audit_arch()), (3, Abi::Arm.audit_arch() + 1)] {
            assert_eq!(Action(run(&program, number, arch, [0; 6])), Action::NOTIFY, "{number}");
        }
    }
}
