//! What a filter is to do: a default, and rules for system calls.

use super::abi::Abi;
use super::syscalls::Index;

/// What the kernel does about a call: a return value of seccomp(2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Action(pub u32);

impl Action {
    /// SECCOMP_RET_KILL_THREAD
    pub const KILL_THREAD: Self = Self(0);
    /// SECCOMP_RET_KILL_PROCESS
    pub const KILL_PROCESS: Self = Self(0x8000_0000);
    /// SECCOMP_RET_TRAP
    pub const TRAP: Self = Self(0x0003_0000);
    /// SECCOMP_RET_LOG
    pub const LOG: Self = Self(0x7FFC_0000);
    /// SECCOMP_RET_ALLOW
    pub const ALLOW: Self = Self(0x7FFF_0000);

    /// SECCOMP_RET_ERRNO
    pub const fn errno(errno: u16) -> Self {
        Self(0x0005_0000 | errno as u32)
    }

    /// SECCOMP_RET_TRACE
    pub const fn trace(message: u16) -> Self {
        Self(0x7FF0_0000 | message as u32)
    }

    /// Whether the call takes place, by this filter alone.
    pub fn is_permissive(self) -> bool {
        self.0 >= 0x7FF0_0000
    }
}

/// A comparison of an argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub argument: u8,
    /// How.
    pub operator: Operator,
    /// With what.
    pub value: u64,
}

/// SCMP_CMP of seccomp_rule_add(3).
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
    /// `==`, of the bits in this mask.
    MaskedEqual(u64),
}

/// What to do about some calls.
#[derive(Clone, Debug)]
pub struct Rule<'a> {
    /// Which calls.
    pub calls: &'a [Index],
    /// What to do.
    pub action: Action,
    /// If all of these hold.
    pub conditions: &'a [Condition],
}

/// A whole filter.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// The ABIs whose calls the rules decide about.
    pub abis: &'a [Abi],
    /// What to do about calls of other ABIs.
    pub foreign: Action,
    /// What to do about calls that no rule is for.
    pub default: Action,
    /// The rules. One without conditions makes those with conditions for the same call void; of
    /// several with conditions the first that holds counts.
    pub rules: Vec<Rule<'a>>,
}

/// ENOSYS, which C libraries take for an older kernel.
pub const ENOSYS: u16 = 38;

impl Rules<'_> {
    /// Whether calls with numbers past those that the rules know give ENOSYS, as in runc: programs try
    /// new calls and have a way without them, which EPERM would keep them from.
    pub fn newer_is_enosys(&self) -> bool {
        !self.default.is_permissive() && self.default != Action::errno(ENOSYS)
    }
}
