//! Rules for devices, and the program of version 2 that decides by them (linux/bpf.h, BPF_PROG_TYPE_CGROUP_DEVICE).

use std::path::Path;

use jc_unshare::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, open};
use serde_json::Value;

use super::sys::{self, Instruction};

/// A rule. A later rule counts more than an earlier one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    pub allow: bool,
    /// `b` or `c`; `None` is both.
    pub kind: Option<char>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    /// The letters of `rwm`.
    pub access: String,
}

impl Rule {
    /// Parses a rule of the OCI.
    pub fn parse(value: &Value) -> Result<Self> {
        let wrong = |what: &str| {
            Error::usage(format_args!("resources: /devices: {what} of {value} has another form"))
        };
        let number = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(number) if number.as_i64() == Some(-1) => Ok(None),
            Some(number) => {
                let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
                number.map(Some).ok_or_else(|| wrong(key))
            }
        };
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let allow = value.get("allow").and_then(Value::as_bool).ok_or_else(|| wrong("allow"))?;
        let kind = match text("type") {
            "" | "a" => None,
            "b" => Some('b'),
            "c" | "u" => Some('c'),
            _ => return Err(wrong("type")),
        };
        let access = match text("access") {
            // All accesses can be denied without their names, and none is allowed.
            "" if !allow => "rwm",
            "" => return Err(wrong("access")),
            access if access.chars().all(|letter| "rwm".contains(letter)) => access,
            _ => return Err(wrong("access")),
        };
        Ok(Self {
            allow,
            kind,
            major: number("major")?,
            minor: number("minor")?,
            access: access.into(),
        })
    }
}

/// Replaces the programs of a v2 group that decide about devices by one for these rules.
pub fn attach(group: &Path, rules: &[Rule]) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(group, flags, Mode::empty()).on("open", group)?;
    let program = sys::load_device_program(&compile(rules)).op("bpf: load a device program")?;
    sys::replace_device_programs(&directory, &program).on("bpf: attach a device program to", group)
}

/// The accesses, with their letters (BPF_DEVCG_ACC_ in linux/bpf.h).
const ACCESSES: [(u8, char); 3] = [(1, 'm'), (2, 'r'), (4, 'w')];
/// The types (BPF_DEVCG_DEV_ in linux/bpf.h).
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// Compiles rules into a program of the type BPF_PROG_TYPE_CGROUP_DEVICE, which returns 1 to allow. The program decides
/// about each access that is asked for by the last rule that has it; without a rule the access is denied.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        // r2 = the type, r3 = the accesses, r4 = major, r5 = minor
        Instruction::load(2, 0),
        Instruction::copy(3, 2),
        Instruction::and(2, 0xFFFF),
        Instruction::shift_right(3, 16),
        Instruction::load(4, 4),
        Instruction::load(5, 8),
    ];
    for (bit, letter) in ACCESSES {
        // A block for each rule follows, and jumps to the end of the part for this access or leaves the program. The
        // kernel refuses instructions that are never reached, such as those behind a rule for all devices.
        let rules = rules.iter().rev().filter(|rule| rule.access.contains(letter));
        let mut blocks: Vec<(bool, Vec<Instruction>)> = Vec::new();
        for rule in rules {
            blocks.push((rule.allow, rule.tests()));
            if rule.tests().is_empty() {
                break;
            }
        }
        let is_complete = blocks.last().is_some_and(|(_, tests)| tests.is_empty());
        let default = if is_complete { 0 } else { 2 };
        let mut left = default + blocks.iter().map(|(_, tests)| tests.len() + 2).sum::<usize>();
        program.extend(Instruction::skip_unless_bit(3, bit.into(), left));
        for (allow, tests) in blocks {
            let count = tests.len();
            left -= count + 2;
            // A test that fails leads to the next block.
            let tests = tests.into_iter().enumerate();
            program.extend(tests.map(|(place, test)| test.skipping(count - place + 1)));
            program.push(Instruction::set_result(allow));
            program.push(if allow { Instruction::jump(left) } else { Instruction::exit() });
        }
        if !is_complete {
            program.extend([Instruction::set_result(false), Instruction::exit()]);
        }
    }
    program.extend([Instruction::set_result(true), Instruction::exit()]);
    program
}

impl Rule {
    /// Jumps that are taken if the rule does not concern the device.
    fn tests(&self) -> Vec<Instruction> {
        let kind = self.kind.map(|kind| (2, if kind == 'b' { BLOCK } else { CHARACTER }));
        let number = |register, number: Option<u32>| number.map(|number| (register, number as i32));
        let all = [kind, number(4, self.major), number(5, self.minor)];
        all.into_iter()
            .flatten()
            .map(|(register, value)| Instruction::unless(register, value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(list: Value) -> Vec<Rule> {
        list.as_array().unwrap().iter().map(|rule| Rule::parse(rule).unwrap()).collect()
    }

    /// Decides as the words of the specification say.
    fn decide(rules: &[Rule], kind: char, number: (u32, u32), access: &str) -> bool {
        access.chars().all(|letter| {
            let concerns = |rule: &&Rule| {
                rule.access.contains(letter)
                    && rule.kind.is_none_or(|own| own == kind)
                    && rule.major.is_none_or(|own| own == number.0)
                    && rule.minor.is_none_or(|own| own == number.1)
            };
            rules.iter().rev().find(concerns).is_some_and(|rule| rule.allow)
        })
    }

    #[test]
    fn the_program_decides_as_the_last_rule_of_each_access() {
        let lists = [
            json!([]),
            json!([{"allow": false}]),
            json!([{"allow": true, "access": "rwm"}]),
            json!([{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                {"allow": true, "type": "c", "access": "m"},
                {"allow": true, "type": "b", "major": 8, "access": "r"},
                {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "rw"}]),
            json!([{"allow": true, "access": "rwm"}, {"allow": false, "major": 8, "access": "w"}]),
            json!([{"allow": true, "major": 4_294_967_295u32, "access": "rw"}]),
        ];
        for list in lists {
            let rules = rules(list);
            let program = compile(&rules);
            for kind in ['b', 'c'] {
                for number in [(1, 3), (8, 0), (8, 1), (0, 0), (u32::MAX, 1)] {
                    for access in ["r", "w", "m", "rw", "rm", "rwm"] {
                        let bits = ACCESSES.iter().filter(|(_, letter)| access.contains(*letter));
                        let bits: u32 = bits.map(|(bit, _)| u32::from(*bit)).sum();
                        let kind_number = if kind == 'b' { BLOCK } else { CHARACTER } as u32;
                        let context = [bits << 16 | kind_number, number.0, number.1];
                        let expected = decide(&rules, kind, number, access);
                        let found = sys::interpret(&program, context);
                        assert_eq!(found, expected, "{rules:?}: {kind} {number:?} {access}");
                    }
                }
            }
        }
    }
}
