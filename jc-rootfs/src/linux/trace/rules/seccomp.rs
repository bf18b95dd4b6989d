//! `--seccomp`: a profile in the form of the OCI.

use std::collections::BTreeSet;

use jc_unshare::{Error, Result, capability};
use serde_json::{Value, json};

use super::super::super::seccomp::{Abi, Action, Operator, Rules, TABLE, default, find};
use super::super::calls::{abi_name, frequent, kept, value_argument};
use super::super::facts::Facts;
use super::super::filter::{COMMON_REQUESTS, NAMESPACES, SET_NAME};

/// Calls whose values the profile compares.
const COMPARED: [&str; 7] =
    ["ioctl", "ipc", "keyctl", "personality", "prctl", "socket", "socketcall"];

/// Values of prctl(2) that a C library or a link of jc may use: PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE,
/// PR_SET_DUMPABLE, PR_GET_KEEPCAPS, PR_SET_KEEPCAPS, PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ, PR_CAPBSET_DROP,
/// PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT and PR_SET_VMA.
const COMMON_PRCTL: [u64; 14] = [1, 2, 3, 4, 7, 8, SET_NAME, 16, 23, 24, 38, 39, 47, 0x5356_4D41];

/// Calls of which another machine or C library may use another one.
const ALIKE: [&[&str]; 16] = [
    &["chmod", "fchmod", "fchmodat", "fchmodat2"],
    &["chown", "chown32", "fchown", "fchown32", "fchownat", "lchown", "lchown32"],
    &["creat", "open", "openat"],
    &["fgetxattr", "getxattr", "getxattrat", "lgetxattr"],
    &["flistxattr", "listxattr", "listxattrat", "llistxattr"],
    &["fremovexattr", "lremovexattr", "removexattr", "removexattrat"],
    &["fsetxattr", "lsetxattr", "setxattr", "setxattrat"],
    &["futimesat", "utime", "utimensat", "utimensat_time64", "utimes"],
    &["inotify_init", "inotify_init1"],
    &["link", "linkat"],
    &["mkdir", "mkdirat"],
    &["mknod", "mknodat"],
    &["rename", "renameat", "renameat2"],
    &["rmdir", "unlink", "unlinkat"],
    &["symlink", "symlinkat"],
    &["truncate", "truncate64"],
];

/// ENOSYS: C libraries then use clone(2), whose flags a filter can compare.
const ENOSYS: u16 = 38;

/// The profile. With `exact` it has the calls of the reports only, else also those that the C library, the loader and
/// the links of jc may make. With `below_default` it allows nothing that the default profile denies.
pub fn profile(facts: &Facts, exact: bool, below_default: bool) -> Result<Vec<u8>> {
    if exact && facts.lacks_calls {
        return Err(Error::new("--exact: a report lacks frequent calls")
            .hint("jc-trace --calls records every system call"));
    }
    let base = below_default.then(|| default::rules(&TABLE, Abi::native(), u64::MAX));
    let base = base.as_ref();
    let entries = entries(facts, &names(facts, exact), exact, base);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures(facts),
        "syscalls": entries,
    });
    let mut text = serde_json::to_vec_pretty(&profile)
        .map_err(|error| Error::new(format_args!("write JSON: {error}")))?;
    text.push(b'\n');
    Ok(text)
}

/// The calls that the profile names.
fn names(facts: &Facts, exact: bool) -> BTreeSet<&'static str> {
    let calls = facts.calls.iter().filter_map(|(name, ..)| find(&TABLE, name));
    let mut names: BTreeSet<&str> = calls.map(|call| call.name).collect();
    if !exact {
        let alike = ALIKE.iter().filter(|alike| alike.iter().any(|name| names.contains(name)));
        let alike: Vec<&str> = alike.flat_map(|alike| alike.iter().copied()).collect();
        // The calls that are not notified without --calls, in whole or in part.
        let partly = ["clone", "ioctl", "prctl", "sendto"];
        names.extend(alike.into_iter().chain(frequent()).chain(kept()).chain(partly));
    } else if names.contains("clone3") {
        names.insert("clone");
    }
    // C libraries and jc-init fall back on clone(2) at ENOSYS only.
    names.insert("clone3");
    names
}

