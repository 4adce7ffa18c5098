//! Ways to manage the memory of the guests. Pure.

use std::str::FromStr;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arm {
    /// Each has its size for good: as many as that many sizes fit.
    Fixed,
    /// Guests report free pages, nothing else.
    Reporting,
    /// And TMO's rule runs in each, with this gain.
    Tmo(u32),
    /// Ballast as it is shipped, with its daemon.
    Ballast,
}

impl Arm {
    /// In the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Fixed, Self::Reporting, Self::Tmo(1), Self::Tmo(5), Self::Tmo(20), Self::Ballast];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Reporting => "reporting",
            Self::Tmo(1) => "tmo1",
            Self::Tmo(5) => "tmo5",
            Self::Tmo(_) => "tmo20",
            Self::Ballast => "ballast",
        }
    }

    /// Of `ballast run --reclaim`.
    #[must_use]
    pub const fn mode(self) -> &'static str {
        if matches!(self, Self::Ballast) { "auto" } else { "off" }
    }

    /// What the daemon is configured with, where there is one. That of fixed memory only counts sizes at the start.
    #[must_use]
    pub const fn daemon(self) -> Option<&'static str> {
        match self {
            Self::Fixed => Some("[pool]\novercommit = false\n"),
            Self::Ballast => Some(""),
            Self::Reporting | Self::Tmo(_) => None,
        }
    }

    /// The gain of TMO's rule, where that runs.
    #[must_use]
    pub const fn gain(self) -> Option<u32> {
        if let Self::Tmo(gain) = self { Some(gain) } else { None }
    }
}

impl FromStr for Arm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let arm = Self::ALL.into_iter().find(|arm| arm.name() == name);
        arm.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no arm {name}: there are {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arm_has_a_name_of_its_own() {
        for arm in Arm::ALL {
            assert_eq!(arm.name().parse(), Ok(arm));
        }
        assert!("off".parse::<Arm>().unwrap_err().contains("tmo20"));
    }
}
