//! The guests of the mix. Pure.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A service that is seldom asked.
    Idle,
    /// A key-value store.
    Store,
    /// A builder of programs.
    Compile,
    /// A reader of streams.
    Scan,
}

impl Kind {
    /// All, in the order in which they take turns.
    pub const ALL: [Self; 4] = [Self::Idle, Self::Store, Self::Compile, Self::Scan];

    /// Of the microVM of that number, from 1.
    #[must_use]
    pub const fn of(number: usize) -> Self {
        Self::ALL[number.saturating_sub(1) % Self::ALL.len()]
    }

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Store => "store",
            Self::Compile => "compile",
            Self::Scan => "scan",
        }
    }

    /// Whether somebody waits for each of its requests: of the others it counts how much is done.
    #[must_use]
    pub const fn answers(self) -> bool {
        matches!(self, Self::Idle | Self::Store)
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("no guest of the mix is called {name}: idle, store, compile and scan are"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_take_turns_and_are_found_by_name() {
        let five: Vec<Kind> = (1..=5).map(Kind::of).collect();
        assert_eq!(five, [Kind::Idle, Kind::Store, Kind::Compile, Kind::Scan, Kind::Idle]);
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("kv".parse::<Kind>().is_err());
    }
}
