//! Profiles in Docker's JSON: the format of the OCI (runtime-spec config-linux.md, "Seccomp"), with rules that
//! depend on capabilities, architecture and kernel.

use jc_unshare::hints::kernel_version;
use jc_unshare::{Error, Result, capability};
use serde::Deserialize;

use super::built::TABLE;
use super::compiler::abi::Abi;
use super::compiler::rules::{Action, Condition, Operator, Rule, Rules};
use super::compiler::syscalls::find;
use super::listener::Agent;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    /// The name of `default_errno_ret`. The name has no effect.
    default_errno: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<Architecture>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    errno: Option<String>,
    args: Option<Vec<Argument>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// The properties of a machine on which rules depend.
pub struct Machine {
    /// The capabilities of the payload, a bit each.
    pub capabilities: u64,
    /// The version and patch level of the kernel.
    pub kernel: (u32, u32),
}

/// A profile for one machine.
#[derive(Debug)]
pub struct Profile {
    /// The rules that apply on the machine.
    pub rules: Rules<'static>,
    /// The flags for seccomp(2).
    pub flags: u64,
    /// The agent that decides about calls with SCMP_ACT_NOTIFY.
    pub agent: Option<Agent>,
}

impl Profile {
    /// Parses a profile. Malformed text and features that this program lacks are errors.
    pub fn parse(text: &[u8], machine: &Machine) -> Result<Self> {
        let file: File = serde_json::from_slice(text).map_err(Error::new)?;
        require_number(file.default_errno.as_ref(), file.default_errno_ret)?;
        let default = action(&file.default_action, file.default_errno_ret)?;
        let mut rules = Vec::new();
        for entry in file.syscalls.iter().flatten() {
            if entry.applies(machine)? {
                entry.rules(default, &mut rules)?;
            }
        }
        let notifies = rules.iter().any(|rule: &Rule<'_>| rule.action == Action::NOTIFY);
        let agent = file.agent(notifies || default == Action::NOTIFY)?;
        let rules = Rules { abis: file.abis()?, foreign: Action::KILL_PROCESS, default, rules };
        Ok(Self { rules, flags: file.flags()?, agent })
    }
}

impl File {
    /// The ABIs that the profile names or that its map lists for the native ABI, and the native ABI.
    fn abis(&self) -> Result<Vec<Abi>> {
        let native = Abi::native();
        let named = self.architectures.as_deref().unwrap_or_default();
        let map = self.arch_map.as_deref().unwrap_or_default();
        if !named.is_empty() && !map.is_empty() {
            return Err(Error::new("both architectures and archMap"));
        }
        let mut abis: Vec<Abi> = named.iter().filter_map(|name| Abi::by_name(name)).collect();
        for entry in map.iter().filter(|entry| Abi::by_name(&entry.architecture) == Some(native)) {
            let subs = entry.sub_architectures.as_deref().unwrap_or_default();
            abis.extend(subs.iter().filter_map(|name| Abi::by_name(name)));
        }
        // Without the native ABI the payload could not make its first call.
        abis.push(native);
        let mut unique = Vec::new();
        abis.into_iter().for_each(|abi| {
            if !unique.contains(&abi) {
                unique.push(abi)
            }
        });
        Ok(unique)
    }

    /// The agent of `listenerPath`, which calls with SCMP_ACT_NOTIFY need.
    fn agent(&self, is_needed: bool) -> Result<Option<Agent>> {
        let metadata = self.listener_metadata.clone().filter(|text| !text.is_empty());
        match self.listener_path.as_deref().filter(|path| !path.is_empty()) {
            None if is_needed => Err(Error::new("SCMP_ACT_NOTIFY: needs a listenerPath")),
            None if metadata.is_some() => Err(Error::new("listenerMetadata: needs a listenerPath")),
            Some(path) => Ok(Some(Agent { path: path.into(), metadata })),
            None => Ok(None),
        }
    }

    fn flags(&self) -> Result<u64> {
        self.flags.iter().flatten().try_fold(0, |flags, name| match name.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => Ok(flags | 1),
            "SECCOMP_FILTER_FLAG_LOG" => Ok(flags | 1 << 1),
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(flags | 1 << 2),
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(flags | 1 << 5),
            _ => Err(Error::new(format_args!("flag {name}: not supported"))),
        })
    }
}

impl Entry {
    fn applies(&self, machine: &Machine) -> Result<bool> {
        let none = Filter::default();
        let includes = self.includes.as_ref().unwrap_or(&none);
        let excludes = self.excludes.as_ref().unwrap_or(&none);
        let has = |name: &String| {
            capability::number(name).is_some_and(|n| machine.capabilities >> n & 1 == 1)
        };
        let here = |name: &String| name == Abi::native_name();
        let arches = includes.arches.as_deref().unwrap_or_default();
        Ok(includes.caps.iter().flatten().all(has)
            && (arches.is_empty() || arches.iter().any(here))
            && includes.kernel()?.is_none_or(|least| machine.kernel >= least)
            && !excludes.caps.iter().flatten().any(has)
            && !excludes.arches.iter().flatten().any(here)
            && excludes.kernel()?.is_none_or(|least| machine.kernel < least))
    }

