//! Where a start's time went: the table of `ballast run --timings`. Pure.

use crate::report::Milestone;
use std::fmt::Write;

/// A table of `milestones` since `start_us`, when `ballast` started; times on the host's clock.
#[must_use]
pub fn table(start_us: u64, milestones: &[Milestone]) -> String {
    let mut text = String::from("      at ms   took ms  what\n");
    let mut last = start_us;
    for milestone in milestones {
        let at = milestone.host_us.saturating_sub(start_us);
        let took = milestone.host_us.saturating_sub(last);
        last = milestone.host_us;
        let guest = milestone.guest_us.map(|us| format!(" (guest clock {})", millis(us))).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:>11}{:>10}  {}{guest}", millis(at), millis(took), milestone.name);
    }
    text
}

fn millis(us: u64) -> String {
    format!("{}.{}", us / 1000, us % 1000 / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_says_when_and_how_long() {
        let milestone = |name: &str, host_us, guest_us| Milestone { name: name.into(), host_us, guest_us };
        let text = table(1000, &[milestone("a", 3500, None), milestone("b", 103_500, Some(90_000))]);
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(rows[1], "        2.5       2.5  a");
        assert_eq!(rows[2], "      102.5     100.0  b (guest clock 90.0)");
    }
}
