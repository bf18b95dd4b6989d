//! Tables for terminals.

/// Formats rows with aligned columns, two spaces apart. Columns from `first_number` on are aligned to the
/// right.
pub fn table<const N: usize>(rows: &[[String; N]], first_number: usize) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column < first_number { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_width_of_their_longest_cell() {
        let rows = [["A", "SIZE"], ["äöü", "5"], ["", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows, 1), "A    SIZE\näöü     5\n\n");
        assert_eq!(table(&rows, 2), "A    SIZE\näöü  5\n\n");
    }
}
