//! The differences between two texts of many lines.

/// The lines that only one of the texts has, with `-` for the first text and `+` for the second. The result is empty
/// for texts with the same lines.
pub fn diff(first: &str, second: &str) -> String {
    let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
    let removed = first.lines().filter(|line| lacks(second, line)).map(|line| format!("-{line}\n"));
    let added = second.lines().filter(|line| lacks(first, line)).map(|line| format!("+{line}\n"));
    removed.chain(added).collect()
}
