//! How little of the host's memory may be available before something is done about it. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::policy::fleet::FleetTuning;
use crate::written::{self, Written};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;

/// Shares of the host's memory that are available, each less than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Partial")]
pub struct Watermarks {
    /// From here on pressure is over.
    pub enough: Share,
    /// Below it, or when that is about to be, pressure rises and memory is taken back.
    pub short: Share,
    /// Below it ceilings are lowered in the same tick.
    pub critical: Share,
    /// Below it no microVM is started, and if that is wanted one is killed at last.
    pub refuse: Share,
}

/// The same as it is written, where each may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Partial {
    enough: Option<Share>,
    short: Option<Share>,
    critical: Option<Share>,
    refuse: Option<Share>,
}

/// A share, written in per cent with at most one decimal: `4%`, `1.5%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    permille: u64,
}

/// No watermarks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no share.
    #[error("'{0}' is no share of memory: write per cent with at most one decimal, as \"4%\" or \"1.5%\"")]
    Share(String),
    /// They are not in order.
    #[error(
        "watermarks fall from enough over short and critical to refuse, below 100%: {enough}, {short}, {critical}, \
         {refuse} do not"
    )]
    Order {
        /// The first.
        enough: Share,
        /// The second.
        short: Share,
        /// The third.
        critical: Share,
        /// The last.
        refuse: Share,
    },
}

impl Default for Watermarks {
    fn default() -> Self {
        let tuning = FleetTuning::default();
        let [enough, short, critical, refuse] =
            [tuning.enough_permille, tuning.short_permille, tuning.critical_permille, tuning.refuse_permille]
                .map(|permille| Share { permille });
        Self { enough, short, critical, refuse }
    }
}

impl TryFrom<Partial> for Watermarks {
    type Error = Error;

    fn try_from(partial: Partial) -> Result<Self, Error> {
        let usual = Self::default();
        let enough = partial.enough.unwrap_or(usual.enough);
        let short = partial.short.unwrap_or(usual.short);
        let critical = partial.critical.unwrap_or(usual.critical);
        let refuse = partial.refuse.unwrap_or(usual.refuse);
        if enough.permille < 1000 && enough > short && short > critical && critical > refuse {
            Ok(Self { enough, short, critical, refuse })
        } else {
            Err(Error::Order { enough, short, critical, refuse })
        }
    }
}

impl Share {
    /// In thousandths.
    #[must_use]
    pub fn permille(self) -> u64 {
        self.permille
    }
}

impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = || Error::Share(text.chars().take(24).collect());
        let digits =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok());
        let number = text.strip_suffix('%').ok_or_else(error)?.trim_end();
        let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
        let tenths = digits(tenths).flatten().filter(|_| tenths.len() == 1);
        let permille = digits(whole).flatten().and_then(|whole| whole.checked_mul(10)?.checked_add(tenths?));
        permille.filter(|permille| *permille <= 1000).map(|permille| Self { permille }).ok_or_else(error)
    }
}

impl Written for Share {
    const EXPECTED: &'static str = "a share of memory in per cent, such as \"4%\" or \"1.5%\"";
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written::read(deserializer)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, tenths) = (self.permille / 10, self.permille % 10);
        if tenths == 0 { write!(f, "{whole}%") } else { write!(f, "{whole}.{tenths}%") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_a_sign_and_at_most_one_decimal() {
        for (text, permille) in [("4%", 40), ("1.5%", 15), ("0%", 0), ("100 %", 1000), ("0.1%", 1)] {
            assert_eq!(text.parse(), Ok(Share { permille }), "{text}");
        }
        for text in
            ["", "%", "4", "-4%", "4.25%", "4.%", ".5%", "101%", "+1%", "4 apples", "99999999999999999999%"]
        {
            assert_eq!(text.parse::<Share>(), Err(Error::Share(text.into())), "{text}");
        }
        for text in ["4%", "1.5%", "100%"] {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn each_is_less_than_the_one_before() {
        let read =
            |text: &str| toml::from_str::<Watermarks>(text).map_err(|error| error.message().to_owned());
        assert_eq!(read(""), Ok(Watermarks::default()));
        assert_eq!(read("short = '5.9%'").unwrap().short.permille(), 59);
        for text in ["enough = '100%'", "enough = '4%'", "short = '6%'", "critical = '1%'", "refuse = '2%'"] {
            assert!(read(text).unwrap_err().contains("fall from enough"), "{text}");
        }
    }
}
