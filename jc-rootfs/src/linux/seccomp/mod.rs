//! The seccomp filter of the payload (seccomp(2)).

use std::borrow::Cow;
use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;

use jc_unshare::hints::kernel_version;
use jc_unshare::{Context, Error, Result, read_at_most};
use nix::libc::{BPF_MAXINSNS, SECCOMP_FILTER_FLAG_NEW_LISTENER, sock_filter};
use serde_json::{Map, Value};

mod built;
mod compiler;
mod listener;
mod profile;

pub use built::TABLE;
pub use compiler::abi::{ABIS, Abi, X32_BIT};
#[cfg(test)]
pub use compiler::bpf::{Instruction, run};
use compiler::compile::compile;
pub use compiler::default;
pub use compiler::rules::{Action, Condition, Operator, Rule, Rules};
pub use compiler::syscalls::{Call, find};
pub use listener::Listener;
use listener::{Agent, Connection};
use profile::{Machine, Profile};

use crate::linux::sys;

/// The size limit of a profile in bytes. Docker's profile has 16,000.
const MAX_FILE: u64 = 1 << 20;

/// The value of `--seccomp`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seccomp {
    /// The payload has no filter.
    Unconfined,
    /// The profile of this program.
    Default,
    /// The path of a profile in JSON.
    File(PathBuf),
    /// A profile in JSON.
    Text(String),
}

impl FromStr for Seccomp {
    type Err = Infallible;

    fn from_str(word: &str) -> std::result::Result<Self, Infallible> {
        Ok(match word {
            "unconfined" => Self::Unconfined,
            "default" => Self::Default,
            _ if word.starts_with('{') => Self::Text(word.to_owned()),
            _ => Self::File(word.into()),
        })
    }
}

/// A filter in the form that the kernel takes.
pub struct Filter {
    program: Cow<'static, [sock_filter]>,
    flags: u64,
    agent: Option<Agent>,
    connection: Option<Connection>,
}

impl Seccomp {
    /// The filter for a payload with these capabilities, a bit each. `None`: no filter. A profile that is too
    /// long, and one that this program cannot apply in full, are errors.
    pub fn filter(&self, capabilities: u64) -> Result<Option<Filter>> {
        let (text, shown) = match self {
            Self::Unconfined => return Ok(None),
            Self::Default => return Filter::default_for(capabilities).map(Some),
            Self::File(path) => {
                let text = read_at_most(File::open(path).on("read", path)?, MAX_FILE, path)?;
                (text, path.display().to_string())
            }
            Self::Text(text) => (text.as_bytes().to_vec(), "profile".to_owned()),
        };
        let release = rustix::system::uname();
        let release = release.release().to_string_lossy();
        let kernel =
            kernel_version(&release).ok_or_else(|| Error::new(format_args!("uname: {release}")))?;
        let filter = parse(&text, capabilities, kernel);
        filter.map(Some).map_err(|e| e.context(format_args!("seccomp {shown}")))
    }
}

/// Compiles the filter of a profile in JSON, for a payload with these capabilities and a version and patch level
/// of the kernel. Malformed text, and names that this program or the kernel lacks, are errors.
pub fn parse(text: &[u8], capabilities: u64, kernel: (u32, u32)) -> Result<Filter> {
    let profile = Profile::parse(text, &Machine { capabilities, kernel })?;
    let filter = Filter::new(&profile.rules, profile.flags)?;
    Ok(Filter { agent: profile.agent, ..filter })
}

impl Filter {
    fn new(rules: &Rules<'_>, flags: u64) -> Result<Self> {
        let program = Self::compiled(rules)?.into();
        Ok(Self { program, flags, agent: None, connection: None })
    }

    /// Compiles rules to a program that the kernel takes.
    pub fn compiled(rules: &Rules<'_>) -> Result<Vec<sock_filter>> {
        let program = compile(rules);
        if program.len() > BPF_MAXINSNS as usize {
            return Err(Error::new(format_args!(
                "seccomp: the filter has {} instructions, the kernel takes {BPF_MAXINSNS}",
                program.len()
            )));
        }
        let for_kernel = program.iter().map(|i| sock_filter {
            code: i.code,
            jt: i.jump_true,
            jf: i.jump_false,
            k: i.operand,
        });
        Ok(for_kernel.collect())
    }

    /// Whether an agent decides about calls. A second listener fails with EBUSY.
    pub fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// The filter of the default profile. The build script has compiled the one for the default capabilities.
    fn default_for(capabilities: u64) -> Result<Self> {
        if capabilities & built::RELEVANT == built::CAPABILITIES {
            let program = Cow::Borrowed(&built::DEFAULT[..]);
            return Ok(Self { program, flags: 0, agent: None, connection: None });
        }
        Self::new(&default::rules(&built::TABLE, Abi::native(), capabilities), 0)
    }

    /// Connects to the agent of the profile, if the profile has one. `state` gives the state of the container.
    pub fn connect(&mut self, state: impl FnOnce() -> Option<Map<String, Value>>) -> Result<()> {
        self.connection = self.agent.as_ref().map(|agent| agent.connect(state())).transpose()?;
        Ok(())
    }

