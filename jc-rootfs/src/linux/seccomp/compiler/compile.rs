//! Compiles rules to a program: a binary search over ranges of numbers with the same outcome. A search needs about
//! seven comparisons. The kernel loads a shorter program sooner.

use super::abi::{Abi, X32_BIT};
use super::bpf::{ARCH, Instruction, NUMBER, Target, Test, Writer, and, high, load, low};
use super::outcomes::{Conditions, Index, Outcome, Outcomes, Range};
use super::rules::{Action, Condition, Operator, Rules};

/// Compiles rules. The program tests the architecture first, since a number means another call in another ABI.
pub fn compile(rules: &Rules<'_>) -> Vec<Instruction> {
    let mut code = Writer::default();
    let foreign = Target::Return(rules.foreign.0);
    let (x32, others): (Vec<Abi>, Vec<Abi>) = rules.abis.iter().partition(|abi| **abi == Abi::X32);
    let mut first = foreign;
    for abi in others.iter().rev().filter(|abi| **abi != Abi::X86_64) {
        let section = section(&mut code, rules, *abi);
        let numbered = code.plain(load(NUMBER), section);
        first = code.branch(Test::Equal, abi.audit_arch(), numbered, first);
    }
    if others.contains(&Abi::X86_64) || !x32.is_empty() {
        let x32 = match x32.first() {
            Some(abi) => section(&mut code, rules, *abi),
            // A tracer that cancels a call sets the number to -1.
            None => code.branch(Test::Equal, u32::MAX, Target::Return(rules.default.0), foreign),
        };
        let wide = if others.contains(&Abi::X86_64) {
            section(&mut code, rules, Abi::X86_64)
        } else {
            foreign
        };
        let both = code.branch(Test::GreaterOrEqual, X32_BIT, x32, wide);
        let numbered = code.plain(load(NUMBER), both);
        first = code.branch(Test::Equal, Abi::X86_64.audit_arch(), numbered, first);
    }
    code.plain(load(ARCH), first);
    code.finish()
}

/// Writes the decisions for an ABI. The accumulator holds the number of the call.
fn section(code: &mut Writer, rules: &Rules<'_>, abi: Abi) -> Target {
    let outcomes = Outcomes::new(rules, abi);
    let ranges = outcomes.ranges(if abi == Abi::X32 { X32_BIT } else { 0 }, abi);
    Leaves { outcomes, default: rules.default, abi }.search(code, &ranges)
}

/// The leaves of the search tree.
struct Leaves<'a> {
    outcomes: Outcomes<'a>,
    default: Action,
    abi: Abi,
}

impl Leaves<'_> {
    fn search(&self, code: &mut Writer, ranges: &[Range]) -> Target {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        match (ranges, upper) {
            ([range], _) => {
                let others = self.leaf(code, range.outcome);
                range.except.iter().flatten().fold(others, |others, (number, outcome)| {
                    let this = self.leaf(code, *outcome);
                    code.branch(Test::Equal, *number, this, others)
                })
            }
            (_, [first, ..]) => {
                let upper = self.search(code, upper);
                let lower = self.search(code, lower);
                code.branch(Test::GreaterOrEqual, first.start, upper, lower)
            }
            (_, []) => Target::Return(self.default.0),
        }
    }

    fn leaf(&self, code: &mut Writer, outcome: Index) -> Target {
        let rules = match self.outcomes.get(outcome) {
            Outcome::Always(action) => return Target::Return(action.0),
            Outcome::If(alternatives) => alternatives,
        };
        let loaded = |rule: &(Conditions<'_>, Action)| rule.0.equality();
        let groups = rules.chunk_by(|a, b| loaded(a).is_some() && loaded(a) == loaded(b)).rev();
        let default = Target::Return(self.default.0);
        groups.fold(default, |fails, group| match group.first().and_then(loaded) {
            Some(argument) => one_of(code, argument, group, self.abi, fails),
            None => group.iter().fold(fails, |fails, (conditions, action)| {
                let conditions = conditions.as_slice().iter().rev();
                conditions.fold(Target::Return(action.0), |holds, condition| {
                    compare(code, condition, self.abi, holds, fails)
                })
            }),
        })
    }
}

