//! What rules come to for each system call of an ABI.

use super::abi::Abi;
use super::mux;
use super::rules::{Action, Condition, ENOSYS, Operator, Rules};

/// Where ARM's own numbers begin (`__ARM_NR_BASE`).
pub const ARM_BASE: u32 = 0xF_0000;

/// What to do about a call.
#[derive(Debug, Eq, PartialEq)]
pub enum Outcome<'a> {
    /// This.
    Always(Action),
    /// What the first of the alternatives says whose conditions hold, else the default.
    If(Alternatives<'a>),
}

/// Conditions, and what to do if they hold.
pub type Alternatives<'a> = Vec<(Conditions<'a>, Action)>;

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
    /// But about these, each by itself, that.
    pub except: Vec<(u32, Place)>,
}

/// How many exceptions a range has at most, as they are looked for one after the other.
const EXCEPTIONS: usize = 4;

/// The outcomes of an ABI's numbers.
pub struct Outcomes<'a> {
    all: Vec<Outcome<'a>>,
    /// By number.
    common: Vec<Place>,
    /// By number past [`ARM_BASE`].
    arm: Vec<Place>,
}

impl<'a> Outcomes<'a> {
    /// Of the rules, for an ABI.
    pub fn of(rules: &Rules<'a>, abi: Abi) -> Self {
        let mut outcomes = Self {
            all: vec![Outcome::Always(rules.default)],
            common: Vec::with_capacity(512),
            arm: Vec::new(),
        };
        for rule in &rules.rules {
            let always = outcomes.always(rule.action);
            for call in rule.calls {
                if let Some(number) = call.number(abi) {
                    outcomes.add(number, Conditions::Rule(rule.conditions), rule.action, always);
                }
                if abi == Abi::X86
                    && rule.conditions.is_empty()
                    && let Some((carrier, condition)) = mux::carried(*call)
                {
                    outcomes.add(carrier, Conditions::Carried(condition), rule.action, always);
                }
            }
        }
        // Past the calls that the rules know.
        let newer = match rules.newer_is_enosys() {
            true => outcomes.always(Action::errno(ENOSYS)),
            false => DEFAULT,
        };
        outcomes.common.push(newer);
        outcomes.arm.push(DEFAULT);
        outcomes
    }

    /// What is in that place.
    pub fn get(&self, place: Place) -> &Outcome<'a> {
        &self.all[usize::from(place)]
    }

    fn place(&mut self, outcome: Outcome<'a>) -> Place {
        self.all.push(outcome);
        (self.all.len() - 1) as Place
    }

    fn always(&mut self, action: Action) -> Place {
        let outcome = Outcome::Always(action);
        let known = self.all.iter().position(|known| *known == outcome);
        known.map_or_else(|| self.place(outcome), |known| known as Place)
    }

    /// A rule for a number; `always` is the place of what it does.
    fn add(&mut self, number: u32, conditions: Conditions<'a>, action: Action, always: Place) {
        let (places, at) = match number.checked_sub(ARM_BASE) {
            Some(at) => (&mut self.arm, at as usize),
            None => (&mut self.common, number as usize),
        };
        if places.len() <= at {
            places.resize(at + 1, DEFAULT);
        }
        let place = &mut places[at];
        match (&mut self.all[usize::from(*place)], conditions.as_slice()) {
            // What the default does anyway needs no rule.
            _ if always == DEFAULT => {}
            (Outcome::Always(_), _) if *place != DEFAULT => {}
            // It makes those with conditions void.
            (_, []) => *place = always,
            (Outcome::If(alternatives), _) => alternatives.push((conditions, action)),
            (Outcome::Always(_), _) => {
                *place = self.all.len() as Place;
                self.all.push(Outcome::If(vec![(conditions, action)]));
            }
        }
    }

    fn are_same(&self, one: Place, other: Place) -> bool {
        one == other || self.get(one) == self.get(other)
    }

    /// All numbers, from the first one of the ABI on. A number that differs from both its neighbours,
    /// which are alike, is an exception: that is one comparison where two more ranges are two.
    pub fn ranges(&self, first: u32, abi: Abi) -> Vec<Range> {
        let own = if abi == Abi::Arm { &self.arm[..] } else { &[] };
        let mut ranges = Vec::with_capacity(64);
        for (mut start, places) in [(first, &self.common[..]), (ARM_BASE, own)] {
            for same in places.chunk_by(|one, other| one == other) {
                self.push(&mut ranges, start, same[0]);
                start += same.len() as u32;
            }
        }
        // No call at all: what a tracer replaces by that comes by as -1.
        self.push(&mut ranges, u32::MAX, DEFAULT);
        ranges
    }

    fn push(&self, ranges: &mut Vec<Range>, start: u32, outcome: Place) {
        match &mut ranges[..] {
            [.., last] if self.are_same(last.outcome, outcome) => {}
            [.., before, last]
                if start - last.start == 1
                    && last.except.is_empty()
                    && before.except.len() < EXCEPTIONS
                    && self.are_same(before.outcome, outcome) =>
            {
                before.except.push((last.start, last.outcome));
                ranges.pop();
            }
            _ => ranges.push(Range { start, outcome, except: Vec::new() }),
        }
    }
}
