//! What a reclaim law works with, as people write it: working-set ages (`300s`) and stall budgets (`0.1%`).
//!
//! Pure. The command line and the daemon's configuration parse with it, and what shows either formats with it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::written::{self, Written};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Working-set ages that a law takes, in milliseconds: below a second samples say nothing, and nobody waits a month.
pub const AGES_MS: RangeInclusive<u64> = 1000..=30 * 86_400_000;
/// Stall budgets that a law takes, in millionths of the time.
pub const BUDGETS_PPM: RangeInclusive<u64> = 10..=1_000_000;

/// Units of time, each with its milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Digits after the point of a share in per cent: a millionth has four.
const DIGITS: usize = 4;
/// Millionths in a per cent.
const PPM_OF_PERCENT: u64 = 10_000;
/// As much of a wrong text as is quoted.
const QUOTED: usize = 24;

/// Memory that is used at least that often is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkingSetAge {
    ms: u64,
}

/// Share of time that a guest may lose to memory stalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallBudget {
    ppm: u64,
}

/// A text that is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no working-set age, or one that no law takes.
    #[error(
        "'{0}' is no working-set age: write a whole number and a unit, such as 300s, 5m or 1h, from 1s to 30d"
    )]
    Age(String),
    /// It is no stall budget, or one that no law takes.
    #[error(
        "'{0}' is no stall budget: write per cent with at most four decimals, such as 0.1%, from 0.001% to 100%"
    )]
    Budget(String),
}

impl WorkingSetAge {
    /// An age of `ms` milliseconds; nothing if no law takes it.
    #[must_use]
    pub fn from_ms(ms: u64) -> Option<Self> {
        AGES_MS.contains(&ms).then_some(Self { ms })
    }

    /// In milliseconds.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.ms
    }
}

impl StallBudget {
    /// A budget of `ppm` millionths of the time; nothing if no law takes it.
    #[must_use]
    pub fn from_ppm(ppm: u64) -> Option<Self> {
        BUDGETS_PPM.contains(&ppm).then_some(Self { ppm })
    }

    /// In millionths of the time.
    #[must_use]
    pub const fn ppm(self) -> u64 {
        self.ppm
    }
}

impl FromStr for WorkingSetAge {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let ms = UNITS.into_iter().find_map(|(unit, ms)| {
            let number = digits(text.strip_suffix(unit)?.trim_end())?;
            number.checked_mul(ms)
        });
        ms.and_then(Self::from_ms).ok_or_else(|| Error::Age(quoted(text)))
    }
}

impl FromStr for StallBudget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let ppm = text.strip_suffix('%').and_then(|number| {
            let number = number.trim_end();
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            let part = Some(part).filter(|part| !part.is_empty() && part.len() <= DIGITS)?;
            let part = digits(&format!("{part:0<DIGITS$}"))?;
            digits(whole)?.checked_mul(PPM_OF_PERCENT)?.checked_add(part)
        });
        ppm.and_then(Self::from_ppm).ok_or_else(|| Error::Budget(quoted(text)))
    }
}

/// A number of digits only: no sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED).collect()
}

impl Written for WorkingSetAge {
    const EXPECTED: &'static str = "a time with its unit, such as \"300s\", \"5m\" or \"1h\"";
}

impl<'de> Deserialize<'de> for WorkingSetAge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written::read(deserializer)
    }
}

impl Written for StallBudget {
    const EXPECTED: &'static str = "a share of time in per cent, such as \"0.1%\"";
}

impl<'de> Deserialize<'de> for StallBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written::read(deserializer)
    }
}

impl fmt::Display for WorkingSetAge {
    /// In seconds, as ages are compared, or in milliseconds where those are not whole: `300 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms.is_multiple_of(1000) {
            write!(f, "{} s", self.ms / 1000)
        } else {
            write!(f, "{} ms", self.ms)
        }
    }
}

impl fmt::Display for StallBudget {
    /// In per cent, with no more decimals than it has: `0.1 %`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.ppm / PPM_OF_PERCENT, self.ppm % PPM_OF_PERCENT);
        if part == 0 {
            return write!(f, "{whole} %");
        }
        let part = format!("{part:0DIGITS$}");
        write!(f, "{whole}.{} %", part.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ages_have_units() {
        let ms = |text: &str| text.parse::<WorkingSetAge>().map(WorkingSetAge::ms).ok();
        for (text, age_ms) in
            [("300s", 300_000), ("5m", 300_000), ("1h", 3_600_000), ("1500ms", 1500), ("30d", 2_592_000_000)]
        {
            assert_eq!(ms(text), Some(age_ms), "{text}");
        }
        for bad in ["", "300", "s", "-1s", "+1s", "1.5s", "0s", "99999999999999999d", "31d", "5 minutes"] {
            assert_eq!(bad.parse::<WorkingSetAge>(), Err(Error::Age(bad.into())), "{bad}");
        }
        let error = "x".repeat(1000).parse::<WorkingSetAge>().unwrap_err().to_string();
        assert!(error.len() < 200 && error.contains("from 1s to 30d"), "{error}");
    }

    #[test]
    fn budgets_are_per_cent() {
        let ppm = |text: &str| text.parse::<StallBudget>().map(StallBudget::ppm).ok();
        for (text, budget_ppm) in [("0.1%", 1000), ("1%", 10_000), ("0.03 %", 300), ("100%", 1_000_000)] {
            assert_eq!(ppm(text), Some(budget_ppm), "{text}");
        }
        for bad in ["", "0.1", "%", "0%", "-1%", "101%", "0.0001%", "0.00001%", "1.%", ".5%", "1.+5%", "a%"] {
            assert_eq!(bad.parse::<StallBudget>(), Err(Error::Budget(bad.into())), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in AGES_MS, ppm in BUDGETS_PPM) {
            let (age, budget) = (WorkingSetAge::from_ms(ms).unwrap(), StallBudget::from_ppm(ppm).unwrap());
            prop_assert_eq!(age.to_string().parse(), Ok(age));
            prop_assert_eq!(budget.to_string().parse(), Ok(budget));
        }

        #[test]
        fn any_text_is_survived(text in "\\PC*") {
            let _ = (text.parse::<WorkingSetAge>(), text.parse::<StallBudget>());
        }
    }
}
