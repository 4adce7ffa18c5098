//! How listings are written: columns for people, JSON for programs.

pub use balloon::logging::printable;

use clap::ValueEnum;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Most of a cell that is shown: some say what a microVM or an image says, and padding ends at 65,535.
const CELL_CHARS: usize = 400;

/// Writes rows below headings, each column as wide as its widest cell. Of a cell that is longer than anything that Ballast
/// writes, the beginning.
///
/// # Errors
/// The output cannot be written.
pub fn write_table<const N: usize>(
    headings: [&str; N],
    rows: &[[String; N]],
    output: &mut impl Write,
) -> io::Result<()> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| shown(cell).chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    });
    let mut write_row = |cells: [&str; N]| -> io::Result<()> {
        let mut line = String::new();
        for (column, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            line.push_str(&format!("{gap}{cell:<width$}"));
        }
        writeln!(output, "{}", line.trim_end())
    };
    write_row(headings)?;
    rows.iter().try_for_each(|row| {
        let cells = row.each_ref().map(|cell| shown(cell));
        write_row(cells.each_ref().map(AsRef::as_ref))
    })
}

fn shown(cell: &str) -> Cow<'_, str> {
    match cell.char_indices().nth(CELL_CHARS) {
        Some((end, _)) => Cow::Owned(format!("{}...", &cell[..end])),
        None => Cow::Borrowed(cell),
    }
}

/// Writes a list: a row for each item below headings, or all items as one JSON document.
///
/// # Errors
/// The output cannot be written.
pub fn write_list<T: Serialize, const N: usize>(
    format: Format,
    headings: [&str; N],
    items: &[T],
    row: impl Fn(&T) -> [String; N],
    output: &mut impl Write,
) -> io::Result<()> {
    match format {
        Format::Table => write_table(headings, &items.iter().map(row).collect::<Vec<_>>(), output),
        Format::Json => {
            serde_json::to_writer(&mut *output, items)?;
            writeln!(output)
        }
    }
}

/// How long something lasted, in one unit: `42 s`, `3 min`, `5 h`, `9 d`.
#[must_use]
pub fn lasted(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_one_unit() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (172_800, "2 d")] {
            assert_eq!(lasted(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut text = Vec::new();
        let rows = [["a".into(), "long cell".into()], ["bcd".into(), String::new()]];
        write_table(["N", "COLUMN"], &rows, &mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "N    COLUMN\na    long cell\nbcd\n");
    }

    #[test]
    fn a_cell_of_any_length_is_cut() {
        let mut text = Vec::new();
        let rows = [["\u{10ffff}".repeat(1 << 20), "b".into()], ["c".repeat(CELL_CHARS), "d".into()]];
        write_table(["N", "COLUMN"], &rows, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let [_, long, longest] = text.lines().collect::<Vec<_>>().try_into().unwrap();
        assert!(long.ends_with("\u{10ffff}...  b") && longest.ends_with("c     d"), "{text}");
        assert_eq!([long, longest].map(|line| line.chars().count()), [CELL_CHARS + 6; 2]);
    }
}
