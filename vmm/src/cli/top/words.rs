//! Numbers as `ballast top` writes them: short enough for a column, long enough to be told apart. Pure.

#![forbid(unsafe_code)]

use balloon::size::Size;

/// A size in at most five letters, below 10,000 TiB: `84M`, `1.5G`.
pub(super) fn compact(bytes: u64) -> String {
    let text = Size::from_bytes(bytes).to_string();
    let (number, unit) = text.split_once(' ').unwrap_or((&text, "B"));
    // A tenth tells nothing beside three digits.
    let number = match number.split_once('.') {
        Some((whole, _)) if whole.len() > 2 => whole,
        _ => number,
    };
    format!("{number}{}", unit.get(..1).unwrap_or("B"))
}

/// With one digit behind the point, unless it is large.
pub(super) fn tenths(value: f64) -> String {
    if value < 999.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// So many a second, in at most eight letters.
pub(super) fn rate(per_s: f64) -> String {
    if per_s < 99_999.5 { format!("{}/s", tenths(per_s)) } else { format!("{:.0}k/s", per_s / 1000.0) }
}

/// A part of a whole in percent; none of nothing.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let percent = (u128::from(part) * 100).checked_div(whole.into()).unwrap_or(0);
    u64::try_from(percent).unwrap_or(u64::MAX)
}

/// A size as everywhere else: `84 MiB`.
pub(super) fn size(bytes: u64) -> String {
    Size::from_bytes(bytes).to_string()
}

/// Lines of at most `width` letters, broken between words, or within those that are longer.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        for (at, part) in parts(word, width).into_iter().enumerate() {
            match lines.last_mut() {
                Some(line) if at == 0 && line.is_empty() => line.push_str(&part),
                Some(line) if at == 0 && line.chars().count() + 1 + part.chars().count() <= width => {
                    line.push(' ');
                    line.push_str(&part);
                }
                _ => lines.push(part),
            }
        }
    }
    lines
}

/// A word in pieces of at most `width` letters; at least one.
fn parts(word: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    match letters.len() {
        0 => vec![String::new()],
        _ => letters.chunks(width).map(|piece| piece.iter().collect()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("evict 3 MiB: as it is idle", 12), ["evict 3 MiB:", "as it is", "idle"]);
        assert_eq!(wrapped("a longest b", 4), ["a", "long", "est", "b"]);
    }

    proptest! {
        #[test]
        fn no_line_is_too_wide_and_no_letter_lost(text in "[a-zä]{0,9}( [a-z]{1,9}){0,9}", width in 0usize..20) {
            let lines = wrapped(&text, width);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width.max(1)));
            prop_assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
    }

    #[test]
    fn numbers_fit_their_columns() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (84 << 20, "84M"),
            (1535 << 20, "1.4G"),
            ((100 << 20) + 1, "100M"),
            (1023 << 30, "1023G"),
            (u64::MAX, "16777215T"),
        ] {
            assert_eq!(compact(bytes), text);
        }
        for (value, text) in [(0.0, "0.0"), (99.94, "99.9"), (999.9, "999.9"), (1600.4, "1600")] {
            assert_eq!(tenths(value), text);
        }
        for (value, text) in [(0.25, "0.2/s"), (99_999.0, "99999/s"), (1_234_567.0, "1235k/s")] {
            assert_eq!(rate(value), text);
        }
        assert_eq!((percent(1, 3), percent(5, 0), percent(u64::MAX, u64::MAX)), (33, 0, 100));
    }
}
