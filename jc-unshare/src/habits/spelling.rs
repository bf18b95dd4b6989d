//! The option that a misspelt one probably is.

use clap::{Arg, Command};

use super::table;

/// The long option of a program, or one of another program that the table has, which differs least from `typed`: by
/// two letters, or one in a short word.
pub fn nearest(program: &str, command: &Command, typed: &str) -> Option<String> {
    let typed = typed.strip_prefix("--")?;
    let most = if typed.chars().count() < 5 { 1 } else { 2 };
    let own = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long);
    let others = table::spellings(program).filter_map(|spelling| spelling.strip_prefix("--"));
    let others = others.filter(|spelling| !spelling.contains('='));
    let all = own.chain(others).map(|long| (distance(typed, long), long));
    all.filter(|(far, _)| *far <= most).min().map(|(_, long)| format!("--{long}"))
}

/// The number of letters to insert, delete, replace or exchange with the next (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let above = &rows[i - 1];
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_a_gap_and_another_letter_are_one_step() {
        for (a, b, steps) in [
            ("image", "image", 0),
            ("imgae", "image", 1),
            ("imge", "image", 1),
            ("memroy", "memory", 1),
            ("", "ab", 2),
            ("volume", "network", 7),
        ] {
            assert_eq!(distance(a, b), steps, "{a} {b}");
        }
    }
}
