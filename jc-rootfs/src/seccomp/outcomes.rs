//! What rules come to for each system call of an ABI.

use super::abi::Abi;
use super::mux;
use super::rules::{Action, Condition, ENOSYS, Operator, Rules};
use super::syscalls::{ARM_BASE, NUMBERS};

/// What to do about a call.
#[derive(Debug, Eq, PartialEq)]
pub enum Outcome<'a> {
    /// This.
    Always(Action),
    /// What the first of the alternatives says whose conditions hold, else the default.
    If(Vec<(Conditions<'a>, Action)>),
}

/// The conditions of a rule, or that of a call which another one carries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Conditions<'a> {
    /// All of them must hold.
    Rule(&'a [Condition]),
    /// This must.
    Carried(Condition),
}

impl Conditions<'_> {
    /// All that must hold.
    pub fn as_slice(&self) -> &[Condition] {
        match self {
            Self::Rule(conditions) => conditions,
            Self::Carried(condition) => std::slice::from_ref(condition),
        }
    }

    /// The argument and the upper half of what it is to be equal to, if that is all.
    pub fn equality(&self) -> Option<(u8, u32)> {
        match self.as_slice() {
            [Condition { argument, operator: Operator::Equal, value }] => {
                Some((*argument, (value >> 32) as u32))
            }
            _ => None,
        }
    }
}

/// The place of an outcome among all of them: numbers are many, outcomes are few.
pub type Place = u16;

/// What the rules' default says.
const DEFAULT: Place = 0;

/// Numbers with the same outcome: from this one to where the next range begins.
#[derive(Debug)]
pub struct Range {
    /// The first number.
    pub start: u32,
    /// What to do about them.
    pub outcome: Place,
    /// But about these, each by itself, that. They are looked for one after the other, so there are
    /// not many.
    pub except: [Option<(u32, Place)>; 4],
}

/// The outcomes of an ABI's numbers.
pub struct Outcomes<'a> {
    all: Vec<Outcome<'a>>,
    /// By number,
    common: [Place; NUMBERS.0],
    /// as far as the rules know them,
    known: usize,
    /// and this past that.
    newer: Place,
    /// By number past [`ARM_BASE`].
    own: [Place; NUMBERS.1],
}

impl<'a> Outcomes<'a> {
    /// Of the rules, for an ABI.
    pub fn of(rules: &Rules<'a>, abi: Abi) -> Self {
        let mut outcomes = Self {
            all: vec![Outcome::Always(rules.default)],
            common: [DEFAULT; NUMBERS.0],
            known: 0,
            newer: DEFAULT,
            own: [DEFAULT; NUMBERS.1],
        };
        for rule in &rules.rules {
            let always = outcomes.always(rule.action);
            for call in rule.calls {
                let number = call.number(abi);
                if let Some(number) = number.filter(|number| *number < ARM_BASE) {
                    outcomes.known = outcomes.known.max(number as usize + 1);
                }
                // What the default does anyway needs no rule.
                if always == DEFAULT {
                    continue;
                }
                match (number, rule.conditions) {
                    (Some(number), []) => outcomes.settle(number, always),
                    (Some(number), conditions) => {
                        outcomes.add(number, Conditions::Rule(conditions), rule.action);
                    }
                    (None, _) => {}
                }
                if abi == Abi::X86
                    && rule.conditions.is_empty()
                    && let Some((carrier, condition)) = mux::carried(*call)
                {
                    outcomes.known = outcomes.known.max(carrier as usize + 1);
                    outcomes.add(carrier, Conditions::Carried(condition), rule.action);
                }
            }
        }
        if rules.newer_is_enosys() {
            outcomes.newer = outcomes.always(Action::errno(ENOSYS));
        }
        outcomes
    }

    /// What is in that place.
    pub fn get(&self, place: Place) -> &Outcome<'a> {
        &self.all[usize::from(place)]
    }

    fn put(&mut self, outcome: Outcome<'a>) -> Place {
        self.all.push(outcome);
        (self.all.len() - 1) as Place
    }

    fn always(&mut self, action: Action) -> Place {
        let outcome = Outcome::Always(action);
        let known = self.all.iter().position(|known| *known == outcome);
        known.map_or_else(|| self.put(outcome), |known| known as Place)
    }

    fn of_number(&mut self, number: u32) -> &mut Place {
        match number.checked_sub(ARM_BASE) {
            Some(own) => &mut self.own[own as usize],
            None => &mut self.common[number as usize],
        }
    }

    /// A rule without conditions. It makes those with conditions void.
    fn settle(&mut self, number: u32, always: Place) {
        let place = *self.of_number(number);
        if place == DEFAULT || matches!(self.get(place), Outcome::If(_)) {
            *self.of_number(number) = always;
        }
    }

    /// A rule with conditions.
    fn add(&mut self, number: u32, conditions: Conditions<'a>, action: Action) {
        let place = *self.of_number(number);
        match &mut self.all[usize::from(place)] {
            Outcome::If(alternatives) => alternatives.push((conditions, action)),
            Outcome::Always(_) if place == DEFAULT => {
                let place = self.put(Outcome::If(vec![(conditions, action)]));
                *self.of_number(number) = place;
            }
            Outcome::Always(_) => {}
        }
    }

    fn are_same(&self, one: Place, other: Place) -> bool {
        one == other || self.get(one) == self.get(other)
    }

    /// All numbers, from the first one of the ABI on. A number that differs from both its neighbours,
    /// which are alike, is an exception: that is one comparison where two more ranges are two.
    pub fn ranges(&self, first: u32, abi: Abi) -> Vec<Range> {
        let mut ranges = Vec::with_capacity(64);
        self.push_all(&mut ranges, first, &self.common[..self.known]);
        self.push(&mut ranges, first + self.known as u32, self.newer);
        if abi == Abi::Arm {
            self.push_all(&mut ranges, ARM_BASE, &self.own);
            self.push(&mut ranges, ARM_BASE + NUMBERS.1 as u32, DEFAULT);
        }
        // No call at all: what a tracer replaces by that comes by as -1.
        self.push(&mut ranges, u32::MAX, DEFAULT);
        ranges
    }

    fn push_all(&self, ranges: &mut Vec<Range>, mut start: u32, places: &[Place]) {
        for same in places.chunk_by(|one, other| one == other) {
            self.push(ranges, start, same[0]);
            start += same.len() as u32;
        }
    }

    fn push(&self, ranges: &mut Vec<Range>, start: u32, outcome: Place) {
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
