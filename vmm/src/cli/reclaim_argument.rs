//! How users say what the reclaim law is to do. Pure.

use balloon::control::reclaim::{AGES_MS, BUDGETS_PPM};
use balloon::policy;
use std::str::FromStr;

/// `--reclaim`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// As fits the guest.
    #[default]
    Auto,
    /// The guest's own kernel evicts.
    Trim,
    /// The balloon takes.
    Balloon,
    /// Nothing but limits.
    Off,
}

impl From<Mode> for policy::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Trim => Self::Trim,
            Mode::Balloon => Self::Balloon,
            Mode::Off => Self::Off,
        }
    }
}

/// Memory that is used at least that often is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkingSetAge {
    /// Milliseconds.
    pub ms: u64,
}

impl FromStr for WorkingSetAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let parsed = units.into_iter().find_map(|(unit, ms)| {
            let number: u64 = text.trim().strip_suffix(unit)?.trim_end().parse().ok()?;
            number.checked_mul(ms)
        });
        let ms = parsed.ok_or("use a whole number and a unit: 300s, 5m, 1h")?;
        if AGES_MS.contains(&ms) { Ok(Self { ms }) } else { Err("use 1s to 30d".into()) }
    }
}

/// Share of time that may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallBudget {
    /// Millionths.
    pub ppm: u64,
}

impl FromStr for StallBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').map(str::trim_end);
        let parsed = number.and_then(|number| {
            let (whole, part) = number.split_once('.').unwrap_or((number, ""));
            let digits = format!("{part:0<4}");
            let is_number = digits.len() == 4 && part.bytes().all(|byte| byte.is_ascii_digit());
            let part: u64 = digits.parse().ok().filter(|_| is_number)?;
            whole.parse::<u64>().ok()?.checked_mul(10_000)?.checked_add(part)
        });
        let ppm = parsed.ok_or("use a number of percent, such as 0.1%")?;
        if BUDGETS_PPM.contains(&ppm) { Ok(Self { ppm }) } else { Err("use 0.001% to 100%".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_units() {
        let ms = |text: &str| text.parse::<WorkingSetAge>().ok().map(|age| age.ms);
        assert_eq!(
            ["300s", "5m", "1h", "1500ms", "1d"].map(ms).map(Option::unwrap_or_default),
            [300_000, 300_000, 3_600_000, 1500, 86_400_000]
        );
        for bad in ["", "300", "s", "-1s", "1.5s", "0s", "99999999999999999d", "31d", "5 minutes"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn budgets_are_percent() {
        let ppm = |text: &str| text.parse::<StallBudget>().ok().map(|budget| budget.ppm);
        assert_eq!(
            ["0.1%", "1%", "0.03 %", "100%"].map(ppm).map(Option::unwrap_or_default),
            [1000, 10_000, 300, 1_000_000]
        );
        for bad in ["", "0.1", "%", "0%", "101%", "0.00001%", "1.+5%", "a%"] {
            assert_eq!(ppm(bad), None, "{bad}");
        }
    }
}