    fn rules(&self, default: Action, rules: &mut Vec<Rule<'static>>) -> Result<()> {
        require_number(self.errno.as_ref(), self.errno_ret)?;
        let action = action(&self.action, self.errno_ret)?;
        let names = match (&self.name, &self.names) {
            (Some(name), None) => std::slice::from_ref(name),
            (None, Some(names)) => names.as_slice(),
            _ => return Err(Error::new("a rule needs one of name and names")),
        };
        let mut calls = Vec::with_capacity(names.len());
        for name in names {
            match find(&TABLE, name) {
                Some(call) => calls.push(call),
                // Another machine or a later kernel may have the call. If the default action allows calls, a
                // later kernel would allow this one.
                None if default.is_permissive() => {
                    return Err(Error::new(format_args!("unknown system call {name}")));
                }
                None => {}
            }
        }
        let conditions: Result<Vec<_>> =
            self.args.iter().flatten().map(Argument::condition).collect();
        let conditions = conditions?;
        let twice = |c: &Condition| {
            conditions.iter().filter(|other| other.argument == c.argument).count() > 1
        };
        if conditions.iter().any(twice) {
            // If an argument occurs twice, one condition is enough, as in runc and crun.
            let each = |c: &Condition| Rule { calls: calls.clone(), action, conditions: vec![*c] };
            rules.extend(conditions.iter().map(each));
        } else {
            rules.push(Rule { calls, action, conditions });
        }
        Ok(())
    }
}

impl Argument {
    fn condition(&self) -> Result<Condition> {
        if self.index > 5 {
            return Err(Error::new(format_args!("no argument {}", self.index)));
        }
        let (operator, value) = match self.op.as_str() {
            "SCMP_CMP_NE" => (Operator::NotEqual, self.value),
            "SCMP_CMP_LT" => (Operator::Less, self.value),
            "SCMP_CMP_LE" => (Operator::LessOrEqual, self.value),
            "SCMP_CMP_EQ" => (Operator::Equal, self.value),
            "SCMP_CMP_GE" => (Operator::GreaterOrEqual, self.value),
            "SCMP_CMP_GT" => (Operator::Greater, self.value),
            "SCMP_CMP_MASKED_EQ" => (Operator::MaskedEqual(self.value), self.value_two),
            op => return Err(Error::new(format_args!("no operator {op:?}"))),
        };
        Ok(Condition { argument: self.index, operator, value })
    }
}

impl Filter {
    /// The version and patch level of `minKernel`.
    fn kernel(&self) -> Result<Option<(u32, u32)>> {
        let Some(text) = &self.min_kernel else { return Ok(None) };
        let wrong = || Error::new(format_args!("minKernel {text:?}: not VERSION.PATCHLEVEL"));
        kernel_version(text).map(Some).ok_or_else(wrong)
    }
}

fn action(name: &str, errno: Option<u16>) -> Result<Action> {
    const EPERM: u16 = 1;
    const MAX_ERRNO: u16 = 4095;
    let number = errno.unwrap_or(EPERM);
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS,
        "SCMP_ACT_TRAP" => Action::TRAP,
        "SCMP_ACT_ERRNO" if number > MAX_ERRNO => {
            return Err(Error::new(format_args!("no errno {number}")));
        }
        "SCMP_ACT_ERRNO" => Action::errno(number),
        "SCMP_ACT_TRACE" => Action::trace(number),
        "SCMP_ACT_LOG" => Action::LOG,
        "SCMP_ACT_ALLOW" => Action::ALLOW,
        "SCMP_ACT_NOTIFY" => Action::NOTIFY,
        _ => return Err(Error::new(format_args!("no action {name:?}"))),
    })
}

