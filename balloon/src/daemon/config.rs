//! The daemon's configuration: TOML, of which every part may be left out. Pure.
//!
//! ```toml
//! metrics = "127.0.0.1:9753"  # GET /metrics on TCP, too, for whoever can reach that address
//!
//! [pool]
//! capacity = "48g"        # by default the host's memory less a sixteenth, at least 256 MiB
//! overcommit = true       # the sum of maximums may exceed the pool
//! share = "host"          # how far image layers are shared: host, group, vm; by default within the group at the top
//! kill = "never"          # or least-protected: at the host's very end
//!
//! [pool.watermarks]
//! short = "4%"            # and enough, critical, refuse: shares of the host's memory that are available
//!
//! [groups."ci/linux"]
//! min = "2g"              # min, low, high, max: sizes; weight: 1 to 10000
//! charging = "proportional"   # or first-touch, common
//! share = "group"             # within this group
//! working-set-age = "60s"     # and stall-budget: what its microVMs' laws work with unless they were told themselves
//! ```

#![forbid(unsafe_code)]

use super::group_policy::{GroupPolicies, Said};
use super::watermarks::Watermarks;
use crate::policy::fleet::FleetTuning;
use crate::size::Size;
use crate::working_set::{StallBudget, WorkingSetAge};
use crate::written::{self, Written};
use crate::zone::scope::Sharing;
use crate::zone::{Charging, DEFAULT_WEIGHT, Error as ZoneError, Limits, Pool, Share, Tree};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;

/// What the host keeps for itself: its kernel's page structures alone take a 64th.
const KEPT_PART: u64 = 16;
const KEPT_LEAST_BYTES: u64 = 256 << 20;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no TOML, or says what there is not.
    #[error("the configuration cannot be understood: {shown}")]
    Text {
        /// What is wrong, below the line that is.
        shown: String,
        /// What is wrong, in one line.
        told: String,
    },
    /// What it says cannot be had.
    #[error("the configuration cannot be used")]
    Zone(#[from] ZoneError),
}

/// A configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where metrics are served on TCP; without it nowhere. It holds from the daemon's start on.
    #[serde(deserialize_with = "address")]
    pub metrics: Option<SocketAddr>,
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
    /// How far image layers are shared where no group says.
    pub share: Option<Share>,
    /// What is done about how little of the host's memory is available.
    pub watermarks: Watermarks,
    /// Who is killed when below the last watermark nothing else helps.
    pub kill: KillConfig,
}

/// Who is killed when nothing else helps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillConfig {
    /// Nobody: the host's kernel chooses, if it has to.
    #[default]
    Never,
    /// The microVM of the least weight that has more than is protected of it.
    LeastProtected,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            capacity: None,
            overcommit: true,
            charging: None,
            share: None,
            watermarks: Watermarks::default(),
            kill: KillConfig::default(),
        }
    }
}

/// Limits of a group, and what its microVMs inherit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
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
    /// How far its microVMs share the layers of their images.
    pub share: Option<Share>,
    /// What its microVMs use at least that often they keep.
    pub working_set_age: Option<WorkingSetAge>,
    /// Share of time that its microVMs may lose to memory stalls.
    pub stall_budget: Option<StallBudget>,
}

/// Where metrics are served, as it is written.
struct Address(SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            let shown: String = text.chars().take(60).collect();
            format!("'{shown}' is no address to listen on: write {}", Self::EXPECTED)
        })
    }
}

impl Written for Address {
    const EXPECTED: &'static str = "an IP address and a port, such as \"127.0.0.1:9753\"";
}