/// The rules for the names. `base` has the rules of the default profile, which no rule may exceed.
fn entries(
    facts: &Facts,
    names: &BTreeSet<&'static str>,
    exact: bool,
    base: Option<&Rules<'_>>,
) -> Vec<Value> {
    let (mut plain, mut entries) = (Vec::new(), Vec::new());
    for name in names.iter().copied() {
        let capabilities = if base.is_some() { needed(name) } else { Some(Vec::new()) };
        match (name, capabilities) {
            ("clone", _) => entries.push(clone(facts, base.is_some())),
            ("clone3", _) if base.is_some() || !has_namespace(facts, "clone3") => entries
                .push(json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS })),
            ("unshare", Some(capabilities)) => {
                let flags = values(facts, name).fold(0, |all, flags| all | flags);
                let mask = u64::from(u32::MAX) & !flags;
                entries.push(entry(&[name], &capabilities, Some((0, mask, 0))));
            }
            (name, _) if COMPARED.contains(&name) => {
                entries.extend(compared(facts, name, exact, base));
            }
            (_, None) => {}
            (name, Some(capabilities)) if capabilities.is_empty() => plain.push(name),
            (name, Some(capabilities)) => {
                // Each of the capabilities allows the call.
                entries.extend(capabilities.iter().map(|one| entry(&[name], &[*one], None)));
            }
        }
    }
    entries.insert(0, entry(&plain, &[], None));
    entries
}

/// The native ABI, and the others of the reports.
fn architectures(facts: &Facts) -> Vec<String> {
    let abis = facts.calls.iter().map(|(_, abi, _)| abi.as_str()).chain([abi_name(Abi::native())]);
    let abis: BTreeSet<String> =
        abis.map(|abi| format!("SCMP_ARCH_{}", abi.to_ascii_uppercase())).collect();
    abis.into_iter().filter(|name| Abi::by_name(name).is_some()).collect()
}

fn values<'a>(facts: &'a Facts, name: &'a str) -> impl Iterator<Item = u64> + 'a {
    facts.calls.iter().filter(move |(known, ..)| known == name).filter_map(|(.., value)| *value)
}

fn has_namespace(facts: &Facts, name: &str) -> bool {
    values(facts, name).any(|flags| flags & NAMESPACES != 0)
}

/// The capabilities each of which allows a call in the default profile. The list is empty for a call that needs none.
/// `None`: the profile denies the call.
fn needed(name: &str) -> Option<Vec<&'static str>> {
    let allowed_by = find(&TABLE, name)?.allowed_by;
    if allowed_by & default::ALWAYS != 0 {
        return Some(Vec::new());
    }
    let names =
        capability::NAMES.iter().enumerate().filter(|(number, _)| allowed_by >> number & 1 == 1);
    let names: Vec<&str> = names.map(|(_, name)| *name).collect();
    (!names.is_empty()).then_some(names)
}

