//! The input of the compiler: a default action, and rules for system calls.

use super::abi::Abi;
use super::syscalls::Call;

/// The action of the kernel at a call: a return value of a filter (seccomp(2)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Action(pub u32);

impl Action {
    /// SECCOMP_RET_KILL_THREAD: SIGSYS kills the thread.
    pub const KILL_THREAD: Self = Self(0);
    /// SECCOMP_RET_KILL_PROCESS: SIGSYS kills the process.
    pub const KILL_PROCESS: Self = Self(0x8000_0000);
    /// SECCOMP_RET_TRAP: the thread gets SIGSYS.
    pub const TRAP: Self = Self(0x0003_0000);
    /// SECCOMP_RET_USER_NOTIF: an agent decides about the call.
    pub const NOTIFY: Self = Self(0x7FC0_0000);
    /// SECCOMP_RET_LOG: the kernel logs and makes the call.
    pub const LOG: Self = Self(0x7FFC_0000);
    /// SECCOMP_RET_ALLOW: the kernel makes the call.
    pub const ALLOW: Self = Self(0x7FFF_0000);

    /// SECCOMP_RET_ERRNO: the call fails with this errno.
    pub const fn errno(errno: u16) -> Self {
        Self(0x0005_0000 | errno as u32)
    }

    /// SECCOMP_RET_TRACE: a tracer gets the message.
    pub const fn trace(message: u16) -> Self {
        Self(0x7FF0_0000 | message as u32)
    }

    /// Whether the kernel makes the call, unless another filter forbids that.
    pub fn is_permissive(self) -> bool {
        self.0 >= 0x7FF0_0000
    }
}

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Condition {
    /// The index of the argument, from 0 to 5.
    pub argument: u8,
    /// The comparison of argument and value.
    pub operator: Operator,
    /// The value to compare with.
    pub value: u64,
}

/// A comparison, one of SCMP_CMP of seccomp_rule_add(3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operator {
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `==`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `==`, after a bitwise and of the argument with this mask.
    MaskedEqual(u64),
}

/// The action for some calls.
#[derive(Clone, Debug)]
pub struct Rule<'a> {
    /// The calls of all ABIs.
    pub calls: Vec<&'a Call>,
    /// The action of the kernel.
    pub action: Action,
    /// The conditions, all of which must hold.
    pub conditions: Vec<Condition>,
}

/// The rules of a whole filter.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// The ABIs whose calls the rules decide about.
    pub abis: Vec<Abi>,
    /// The action for calls of other ABIs.
    pub foreign: Action,
    /// The action for calls without a rule.
    pub default: Action,
    /// The rules. A rule without conditions voids the rules with conditions for the same call. Of several
    /// rules with conditions, the first that holds counts.
    pub rules: Vec<Rule<'a>>,
}

/// ENOSYS: C libraries then behave as on an older kernel.
pub const ENOSYS: u16 = 38;

impl Rules<'_> {
    /// Whether calls with numbers past the known ones fail with ENOSYS, as in runc: programs try new calls
    /// and fall back on ENOSYS, but not on EPERM. The filter of a recorder notifies all calls that it does not know.
    pub fn newer_is_enosys(&self) -> bool {
        let is_recorder = self.foreign == Action::NOTIFY;
        !self.default.is_permissive() && self.default != Action::errno(ENOSYS) && !is_recorder
    }
}
