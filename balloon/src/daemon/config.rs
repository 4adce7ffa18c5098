//! The daemon's configuration: TOML, of which every part may be left out. Pure.
//!
//! ```toml
//! [pool]
//! capacity = "48g"        # by default the host's memory less a sixteenth, at least 256 MiB
//! overcommit = true       # the sum of maximums may exceed the pool
//!
//! [groups."ci/linux"]
//! min = "2g"              # min, low, high, max: sizes; weight: 1 to 10000
//! charging = "proportional"   # or first-touch, common
//! ```

#![forbid(unsafe_code)]

use crate::size::Size;
use crate::zone::{Charging, DEFAULT_WEIGHT, Error as ZoneError, Limits, Pool, Tree};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What the host keeps for itself: its kernel's page structures alone take a 64th.
const KEPT_PART: u64 = 16;
const KEPT_LEAST_BYTES: u64 = 256 << 20;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no TOML, or says what there is not.
    #[error("the configuration cannot be understood: {0}")]
    Text(String),
    /// What it says cannot be had.
    #[error("the configuration cannot be had")]
    Zone(#[from] ZoneError),
}

/// A configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The memory that microVMs may use together.
    pub pool: PoolConfig,
    /// Groups, by their paths. They stay without microVMs, too.
    pub groups: BTreeMap<String, GroupConfig>,
}

/// The memory that microVMs may use together.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// How much.
    pub capacity: Option<Size>,
    /// The sum of maximums may exceed it.
    pub overcommit: bool,
    /// How shared zones are charged where no group says.
    pub charging: Option<Charging>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { capacity: None, overcommit: true, charging: None }
    }
}

/// Limits of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupConfig {
    /// Never taken.
    pub min: Option<Size>,
    /// Taken last.
    pub low: Option<Size>,
    /// Taken back to.
    pub high: Option<Size>,
    /// Never exceeded.
    pub max: Option<Size>,
    /// Its part under pressure.
    pub weight: Option<u32>,
    /// How zones that are shared within it are charged.
    pub charging: Option<Charging>,
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// It is none; the message names line and column.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| Error::Text(error.to_string()))
    }

    /// The tree that it describes, on a host with so much memory.
    ///
    /// # Errors
    /// The groups' limits contradict each other or do not fit the pool.
    pub fn tree(&self, memory_bytes: u64) -> Result<Tree, Error> {
        let kept = (memory_bytes / KEPT_PART).max(KEPT_LEAST_BYTES);
        let capacity = self.pool.capacity.map(Size::bytes);
        let capacity_bytes = capacity.unwrap_or(memory_bytes.saturating_sub(kept));
        let mut tree = Tree::new(Pool { capacity_bytes, overcommit: self.pool.overcommit })?;
        tree.set_charging(tree.root(), self.pool.charging)?;
        for (path, group) in &self.groups {
            let id = tree.create_group(path, group.limits())?;
            tree.set_charging(id, group.charging)?;
        }
        Ok(tree)
    }
}

impl GroupConfig {
    fn limits(&self) -> Limits {
        Limits {
            min: self.min.map(Size::bytes),
            low: self.low.map(Size::bytes),
            high: self.high.map(Size::bytes),
            max: self.max.map(Size::bytes),
            weight: self.weight.unwrap_or(DEFAULT_WEIGHT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn nothing_is_a_configuration() {
        let tree = Config::parse("").unwrap().tree(16 * GIB).unwrap();
        assert_eq!(tree.pool(), Pool { capacity_bytes: 15 * GIB, overcommit: true });
        let tree = Config::default().tree(GIB).unwrap();
        assert_eq!(tree.pool().capacity_bytes, GIB - KEPT_LEAST_BYTES);
    }

    #[test]
    fn groups_have_limits() {
        let text = "[pool]\ncapacity = '8g'\novercommit = false\n[groups.ci]\nmax = '4g'\nweight = 7\n\
                    [groups.'ci/linux']\nmin = '1g'\ncharging = 'common'\n";
        let tree = Config::parse(text).unwrap().tree(0).unwrap();
        assert_eq!(tree.pool(), Pool { capacity_bytes: 8 * GIB, overcommit: false });
        let limits = |path| *tree.get(tree.group(path).unwrap()).unwrap().limits();
        assert_eq!(limits("ci"), Limits { max: Some(4 * GIB), weight: 7, ..Limits::default() });
        assert_eq!(limits("ci/linux").min, Some(GIB));
        assert_eq!(tree.charging(tree.group("ci/linux").unwrap()), Charging::Common);
        assert_eq!(tree.charging(tree.group("ci").unwrap()), Charging::Proportional);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, word) in [
            ("[pool]\novercomit = true\n", "line 2"),
            ("[groups.ci]\nmax = '4 apples'\n", "line 2"),
            ("[groups.ci]\nmax = \n", "line 2"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let text = "[pool]\ncapacity = '1g'\n[groups.ci]\nmin = '2g'\n";
        assert!(matches!(
            Config::parse(text).unwrap().tree(0),
            Err(Error::Zone(ZoneError::Protected { .. }))
        ));
    }
}
