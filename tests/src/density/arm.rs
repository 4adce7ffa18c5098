//! Ways to manage the memory of the guests. Pure.

use super::kind::Kind;
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
    /// And stores are of a group that is trimmed as docs/policy.md advises for latency.
    Latency,
    /// And stores are promised all of their memory.
    Promised,
}

impl Arm {
    /// In the order of the table.
    pub const ALL: [Self; 8] = [
        Self::Fixed,
        Self::Reporting,
        Self::Tmo(1),
        Self::Tmo(5),
        Self::Tmo(20),
        Self::Ballast,
        Self::Latency,
        Self::Promised,
    ];

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
            Self::Latency => "latency",
            Self::Promised => "promised",
        }
    }

    /// Of `ballast run --reclaim`.
    #[must_use]
    pub const fn mode(self) -> &'static str {
        if matches!(self, Self::Ballast | Self::Latency | Self::Promised) { "auto" } else { "off" }
    }

    /// What the daemon is configured with, where there is one. That of fixed memory only counts sizes at the start.
    #[must_use]
    pub const fn daemon(self) -> Option<&'static str> {
        match self {
            Self::Fixed => Some("[pool]\novercommit = false\n"),
            Self::Ballast | Self::Promised => Some(""),
            Self::Latency => Some("[groups.stores]\nworking-set-age = '1800s'\nstall-budget = '0.03%'\n"),
            Self::Reporting | Self::Tmo(_) => None,
        }
    }

    /// What else `ballast run` is told of such a guest.
    #[must_use]
    pub const fn options(self, kind: Kind) -> &'static [&'static str] {
        match (self, kind) {
            (Self::Latency, Kind::Store) => &["--group", "stores"],
            (Self::Promised, Kind::Store) => &["--memory-min", "256m"],
            _ => &[],
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

    #[test]
    fn groups_are_those_that_the_daemon_is_configured_with() {
        let mut groups = 0;
        for (arm, kind) in Arm::ALL.into_iter().flat_map(|arm| Kind::ALL.map(|kind| (arm, kind))) {
            let &["--group", group] = arm.options(kind) else { continue };
            groups += 1;
            let config = arm.daemon().unwrap();
            assert!(config.contains(&format!("[groups.{group}]")), "{group}: {config}");
        }
        assert_eq!(groups, 1);
    }
}