/// A rule that allows calls, in Docker's form if it needs capabilities.
fn entry(names: &[&str], capabilities: &[&str], masked: Option<(u8, u64, u64)>) -> Value {
    let mut entry = json!({ "names": names, "action": "SCMP_ACT_ALLOW" });
    if let Some((index, mask, value)) = masked {
        entry["args"] = json!([
            { "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }
        ]);
    }
    if !capabilities.is_empty() {
        let caps: Vec<String> = capabilities.iter().map(|name| format!("CAP_{name}")).collect();
        entry["includes"] = json!({ "caps": caps });
    }
    entry
}

/// clone(2) without the namespaces that no report has.
fn clone(facts: &Facts, below_default: bool) -> Value {
    let used = values(facts, "clone").fold(0, |all, flags| all | flags);
    let denied = if below_default { NAMESPACES } else { NAMESPACES & !used };
    entry(&["clone"], &[], (denied != 0).then_some((0, denied, 0)))
}

/// A rule for each value of a call.
fn compared(facts: &Facts, name: &str, exact: bool, base: Option<&Rules<'_>>) -> Vec<Value> {
    let Some((index, mask)) = value_argument(name) else { return Vec::new() };
    let mut all: BTreeSet<u64> = values(facts, name).collect();
    match name {
        "ioctl" if !exact => all.extend(COMMON_REQUESTS),
        "prctl" if !exact => all.extend(COMMON_PRCTL),
        _ => {}
    }
    let all =
        all.into_iter().filter(|value| base.is_none_or(|base| allows(base, name, index, *value)));
    all.map(|value| entry(&[name], &[], Some((index, mask, value)))).collect()
}

/// Whether rules allow a call with a value.
fn allows(rules: &Rules<'_>, name: &str, index: u8, value: u64) -> bool {
    let mut of_call =
        rules.rules.iter().filter(|rule| rule.calls.iter().any(|call| call.name == name));
    let mut plain = of_call.clone();
    if let Some(rule) = plain.find(|rule| rule.conditions.is_empty()) {
        return rule.action == Action::ALLOW;
    }
    let holds = of_call.find(|rule| {
        rule.conditions.iter().all(|condition| {
            let argument = if condition.argument == index { value } else { 0 };
            match condition.operator {
                Operator::NotEqual => argument != condition.value,
                Operator::Less => argument < condition.value,
                Operator::LessOrEqual => argument <= condition.value,
                Operator::Equal => argument == condition.value,
                Operator::GreaterOrEqual => argument >= condition.value,
                Operator::Greater => argument > condition.value,
                Operator::MaskedEqual(mask) => argument & mask == condition.value,
            }
        })
    });
    holds.is_some_and(|rule| rule.action == Action::ALLOW)
}

#[cfg(test)]
mod tests {
    use super::super::super::super::seccomp::parse;
    use super::*;

    const LINES: [&str; 8] = [
        r#"{"event":"trace","version":1,"calls":true}"#,
        r#"{"event":"call","name":"openat","abi":"x86_64"}"#,
        r#"{"event":"call","name":"socket","abi":"x86_64","value":2}"#,
        r#"{"event":"call","name":"socket","abi":"x86_64","value":38}"#,
        r#"{"event":"call","name":"mount","abi":"x86_64"}"#,
        r#"{"event":"call","name":"clone3","abi":"x86_64","value":0}"#,
        r#"{"event":"call","name":"keyctl","abi":"x86","value":1}"#,
        r#"{"event":"call","name":"mkdir","abi":"x86_64"}"#,
    ];

    fn learned(exact: bool, below_default: bool) -> (Value, String) {
        let text = profile(&Facts::of(&LINES), exact, below_default).unwrap();
        parse(&text, 0, (6, 1)).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        let text = value["syscalls"].to_string();
        (value, text)
    }

    #[test]
    fn an_exact_profile_has_the_calls_of_the_reports_only() {
        let (profile, _) = learned(true, false);
        assert_eq!(profile["syscalls"][0]["names"], json!(["mkdir", "mount", "openat"]));
        assert_eq!(profile["architectures"], json!(["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]));
        let lacking = Facts::of(&[r#"{"event":"trace","version":1,"calls":false}"#]);
        assert!(super::profile(&lacking, true, false).is_err());
    }

    #[test]
    fn other_profiles_keep_what_the_c_library_may_call() {
        let (_, text) = learned(false, false);
        for name in ["\"read\"", "\"execve\"", "\"mkdirat\"", "\"clone\"", "\"mount\""] {
            assert!(text.contains(name), "{name}");
        }
        assert!(!text.contains("\"bpf\""));
    }

    #[test]
    fn a_profile_below_the_default_allows_nothing_more() {
        let (profile, text) = learned(false, true);
        let plain = profile["syscalls"][0]["names"].to_string();
        assert!(!plain.contains("\"mount\"") && !text.contains("keyctl"), "{text}");
        assert!(text.contains("CAP_SYS_ADMIN"));
        let sockets = |text: &str| text.matches("[\"socket\"]").count();
        assert_eq!((sockets(&text), sockets(&learned(false, false).1)), (1, 2));
    }
}
