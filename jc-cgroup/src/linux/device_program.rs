//! The program that decides about devices in version 2 (linux/bpf.h, BPF_PROG_TYPE_CGROUP_DEVICE). The kernel's check of
//! a program takes 5 µs an instruction, a tenth of a start for one test of each rule: accesses with the same rules share
//! a part, and the rules of a part share tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jc_unshare::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, open};

use super::device_rule::Rule;
use super::sys::{self, Instruction};

/// The accesses, with their letters (BPF_DEVCG_ACC_ in linux/bpf.h).
const ACCESSES: [(i32, char); 3] = [(1, 'm'), (2, 'r'), (4, 'w')];
/// The types (BPF_DEVCG_DEV_ in linux/bpf.h).
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// The registers of the type, major and minor, and of the accesses.
const DEVICE: [u8; 3] = [2, 4, 5];
const ACCESS: u8 = 3;

/// The values of the registers [`DEVICE`] that a rule concerns. `None`: all values.
type Row = [Option<i32>; 3];

/// Replaces the programs of a v2 group that decide about devices by one for these rules.
pub fn attach(group: &Path, rules: &[Rule]) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(group, flags, Mode::empty()).on("open", group)?;
    let program = sys::load_device_program(&compile(rules)?).op("bpf: load a device program")?;
    sys::replace_device_programs(&directory, &program).on("bpf: attach a device program to", group)
}

/// Compiles rules into a program that returns 1 to allow. The program decides about each access that is asked for by the
/// last rule that has it; without a rule the access is denied.
fn compile(rules: &[Rule]) -> Result<Vec<Instruction>> {
    let mut program = vec![
        Instruction::load(DEVICE[0], 0),
        Instruction::copy(ACCESS, DEVICE[0]),
        Instruction::and(DEVICE[0], 0xFFFF),
        Instruction::shift_right(ACCESS, 16),
        Instruction::load(DEVICE[1], 4),
        Instruction::load(DEVICE[2], 8),
    ];
    let mut parts: Vec<(i32, Decision)> = Vec::new();
    for (bit, letter) in ACCESSES {
        let decision = Decision::new(rules, letter);
        match parts.iter_mut().find(|(_, known)| *known == decision) {
            Some((bits, _)) => *bits |= bit,
            None => parts.push((bit, decision)),
        }
    }
    for (bits, decision) in parts.iter().filter(|(_, decision)| !decision.allows_all()) {
        let part = decision.compile();
        program.extend(Instruction::skip_unless_bit(ACCESS, *bits, part.len()));
        program.extend(part);
    }
    program.extend([Instruction::set_result(true), Instruction::exit()]);
    // Jumps have 16 bits, and are shorter than the program.
    if program.len() > i16::MAX as usize {
        return Err(Error::usage(
            "resources: /devices: too many rules for a program of the kernel",
        ));
    }
    Ok(program)
}

/// The decisions about an access.
#[derive(Debug, Eq, PartialEq)]
struct Decision {
    /// Devices with the same decision, in the order of the tests: the first run that has a device decides.
    runs: Vec<(bool, BTreeSet<Row>)>,
    /// The decision about all other devices.
    default: bool,
}

impl Decision {
    /// The decision about the access with that letter.
    fn new(rules: &[Rule], letter: char) -> Self {
        let mut runs: Vec<(bool, BTreeSet<Row>)> = Vec::new();
        let mut default = false;
        for rule in rules.iter().rev().filter(|rule| rule.access.contains(letter)) {
            if runs.last().is_none_or(|(allow, _)| *allow != rule.allow) {
                runs.push((rule.allow, BTreeSet::new()));
            }
            let Some((allow, rows)) = runs.last_mut() else { continue };
            rows.insert(row(rule));
            let all = |kind: i32| rows.contains(&[Some(kind), None, None]);
            if rows.contains(&[None; 3]) || all(BLOCK) && all(CHARACTER) {
                default = *allow;
                break;
            }
        }
        // The last run decides as the default, or the other way.
        if runs.last().is_some_and(|(allow, _)| *allow == default) {
            runs.pop();
        }
        Self { runs, default }
    }

    fn allows_all(&self) -> bool {
        self.runs.is_empty() && self.default
    }