/// Refuses the name of an errno without its number: the name alone has no effect.
fn require_number(name: Option<&String>, number: Option<u16>) -> Result<()> {
    match (name, number) {
        (Some(name), None) => Err(Error::new(format_args!("errno {name:?} without its number"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compiler::bpf::run;
    use super::super::compiler::compile::compile;
    use super::*;

    const KERNEL: (u32, u32) = (6, 1);

    fn parse(json: &str, capabilities: u64) -> Result<Profile> {
        Profile::parse(json.as_bytes(), &Machine { capabilities, kernel: KERNEL })
    }

    #[test]
    fn a_rule_applies_by_capability_architecture_and_kernel() {
        let (native, sys_admin) = (Abi::native(), 1 << 21);
        for (choice, capabilities, applies) in [
            ("", 0, true),
            (r#","includes":{"caps":["CAP_SYS_ADMIN"]}"#, 0, false),
            (r#","includes":{"caps":["CAP_SYS_ADMIN"]}"#, sys_admin, true),
            (r#","includes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#, sys_admin, false),
            (r#","excludes":{"caps":["CAP_SYS_ADMIN","CAP_BPF"]}"#, sys_admin, false),
            (r#","excludes":{"caps":["CAP_SYS_ADMIN"]}"#, 0, true),
            (r#","includes":{"arches":["amd64","arm64"]}"#, 0, true),
            (r#","includes":{"arches":["s390x"]}"#, 0, false),
            (r#","excludes":{"arches":["amd64","arm64"]}"#, 0, false),
            (r#","includes":{"minKernel":"4.8"}"#, 0, true),
            (r#","includes":{"minKernel":"6.1"}"#, 0, true),
            (r#","includes":{"minKernel":"6.2"}"#, 0, false),
            (r#","excludes":{"minKernel":"6.1"}"#, 0, false),
            (r#","includes":{"caps":[],"arches":null},"comment":"x""#, 0, true),
        ] {
            let json = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                    {{"names":["read","s390_runtime_instr"],"action":"SCMP_ACT_ALLOW"{choice}}}]}}"#
            );
            let profile = parse(&json, capabilities).unwrap();
            let program = compile(&profile.rules);
            let number = find(&TABLE, "read").unwrap().number(native).unwrap();
            let found = Action(run(&program, number, native.audit_arch(), [0; 6]));
            assert_eq!(found == Action::ALLOW, applies, "{choice}");
        }
    }

    #[test]
    fn an_unknown_action_operator_name_or_flag_is_an_error() {
        let actions = [
            ("SCMP_ACT_KILL", 0),
            ("SCMP_ACT_KILL_THREAD", 0),
            ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
            ("SCMP_ACT_TRAP", 0x0003_0000),
            ("SCMP_ACT_ERRNO", 0x0005_0005),
            ("SCMP_ACT_TRACE", 0x7FF0_0005),
            ("SCMP_ACT_LOG", 0x7FFC_0000),
            ("SCMP_ACT_ALLOW", 0x7FFF_0000),
        ];
        for (name, value) in actions {
            assert_eq!(action(name, Some(5)).unwrap(), Action(value), "{name}");
        }
        let call = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO","#;
        for (json, message) in [
            (r#"{"defaultAction":"SCMP_ACT_X"}"#.to_owned(), "no action \"SCMP_ACT_X\""),
            (
                r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.into(),
                "SCMP_ACT_NOTIFY: needs a listenerPath",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.into(),
                "no errno 4096",
            ),
            (format!("{call}\"names\":[\"reed\"]}}]}}"), "unknown system call reed"),
            (
                format!("{call}\"name\":\"read\",\"names\":[]}}]}}"),
                "a rule needs one of name and names",
            ),
            (
                format!("{call}\"name\":\"read\",\"errno\":\"EPERM\"}}]}}"),
                "errno \"EPERM\" without its number",
            ),
            (
                format!(
                    "{call}\"name\":\"read\",\"args\":[{{\"index\":6,\"value\":0,\"op\":\"SCMP_CMP_EQ\"}}]}}]}}"
                ),
                "no argument 6",
            ),
            (
                format!(
                    "{call}\"name\":\"read\",\"args\":[{{\"index\":0,\"value\":0,\"op\":\"==\"}}]}}]}}"
                ),
                "no operator \"==\"",
            ),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#.into(), "flag X: not supported"),
        ] {
            assert_eq!(parse(&json, 0).unwrap_err().to_string(), message, "{json}");
        }
        assert!(parse(r#"{"defaultAction":"SCMP_ACT_ALLOW","syscals":[]}"#, 0).is_err());
        assert!(parse("", 0).is_err());
    }

    #[test]
    fn an_argument_named_twice_is_an_or() {
        let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":9,"syscalls":[
            {"names":["read"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":7,"op":"SCMP_CMP_EQ"}]}]}"#;
        let profile = parse(json, 0).unwrap();
        let program = compile(&profile.rules);
        let native = Abi::native();
        let number = find(&TABLE, "read").unwrap().number(native).unwrap();
        for (value, expected) in [(1, Action::ALLOW), (7, Action::ALLOW), (2, Action::errno(9))] {
            let found = run(&program, number, native.audit_arch(), [value, 0, 0, 0, 0, 0]);
            assert_eq!(Action(found), expected);
        }
    }

    #[test]
    fn a_kernel_release_begins_with_two_numbers() {
        assert_eq!(kernel_version("6.1.0-25-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("4.8"), Some((4, 8)));
        assert_eq!(kernel_version("6"), None);
    }
}