    /// Applies the filter to this process, and gives its listener if an agent waits for that. EACCES: this process has
    /// neither CAP_SYS_ADMIN nor no_new_privs.
    pub fn install(self) -> Result<Option<Listener>> {
        let listener = if self.connection.is_some() { SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
        let listener = sys::seccomp_filter(&self.program, self.flags | listener)
            .op("seccomp")
            .map_err(|e| e.hint("a filter needs CAP_SYS_ADMIN or --no-new-privs"))?;
        let both = self.connection.zip(listener);
        Ok(both.map(|(connection, listener)| Listener { connection, listener }))
    }
}

#[cfg(test)]
mod tests {
    use super::built::{CAPABILITIES, DEFAULT, TABLE};
    use super::compiler::abi::X32_BIT;
    use super::compiler::bpf::{Instruction, run};
    use super::compiler::rules::Action;
    use super::compiler::syscalls::ARM_BASE;
    use super::*;

    fn instructions(filter: &[sock_filter]) -> Vec<Instruction> {
        let instruction = |f: &sock_filter| Instruction {
            code: f.code,
            jump_true: f.jt,
            jump_false: f.jf,
            operand: f.k,
        };
        filter.iter().map(instruction).collect()
    }

    /// Decides as the profile in words says, from one rule after the other.
    fn decide(rules: &Rules<'_>, abi: Abi, number: u32, arguments: [u64; 6]) -> Action {
        use super::compiler::rules::{ENOSYS, Operator};
        if !rules.abis.contains(&abi) {
            return rules.foreign;
        }
        let numbers = || {
            let calls = rules.rules.iter().flat_map(|rule| &rule.calls);
            calls.filter_map(|call| call.number(abi)).filter(|number| *number < ARM_BASE)
        };
        let is_private = abi == Abi::Arm && number >= ARM_BASE;
        if numbers().all(|known| known < number) && !is_private {
            return Action::errno(ENOSYS);
        }
        let of_call = || {
            let has = |call: &&super::compiler::syscalls::Call| call.number(abi) == Some(number);
            rules.rules.iter().filter(move |rule| rule.calls.iter().any(&has))
        };
        if let Some(rule) = of_call().find(|rule| rule.conditions.is_empty()) {
            return rule.action;
        }
        let holds = of_call().find(|rule| {
            rule.conditions.iter().all(|condition| {
                let width = if abi.is_wide() { u64::MAX } else { u32::MAX.into() };
                let argument = arguments[usize::from(condition.argument)] & width;
                match condition.operator {
                    Operator::Equal => argument == condition.value,
                    Operator::Less => argument < condition.value,
                    Operator::MaskedEqual(mask) => argument & mask == condition.value,
                    other => panic!("{other:?} is not in the default profile"),
                }
            })
        });
        holds.map_or(rules.default, |rule| rule.action)
    }

    #[test]
    fn the_filter_of_the_build_decides_as_its_rules_and_as_a_filter_compiled_at_run_time() {
        let native = Abi::native();
        let rules = default::rules(&TABLE, native, CAPABILITIES);
        let (built, compiled) = (instructions(&DEFAULT), compile(&rules));
        assert_eq!(built, compiled);
        let bits = (0..64).map(|bit| 1 << bit);
        let values: Vec<u64> = (0..64)
            .chain(bits.clone())
            .chain(bits.map(|bit| bit | 0x11))
            .chain([0x2_0008, 0xFFFF_FFFE, 0xFFFF_FFFF, u64::MAX])
            .collect();
        let conditional = ["clone", "clone3", "personality", "socket", "socketcall", "ipc"];
        for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64, Abi::Arm] {
            let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
            let arch = abi.audit_arch();
            let numbers = (0..700).chain(ARM_BASE..ARM_BASE + 16).chain([X32_BIT - 1]);
            for number in numbers {
                let expected = decide(&rules, abi, number, [0; 6]);
                let found = run(&built, number | bit, arch, [0; 6]);
                assert_eq!(Action(found), expected, "{abi:?} {number}");
            }
            for call in TABLE.iter().filter(|call| conditional.contains(&call.name)) {
                let Some(number) = call.number(abi) else { continue };
                for (argument, value) in (0..6).flat_map(|n| values.iter().map(move |v| (n, *v))) {
                    let mut arguments = [0; 6];
                    arguments[argument] = value;
                    let expected = decide(&rules, abi, number, arguments);
                    let found = run(&built, number | bit, arch, arguments);
                    assert_eq!(Action(found), expected, "{abi:?} {} {arguments:x?}", call.name);
                }
            }
        }
    }

    #[test]
    fn the_filter_of_the_build_serves_only_capabilities_with_the_same_rules() {
        let rules = |capabilities| compile(&default::rules(&TABLE, Abi::native(), capabilities));
        let program =
            |capabilities| instructions(&Filter::default_for(capabilities).unwrap().program);
        for number in 0..u64::BITS {
            for set in [1 << number, CAPABILITIES ^ 1 << number, u64::MAX ^ 1 << number] {
                assert_eq!(program(set), rules(set), "{set:#x}");
            }
        }
        let (jc_run, chroot) = (0x8004_05FB, 1 << 18);
        let is_built = |set| matches!(Filter::default_for(set).unwrap().program, Cow::Borrowed(_));
        assert!(is_built(jc_run));
        assert!(!is_built(jc_run & !chroot));
    }
}