    /// Instructions that leave the program to deny, and end to allow.
    fn compile(&self) -> Vec<Instruction> {
        let mut steps = Vec::new();
        for (allow, rows) in &self.runs {
            let rows: Vec<&Row> = rows.iter().collect();
            steps.extend(tests(&rows, 0).into_iter().map(|step| (*allow, step)));
        }
        // The denial is at the end, behind a jump if the default is to allow.
        let deny = steps.len() + usize::from(self.default);
        let end = deny + 2;
        let place = |(at, (allow, step))| match step {
            Step::Hit(test) if allow => Instruction::skipping(test, end - at - 1),
            Step::Hit(test) => Instruction::skipping(test, deny - at - 1),
            Step::Skip(test) => test,
        };
        let mut part: Vec<Instruction> = steps.into_iter().enumerate().map(place).collect();
        part.extend(self.default.then(|| Instruction::jump(2)));
        part.extend([Instruction::set_result(false), Instruction::exit()]);
        part
    }
}

/// A test of a register.
enum Step {
    /// A jump to the decision of the run.
    Hit(Instruction),
    /// A jump over tests of the run.
    Skip(Instruction),
}

/// The tests for rows that are equal in the registers below `level`. No row concerns all devices that are left.
fn tests(rows: &[&Row], level: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut values: BTreeMap<Option<i32>, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        values.entry(row[level]).or_default().push(row);
    }
    for (value, same) in values {
        let has_all = same.iter().any(|row| row[level + 1..] == [None; 3][level + 1..]);
        match value {
            Some(value) if has_all => {
                steps.push(Step::Hit(Instruction::when(DEVICE[level], value)));
            }
            Some(value) => {
                let below = tests(&same, level + 1);
                let skip = Instruction::unless(DEVICE[level], value);
                steps.push(Step::Skip(skip.skipping(below.len())));
                steps.extend(below);
            }
            None => steps.extend(tests(&same, level + 1)),
        }
    }
    steps
}

fn row(rule: &Rule) -> Row {
    let kind = rule.kind.map(|kind| if kind == 'b' { BLOCK } else { CHARACTER });
    [kind, rule.major.map(|number| number as i32), rule.minor.map(|number| number as i32)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

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
        let device = |allow: bool, kind: &str, numbers: (i64, i64), access: &str| json!({"allow": allow, "type": kind, "major": numbers.0, "minor": numbers.1, "access": access});
        let lists = [
            json!([]),
            json!([
                device(false, "a", (-1, -1), "rwm"),
                device(true, "c", (-1, -1), "m"),
                device(true, "b", (-1, -1), "m"),
                device(true, "c", (1, 3), "rwm"),
                device(true, "c", (1, 5), "rwm"),
                device(true, "c", (8, -1), "rwm"),
                device(true, "c", (8, 1), "rwm"),
                device(true, "a", (-1, 1), "r"),
            ]),
            json!([
                device(true, "b", (-1, -1), "rw"),
                device(true, "c", (-1, -1), "rw"),
                device(false, "a", (8, -1), "w"),
                device(true, "a", (-1, 1), "w"),
                device(false, "c", (8, 1), "w"),
                device(false, "c", (-1, -1), "r"),
            ]),
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
            let program = compile(&rules).unwrap();
            for kind in ['b', 'c'] {
                for number in [(1, 3), (8, 0), (8, 1), (0, 0), (u32::MAX, 1)] {
                    for access in ["r", "w", "m", "rw", "rm", "rwm"] {
                        let bits = ACCESSES.iter().filter(|(_, letter)| access.contains(*letter));
                        let bits: u32 = bits.map(|(bit, _)| *bit as u32).sum();
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

    #[test]
    fn the_default_devices_cost_few_instructions_and_no_program_is_longer_than_its_jumps() {
        let mut list: Vec<Rule> = Vec::new();
        let mut add = |value: Value| list.push(Rule::parse(&value).unwrap());
        add(json!({"allow": false}));
        for (major, minor) in
            [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, -1)]
        {
            add(
                json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"}),
            );
        }
        assert!(compile(&list).unwrap().len() <= 24);
        let rule = list[1].clone();
        list.extend((0..40_000).map(|minor| Rule { minor: Some(minor), ..rule.clone() }));
        assert!(compile(&list).is_err());
    }
}
