//! Where two texts of many lines differ.

/// The lines that only one of them has, `-` before those of the first and `+` before those of the
/// second; nothing if they have the same.
pub fn diff(first: &str, second: &str) -> String {
    let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
    let removed = first.lines().filter(|line| lacks(second, line)).map(|line| format!("-{line}\n"));
    let added = second.lines().filter(|line| lacks(first, line)).map(|line| format!("+{line}\n"));
    removed.chain(added).collect()
}