fn address<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    written::read(deserializer).map(|Address(address)| Some(address))
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// It is none; the message names line and column.
    pub fn parse(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let told =
                format!("line {}: {}", before.matches('\n').count().saturating_add(1), error.message());
            Error::Text { shown: error.to_string(), told }
        })
    }

    /// The tree that it describes, on a host with so much memory.
    ///
    /// # Errors
    /// The groups' limits contradict each other or do not fit the pool.
    pub fn tree(&self, memory_bytes: u64) -> Result<Tree, Error> {
        let mut tree = Tree::new(self.pool(memory_bytes))?;
        self.configure(memory_bytes, &mut tree)?;
        Ok(tree)
    }

    /// Makes `tree` what it describes, all or nothing; who is in it stays.
    ///
    /// # Errors
    /// As of [`Self::tree`], and what has been promised meanwhile does not fit.
    pub fn configure(&self, memory_bytes: u64, tree: &mut Tree) -> Result<(), ZoneError> {
        let groups = self.groups.iter().map(|(path, group)| (path.as_str(), group.limits(), group.charging));
        tree.configure(self.pool(memory_bytes), &groups.collect::<Vec<_>>())?;
        tree.set_charging(tree.root(), self.pool.charging)
    }

    /// How far image layers are shared.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        let pool = self.pool.share.map(|share| (String::new(), share));
        let groups = self.groups.iter().filter_map(|(path, group)| Some((path.clone(), group.share?)));
        Sharing::new(pool.into_iter().chain(groups).collect())
    }

    /// What groups say of how the laws of their microVMs work.
    #[must_use]
    pub fn policies(&self) -> GroupPolicies {
        let said = |group: &GroupConfig| Said {
            working_set_age: group.working_set_age,
            stall_budget: group.stall_budget,
        };
        GroupPolicies::new(self.groups.iter().map(|(path, group)| (path.clone(), said(group))).collect())
    }

    /// The constants of arbitration.
    #[must_use]
    pub fn tuning(&self) -> FleetTuning {
        let Watermarks { enough, short, critical, refuse } = self.pool.watermarks;
        FleetTuning {
            enough_permille: enough.permille(),
            short_permille: short.permille(),
            critical_permille: critical.permille(),
            refuse_permille: refuse.permille(),
            kills: self.pool.kill == KillConfig::LeastProtected,
            ..FleetTuning::default()
        }
    }

    fn pool(&self, memory_bytes: u64) -> Pool {
        let kept = (memory_bytes / KEPT_PART).max(KEPT_LEAST_BYTES);
        let capacity = self.pool.capacity.map(Size::bytes);
        let capacity_bytes = capacity.unwrap_or(memory_bytes.saturating_sub(kept));
        Pool { capacity_bytes, overcommit: self.pool.overcommit }
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
    use crate::zone::Scope;

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
        let plain = Config::parse("[groups.ci]\nmax = 4096\n").unwrap();
        assert_eq!(plain.groups["ci"].max, Some(Size::from_bytes(4096)));
        assert_eq!(tree.charging(tree.group("ci/linux").unwrap()), Charging::Common);
        assert_eq!(tree.charging(tree.group("ci").unwrap()), Charging::Proportional);
    }

    #[test]
    fn arbitration_is_by_default_what_it_is_without_a_configuration() {
        assert_eq!(Config::default().tuning(), FleetTuning::default());
        let text = "[pool]\nkill = 'least-protected'\n[pool.watermarks]\nenough = '30%'\nrefuse = '1.5%'\n";
        let tuning = Config::parse(text).unwrap().tuning();
        assert_eq!((tuning.enough_permille, tuning.short_permille, tuning.refuse_permille), (300, 40, 15));
        assert!(tuning.kills);
    }

    #[test]
    fn a_configuration_is_read_anew_around_those_who_are_there() {
        let mut tree = Config::parse("[groups.ci]\nmax = '4g'\n").unwrap().tree(16 * GIB).unwrap();
        tree.create_vm("ci", "a", Limits::default()).unwrap();
        let text = "[pool]\nshare = 'vm'\n[groups.ci]\nhigh = '2g'\n[groups.web]\nshare = 'group'\n";
        let config = Config::parse(text).unwrap();
        config.configure(16 * GIB, &mut tree).unwrap();
        let ci = *tree.get(tree.group("ci").unwrap()).unwrap().limits();
        assert_eq!(ci, Limits { high: Some(2 * GIB), ..Limits::default() });
        let scope = |group| config.sharing().scope(group, "a", None).unwrap();
        assert_eq!(scope("web/x"), Scope::Group("web".into()));
        assert_eq!(scope("ci"), Scope::Vm("a".into()));
    }

    /// All keys that there are, also those that only a comment shows.
    #[test]
    fn the_example_can_be_had_and_shows_every_key() {
        let text = include_str!("../../../resources/ballastd.toml");
        Config::parse(text).unwrap().tree(16 * GIB).unwrap();
        let shown: String = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line))
            .map(|line| format!("{}\n", line.replace("\"...\"", "\"15g\"")))
            .collect();
        let Config { metrics, pool, groups } = Config::parse(&shown).unwrap();
        assert!(metrics.is_some());
        let PoolConfig { capacity, overcommit: _, charging, share, watermarks, kill } = pool;
        assert_eq!((watermarks, kill), Default::default(), "what is shown is the default");
        for key in ["enough", "short", "critical", "refuse", "kill"] {
            assert!(shown.contains(&format!("\n{key} = ")), "{key}");
        }
        assert!(capacity.is_some() && charging.is_some() && share.is_some(), "{shown}");
        assert!(shown.contains("\novercommit = true"));
        let shows = |key: fn(&GroupConfig) -> bool| groups.values().any(key);
        assert!(shows(|group| group.min.is_some()) && shows(|group| group.low.is_some()));
        assert!(shows(|group| group.high.is_some()) && shows(|group| group.max.is_some()));
        assert!(shows(|group| group.weight.is_some()) && shows(|group| group.charging.is_some()));
        assert!(shows(|group| group.share.is_some()) && shows(|group| group.working_set_age.is_some()));
        assert!(shows(|group| group.stall_budget.is_some()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, word) in [
            ("[pool]\novercomit = true\n", "line 2"),
            ("[groups.ci]\nmax = '4 apples'\n", "line 2"),
            ("[groups.ci]\nmax = \n", "line 2"),
            ("[groups.ci]\nmax = -1\n", "line 2"),
            ("[groups.ci]\nmax = true\n", "line 2"),
            ("\nmetrics = '9753'\n", "line 2"),
            ("[pool]\nkill = 'always'\n", "line 2"),
            ("[groups.ci]\nmax = '1g'\nworking-set-age = '0s'\n", "line 3"),
            ("[groups.ci]\nworking-set-age = 60\n", "line 2"),
            ("[groups.ci]\nworking-set-age = '-60s'\n", "line 2"),
            ("[groups.ci]\nworking-set-age = '31d'\n", "line 2"),
            ("[groups.ci]\nworking_set_age = '60s'\n", "line 2"),
            ("[groups.ci]\nstall-budget = '0%'\n", "line 2"),
            ("[groups.ci]\n\nstall-budget = '0.1'\n", "line 3"),
            ("[groups.ci]\nstall-budget = '101%'\n", "line 2"),
            ("[groups.ci]\nreclaim = 'trim'\n", "line 2"),
            ("[pool]\n[pool.watermarks]\nshort = '4'\n", "line 3"),
            ("[pool]\n[pool.watermarks]\nshrt = '4%'\n", "line 3"),
            ("[pool]\ncapacity = '1g'\nwatermarks = { short = '7%' }\n", "line 3"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert!(matches!(&error, Error::Text { told, .. } if told.starts_with(word)), "{error:?}");
        }
        for (key, value, allowed) in [
            ("working-set-age", "0s", "from 1s to 30d"),
            ("working-set-age", "forever", "such as 300s, 5m or 1h"),
            ("stall-budget", "-1%", "from 0.001% to 100%"),
        ] {
            let error = Config::parse(&format!("[groups.ci]\n{key} = '{value}'\n")).unwrap_err().to_string();
            assert!(error.contains(value) && error.contains(allowed), "{error}");
        }
        // Who writes no text learns which one to write.
        for (text, example) in [
            ("metrics = 9753\n", "127.0.0.1:9753"),
            ("[groups.ci]\nworking-set-age = 60\n", "300s"),
            ("[groups.ci]\nstall-budget = 0.1\n", "0.1%"),
            ("[pool.watermarks]\nshort = 4\n", "1.5%"),
            ("[groups.ci]\nmax = 0.5\n", "512m"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{example}\"")), "{error}");
        }
        let text = "[pool]\ncapacity = '1g'\n[groups.ci]\nmin = '2g'\n";
        assert!(matches!(
            Config::parse(text).unwrap().tree(0),
            Err(Error::Zone(ZoneError::Protected { .. }))
        ));
    }
}