/// Compares an argument with the values of several rules, which have the same upper half.
fn one_of(
    code: &mut Writer,
    (argument, upper): (u8, u32),
    rules: &[(Conditions<'_>, Action)],
    abi: Abi,
    fails: Target,
) -> Target {
    let argument = u32::from(argument);
    let values = rules.iter().flat_map(|(conditions, action)| {
        conditions.as_slice().iter().map(|condition| (condition.value as u32, action.0))
    });
    let mut values: Vec<(u32, u32)> = values.collect();
    // The first rule for a value counts.
    values.sort_by_key(|(value, _)| *value);
    values.dedup_by_key(|(value, _)| *value);
    let runs = values.chunk_by(|one, next| one.0 + 1 == next.0 && one.1 == next.1);
    // The fold writes the code backwards: the program tests the highest run first, so the tests of lower
    // runs need no upper bound against it.
    let tests = runs.fold(fails, |next, run| match run {
        [(first, action), _, .., (last, _)] => {
            let next = code.branch(Test::GreaterOrEqual, *first, Target::Return(*action), next);
            code.branch(Test::Greater, *last, fails, next)
        }
        _ => run.iter().fold(next, |next, (value, action)| {
            code.branch(Test::Equal, *value, Target::Return(*action), next)
        }),
    });
    let lower = code.plain(load(low(argument)), tests);
    if !abi.is_wide() {
        return lower;
    }
    let upper = code.branch(Test::Equal, upper, lower, fails);
    code.plain(load(high(argument)), upper)
}

/// Compares an argument with the value of a condition, the upper half first.
fn compare(
    code: &mut Writer,
    condition: &Condition,
    abi: Abi,
    holds: Target,
    fails: Target,
) -> Target {
    use Test::{Equal, Greater, GreaterOrEqual};

    let argument = u32::from(condition.argument);
    let (upper, lower) = ((condition.value >> 32) as u32, condition.value as u32);
    let mask = match condition.operator {
        Operator::MaskedEqual(mask) => Some(mask),
        _ => None,
    };
    let (test, yes, no) = match condition.operator {
        Operator::Equal | Operator::MaskedEqual(_) => (Equal, holds, fails),
        Operator::NotEqual => (Equal, fails, holds),
        Operator::Greater => (Greater, holds, fails),
        Operator::GreaterOrEqual => (GreaterOrEqual, holds, fails),
        Operator::Less => (GreaterOrEqual, fails, holds),
        Operator::LessOrEqual => (Greater, fails, holds),
    };
    let mut next = code.branch(test, lower, yes, no);
    if let Some(mask) = mask.map(|mask| mask as u32).filter(|mask| *mask != u32::MAX) {
        next = code.plain(and(mask), next);
    }
    next = code.plain(load(low(argument)), next);
    let is_upper_ignored = upper == 0 && mask.is_some_and(|mask| mask >> 32 == 0);
    if !abi.is_wide() || is_upper_ignored {
        return next;
    }
    next = match condition.operator {
        Operator::Equal | Operator::MaskedEqual(_) => code.branch(Equal, upper, next, fails),
        Operator::NotEqual => code.branch(Equal, upper, next, holds),
        Operator::Greater | Operator::GreaterOrEqual => {
            let equal = code.branch(Equal, upper, next, fails);
            code.branch(Greater, upper, holds, equal)
        }
        Operator::Less | Operator::LessOrEqual => {
            let equal = code.branch(Equal, upper, next, holds);
            code.branch(Greater, upper, fails, equal)
        }
    };
    if let Some(mask) = mask {
        next = code.plain(and((mask >> 32) as u32), next);
    }
    code.plain(load(high(argument)), next)
}

#[cfg(test)]
mod tests {
    use super::super::bpf::run;
    use super::super::rules::{ENOSYS, Rule};
    use super::super::syscalls::{ARM_BASE, Call, find};
    use super::*;
    use crate::linux::seccomp::built::TABLE;

    fn call(name: &str) -> &'static Call {
        find(&TABLE, name).unwrap()
    }

    fn condition(argument: u8, operator: Operator, value: u64) -> Condition {
        Condition { argument, operator, value }
    }

    #[test]
    fn every_operator_compares_all_bits_of_an_argument() {
        use Operator::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, MaskedEqual, NotEqual};
        let values = [0, 1, 5, 6, u64::from(u32::MAX), 1 << 32, 5 << 32 | 5, 5 << 32 | 6, u64::MAX];
        let mask = 0xF_0000_000F;
        let masks = [mask, u32::MAX.into(), 0].map(MaskedEqual);
        let operators = [Equal, NotEqual, Greater, GreaterOrEqual, Less, LessOrEqual];
        let operators = [&operators[..], &masks].concat();
        let calls = [call("read")];
        for operator in operators {
            for value in values {
                let conditions = [condition(2, operator, value)];
                let rule = Rule {
                    calls: calls.to_vec(),
                    action: Action::ALLOW,
                    conditions: conditions.to_vec(),
                };
                let abis = [Abi::X86_64, Abi::X86];
                let rules = Rules {
                    abis: abis.to_vec(),
                    foreign: Action::KILL_PROCESS,
                    default: Action::errno(1),
                    rules: vec![rule],
                };
                let program = compile(&rules);
                for (abi, argument) in abis.into_iter().flat_map(|a| values.map(|v| (a, v))) {
                    let width = if abi.is_wide() { u64::MAX } else { u32::MAX.into() };
                    let (a, b) = (argument & width, value & width);
                    let holds = match operator {
                        Equal => a == b,
                        NotEqual => a != b,
                        Greater => a > b,
                        GreaterOrEqual => a >= b,
                        Less => a < b,
                        LessOrEqual => a <= b,
                        MaskedEqual(mask) => a & mask & width == b,
                    };
                    let expected = if holds { Action::ALLOW } else { Action::errno(1) };
                    let arguments = [7, 7, argument, 7, 7, 7];
                    let number = call("read").number(abi).unwrap();
                    let found = run(&program, number, abi.audit_arch(), arguments);
                    assert_eq!(
                        Action(found),
                        expected,
                        "{abi:?} {argument:#x} {operator:?} {value:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold_and_the_first_rule_counts() {
        let calls = [call("ioctl")];
        let both = [
            condition(0, Operator::Equal, 1),
            condition(1, Operator::Greater, 2),
            condition(5, Operator::NotEqual, 3),
        ];
        let other = [condition(0, Operator::LessOrEqual, 1)];
        let rule = |action, conditions| Rule { calls: calls.to_vec(), action, conditions };
        let rules =
            vec![rule(Action::ALLOW, both.to_vec()), rule(Action::errno(9), other.to_vec())];
        let rules = Rules {
            abis: vec![Abi::X86_64],
            foreign: Action::KILL_PROCESS,
            default: Action::TRAP,
            rules,
        };
        let program = compile(&rules);
        for (arguments, expected) in [
            ([1, 3, 0, 0, 0, 0], Action::ALLOW),
            ([1, 2, 0, 0, 0, 0], Action::errno(9)),
            ([1, 3, 0, 0, 0, 3], Action::errno(9)),
            ([2, 3, 0, 0, 0, 0], Action::TRAP),
        ] {
            let found = run(&program, 16, Abi::X86_64.audit_arch(), arguments);
            assert_eq!(Action(found), expected, "{arguments:?}");
        }
    }

    #[test]
    fn neighbours_with_the_same_conditions_are_looked_at_together() {
        let conditions = [condition(0, Operator::Greater, 5), condition(1, Operator::Equal, 7)];
        let length = |names: &[&str]| {
            let calls: Vec<&Call> = names.iter().map(|name| call(name)).collect();
            let rule = Rule {
                calls: calls.to_vec(),
                action: Action::ALLOW,
                conditions: conditions.to_vec(),
            };
            let rules = Rules {
                abis: vec![Abi::X86_64],
                foreign: Action::KILL_PROCESS,
                default: Action::TRAP,
                rules: vec![rule],
            };
            compile(&rules).len()
        };
        assert_eq!(length(&["read", "write", "open", "close"]), length(&["read"]));
        assert!(length(&["read", "open"]) > length(&["read", "write"]));
    }

    #[test]
    fn numbers_that_differ_from_their_neighbours_are_told_from_them() {
        let names = ["read", "open", "stat", "lstat", "lseek", "mprotect", "brk", "rt_sigprocmask"];
        let calls = names.map(call);
        let old = [condition(0, Operator::Less, 12)];
        let ioctl = [call("ioctl")];
        let rules = vec![
            Rule { calls: calls.to_vec(), action: Action::ALLOW, conditions: vec![] },
            Rule { calls: ioctl.to_vec(), action: Action::LOG, conditions: old.to_vec() },
        ];
        let rules = Rules {
            abis: vec![Abi::X86_64],
            foreign: Action::KILL_PROCESS,
            default: Action::errno(1),
            rules,
        };
        let program = compile(&rules);
        for (number, first) in (0..=20).flat_map(|number| [(number, 11), (number, 12)]) {
            let expected = match number {
                0 | 2 | 4 | 6 | 8 | 10 | 12 | 14 => Action::ALLOW,
                16 if first == 11 => Action::LOG,
                ..=16 => Action::errno(1),
                _ => Action::errno(ENOSYS),
            };
            let found = run(&program, number, Abi::X86_64.audit_arch(), [first, 0, 0, 0, 0, 0]);
            assert_eq!(Action(found), expected, "{number} {first}");
        }
    }

    #[test]
    fn values_in_a_row_are_looked_at_together() {
        const LAST: u64 = u32::MAX as u64;
        let calls = [call("ioctl")];
        let allowed = [9, 3, 4, 5, 6, 7, 11, 20, 21, 5, LAST - 2, LAST - 1, LAST];
        let compiled = |values: &[u64]| {
            let conditions: Vec<_> =
                values.iter().map(|value| [condition(1, Operator::Equal, *value)]).collect();
            let rule =
                |conditions| Rule { calls: calls.to_vec(), action: Action::ALLOW, conditions };
            let rules = conditions.iter().map(|conditions| rule(conditions.to_vec())).collect();
            let default = Action::errno(1);
            compile(&Rules {
                abis: vec![Abi::X86_64],
                foreign: Action::KILL_PROCESS,
                default,
                rules,
            })
        };
        let program = compiled(&allowed);
        for value in (0..30).chain(LAST - 5..LAST + 10) {
            let expected = if allowed.contains(&value) { Action::ALLOW } else { Action::errno(1) };
            let arguments = [0, value, 0, 0, 0, 0];
            let found = run(&program, 16, Abi::X86_64.audit_arch(), arguments);
            assert_eq!(Action(found), expected, "{value:#x}");
        }
        assert_eq!(compiled(&[3, 4, 5, 6, 7, 8]).len(), compiled(&[3, 4, 5]).len());
    }

    #[test]
    fn of_several_values_of_an_argument_each_has_its_action() {
        let calls = [call("ioctl")];
        let values =
            [(0, 1), (0, 2), (0, 1 << 32), (0, 1 << 32 | 2), (0, 2), (1, 9), (1, 1), (0, 3)];
        let conditions =
            values.map(|(argument, value)| [condition(argument, Operator::Equal, value)]);
        let rules: Vec<Rule<'_>> = conditions
            .iter()
            .zip(1..)
            .map(|(c, errno)| Rule {
                calls: calls.to_vec(),
                action: Action::errno(errno),
                conditions: c.to_vec(),
            })
            .collect();
        let abis = [Abi::X86_64, Abi::X86];
        let program = compile(&Rules {
            abis: abis.to_vec(),
            foreign: Action::KILL_PROCESS,
            default: Action::ALLOW,
            rules,
        });
        for abi in abis {
            let width = if abi.is_wide() { u64::MAX } else { u32::MAX.into() };
            let number = call("ioctl").number(abi).unwrap();
            for (first, second) in [0, 1, 2, 3, 1 << 32, 1 << 32 | 2, 1 << 32 | 3, 7 << 32 | 1]
                .into_iter()
                .flat_map(|first| [(first, 0), (first, 1), (first, 9), (first, 1 << 32 | 9)])
            {
                let given = [first, second];
                let holds = |(argument, value): &(u8, u64)| {
                    (given[usize::from(*argument)] ^ value) & width == 0
                };
                let expected = match values.iter().position(holds) {
                    Some(at) => Action::errno(at as u16 + 1),
                    None => Action::ALLOW,
                };
                let arguments = [first, second, 0, 0, 0, 0];
                let found = run(&program, number, abi.audit_arch(), arguments);
                assert_eq!(Action(found), expected, "{abi:?} {first:#x} {second:#x}");
            }
        }
    }

    #[test]
    fn other_abis_are_no_way_around() {
        let calls = [call("read"), call("uretprobe")];
        let kill = Action::KILL_PROCESS;
        let deny = Action::errno(1);
        for (abis, default, arch, number, expected) in [
            (&[Abi::X86_64][..], deny, Abi::X86_64, 0, Action::ALLOW),
            (&[Abi::X86_64], deny, Abi::X86_64, 1, deny),
            (&[Abi::X86_64], deny, Abi::X86_64, 336, Action::errno(ENOSYS)),
            (&[Abi::X86_64], deny, Abi::X86_64, X32_BIT, kill),
            (&[Abi::X86_64], deny, Abi::X86_64, u32::MAX, deny),
            (&[Abi::X86_64], deny, Abi::X86, 3, kill),
            (&[Abi::X86_64], Action::ALLOW, Abi::X86, 3, kill),
            (&[Abi::X86_64], Action::ALLOW, Abi::X86_64, X32_BIT, kill),
            (&[Abi::X86_64], Action::ALLOW, Abi::X86_64, 9999, Action::ALLOW),
            (&[Abi::X86_64, Abi::X86, Abi::X32], deny, Abi::X86_64, X32_BIT, Action::ALLOW),
            (&[Abi::X86_64, Abi::X86, Abi::X32], deny, Abi::X86_64, X32_BIT | 1, deny),
            (
                &[Abi::X86_64, Abi::X86, Abi::X32],
                deny,
                Abi::X86_64,
                X32_BIT | 600,
                Action::errno(ENOSYS),
            ),
            (&[Abi::X86_64, Abi::X86, Abi::X32], deny, Abi::X86, 3, Action::ALLOW),
            (&[Abi::X86_64, Abi::X86, Abi::X32], deny, Abi::X86, 0, deny),
            (&[Abi::X86_64, Abi::X86, Abi::X32], deny, Abi::X86, X32_BIT, Action::errno(ENOSYS)),
            (&[Abi::X32], deny, Abi::X86_64, 0, kill),
            (&[Abi::Aarch64, Abi::Arm], deny, Abi::Aarch64, 63, Action::ALLOW),
            (&[Abi::Aarch64, Abi::Arm], deny, Abi::Arm, 3, Action::ALLOW),
            (&[Abi::Aarch64, Abi::Arm], deny, Abi::Arm, ARM_BASE + 2, deny),
            (&[Abi::Aarch64, Abi::Arm], deny, Abi::X86_64, 0, kill),
        ] {
            let rule = Rule { calls: calls.to_vec(), action: Action::ALLOW, conditions: vec![] };
            let program = compile(&Rules {
                abis: abis.to_vec(),
                foreign: Action::KILL_PROCESS,
                default,
                rules: vec![rule],
            });
            let found = Action(run(&program, number, arch.audit_arch(), [0; 6]));
            assert_eq!(found, expected, "{abis:?} {default:?} {arch:?} {number}");
        }
    }

    #[test]
    fn calls_of_x86_that_others_carry_follow_their_rules() {
        let calls = [call("socket"), call("shmget")];
        let rule = Rule { calls: calls.to_vec(), action: Action::ALLOW, conditions: vec![] };
        let rules = Rules {
            abis: vec![Abi::X86],
            foreign: Action::KILL_PROCESS,
            default: Action::errno(1),
            rules: vec![rule],
        };
        let program = compile(&rules);
        let (socketcall, ipc) = (102, 117);
        for (number, first, expected) in [
            (359, 0, Action::ALLOW),
            (socketcall, 1, Action::ALLOW),
            (socketcall, 2, Action::errno(1)),
            (ipc, 23, Action::ALLOW),
            (ipc, 1, Action::errno(1)),
        ] {
            let found = run(&program, number, Abi::X86.audit_arch(), [first, 0, 0, 0, 0, 0]);
            assert_eq!(Action(found), expected, "{number} {first}");
        }
    }
}
