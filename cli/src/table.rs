//! Tables of text: columns as wide as their widest cell, the last one as it comes. Readable without colour.

/// `head` and `rows` have the same number of cells.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let head = head.map(str::to_owned);
    let lines = std::iter::once(&head).chain(rows).map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Names and values, one pair a line; pairs without a value are left out.
pub fn fields(pairs: &[(&str, String)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = pairs.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = pairs.map(|(name, value)| format!("{name:<width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_without_a_value_are_left_out() {
        let pairs = [("id", "a".to_owned()), ("title", String::new()), ("status", "idle".to_owned())];
        assert_eq!(fields(&pairs), "id      a\nstatus  idle");
    }

    #[test]
    fn columns_line_up() {
        let rows =
            [["a".to_owned(), "über".to_owned(), String::new()], ["long".to_owned(), "b".to_owned(), "c".to_owned()]];
        assert_eq!(table(["ID", "NAME", "X"], &rows), "ID    NAME  X\na     über\nlong  b     c");
        assert_eq!(table(["ID"], &[]), "ID");
    }
}
