//! The outcome of the rules for each system call of an ABI.

use super::abi::Abi;
use super::rules::{Action, Condition, ENOSYS, Operator, Rules};
use super::syscalls::ARM_BASE;

/// The decision about a call.
#[derive(Debug, Eq, PartialEq)]
pub enum Outcome<'a> {
    /// The same action whatever the arguments are.
    Always(Action),
    /// The action of the first rule whose conditions hold. Without such a rule, the default action.
    If(Vec<(Conditions<'a>, Action)>),
}

/// The conditions of a rule, or the condition under which another call carries the call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Conditions<'a> {
    /// All conditions of a rule.
    Rule(&'a [Condition]),
    /// The operation of the carrier.
    Carried(Condition),
}

impl Conditions<'_> {
    /// The conditions, all of which must hold.
    pub fn as_slice(&self) -> &[Condition] {
        match self {
            Self::Rule(conditions) => conditions,
            Self::Carried(condition) => std::slice::from_ref(condition),
        }
    }

    /// The argument and the upper half of its value, if the only condition is an equality.
    pub fn equality(&self) -> Option<(u8, u32)> {
        match self.as_slice() {
            [Condition { argument, operator: Operator::Equal, value }] => {
                Some((*argument, (value >> 32) as u32))
            }
            _ => None,
        }
    }
}

/// The index of an outcome: numbers are many, outcomes are few.
pub type Index = u16;

/// The index of the rules' default action.
const DEFAULT: Index = 0;

/// Numbers with the same outcome, up to the start of the next range.
#[derive(Debug)]
pub struct Range {
    /// The first number of the range.
    pub start: u32,
    /// The outcome of the numbers.
    pub outcome: Index,
    /// Single numbers inside the range with another outcome. The program compares with one after the other,
    /// so there are few.
    pub except: [Option<(u32, Index)>; 4],
}

/// The outcomes of an ABI's numbers.
pub struct Outcomes<'a> {
    all: Vec<Outcome<'a>>,
    /// The outcomes of the numbers up to the last one in the rules.
    common: Vec<Index>,
    /// The outcome of greater numbers.
    newer: Index,
    /// The outcomes of the numbers from [`ARM_BASE`] on.
    private: Vec<Index>,
}

impl<'a> Outcomes<'a> {
    /// Evaluates the rules for an ABI.
    pub fn new(rules: &'a Rules<'_>, abi: Abi) -> Self {
        let mut outcomes = Self {
            all: vec![Outcome::Always(rules.default)],
            common: Vec::with_capacity(512),
            newer: DEFAULT,
            private: Vec::new(),
        };
        for rule in &rules.rules {
            let always = outcomes.always(rule.action);
            for call in &rule.calls {
                let number = call.number(abi);
                if let Some(number) = number {
                    outcomes.know(number);
                }
                // A rule with the default action changes nothing.
                if always == DEFAULT {
                    continue;
                }
                match (number, &rule.conditions[..]) {
                    (Some(number), []) => outcomes.set_unconditional(number, always),
                    (Some(number), conditions) => {
                        outcomes.add(number, Conditions::Rule(conditions), rule.action);
                    }
                    (None, _) => {}
                }
                if abi == Abi::X86
                    && rule.conditions.is_empty()
                    && let Some((carrier, value)) = call.carrier
                {
                    let operator = Operator::Equal;
                    let condition = Condition { argument: 0, operator, value };
                    outcomes.know(carrier);
                    outcomes.add(carrier, Conditions::Carried(condition), rule.action);
                }
            }
        }
        if rules.newer_is_enosys() {
            outcomes.newer = outcomes.always(Action::errno(ENOSYS));
        }
        outcomes
    }

    pub fn get(&self, index: Index) -> &Outcome<'a> {
        &self.all[usize::from(index)]
    }

    fn put(&mut self, outcome: Outcome<'a>) -> Index {
        self.all.push(outcome);
        (self.all.len() - 1) as Index
    }

    fn always(&mut self, action: Action) -> Index {
        let outcome = Outcome::Always(action);
        let known = self.all.iter().position(|known| *known == outcome);
        known.map_or_else(|| self.put(outcome), |known| known as Index)
    }

    /// Makes room for the outcome of a number.
    fn know(&mut self, number: u32) {
        let (outcomes, number) = match number.checked_sub(ARM_BASE) {
            Some(private) => (&mut self.private, private as usize),
            None => (&mut self.common, number as usize),
        };
        if outcomes.len() <= number {
            outcomes.resize(number + 1, DEFAULT);
        }
    }

    fn of_number(&mut self, number: u32) -> &mut Index {
        match number.checked_sub(ARM_BASE) {
            Some(private) => &mut self.private[private as usize],
            None => &mut self.common[number as usize],
        }
    }

    /// Applies a rule without conditions, which voids rules with conditions.
    fn set_unconditional(&mut self, number: u32, always: Index) {
        let index = *self.of_number(number);
        if index == DEFAULT || matches!(self.get(index), Outcome::If(_)) {
            *self.of_number(number) = always;
        }
    }

    /// Applies a rule with conditions.
    fn add(&mut self, number: u32, conditions: Conditions<'a>, action: Action) {
        let index = *self.of_number(number);
        match &mut self.all[usize::from(index)] {
            Outcome::If(alternatives) => alternatives.push((conditions, action)),
            Outcome::Always(_) if index == DEFAULT => {
                let index = self.put(Outcome::If(vec![(conditions, action)]));
                *self.of_number(number) = index;
            }
            Outcome::Always(_) => {}
        }
    }

    fn are_same(&self, one: Index, other: Index) -> bool {
        one == other || self.get(one) == self.get(other)
    }

    /// The ranges of all numbers, from the first one of the ABI on. A number between two ranges with the same
    /// outcome is an exception, which costs one comparison; two more ranges would cost two.
    pub fn ranges(&self, first: u32, abi: Abi) -> Vec<Range> {
        let mut ranges = Vec::with_capacity(64);
        self.push_all(&mut ranges, first, &self.common);
        self.push(&mut ranges, first + self.common.len() as u32, self.newer);
        if abi == Abi::Arm {
            self.push_all(&mut ranges, ARM_BASE, &self.private);
            self.push(&mut ranges, ARM_BASE + self.private.len() as u32, DEFAULT);
        }
        // A tracer that cancels a call sets the number to -1.
        self.push(&mut ranges, u32::MAX, DEFAULT);
        ranges
    }

    fn push_all(&self, ranges: &mut Vec<Range>, mut start: u32, indices: &[Index]) {
        for same in indices.chunk_by(|one, other| one == other) {
            self.push(ranges, start, same[0]);
            start += same.len() as u32;
        }
    }

    fn push(&self, ranges: &mut Vec<Range>, start: u32, outcome: Index) {
        match &mut ranges[..] {
            [.., last] if self.are_same(last.outcome, outcome) => return,
            [.., before, last] if self.are_same(before.outcome, outcome) => {
                let is_single = start - last.start == 1 && last.except[0].is_none();
                let mut free = before.except.iter_mut().filter(|one| one.is_none());
                if let Some(free) = free.next().filter(|_| is_single) {
                    *free = Some((last.start, last.outcome));
                    ranges.pop();
                    return;
                }
            }
            _ => {}
        }
        ranges.push(Range { start, outcome, except: Default::default() });
    }
}
