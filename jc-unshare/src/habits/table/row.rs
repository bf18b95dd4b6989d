//! The form of a row.

/// The answer to an option of another program.
pub enum Answer {
    /// An option with the same meaning, which gets the value.
    Same(&'static str),
    /// The program does that without an option.
    Nothing,
    /// Options with the same meaning, made of the value. The error is a hint.
    Words(fn(&str) -> Result<Vec<String>, String>),
    /// A line that does the same, in which `{1}` and `{2}` are the values.
    Instead(&'static str),
}

/// A row of the table.
pub struct Habit {
    /// The programs, with a space between two.
    pub programs: &'static str,
    /// The spellings, with a space between two. A spelling `--option=value` is one of that value only.
    pub spellings: &'static str,
    /// The number of values.
    pub values: u8,
    pub answer: Answer,
}

/// The spelling of a word that is no option.
pub const OPERAND: &str = "OPERAND";

/// A row of these parts.
pub const fn row(
    programs: &'static str,
    spellings: &'static str,
    values: u8,
    answer: Answer,
) -> Habit {
    Habit { programs, spellings, values, answer }
}
