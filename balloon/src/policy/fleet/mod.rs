//! Between microVMs: how hard each is pressed, what each is to give back, by how much each may grow unasked.
//!
//! Called by the daemon, once a tick (2 s). Pure, like the law, and takes no memory once it has seen all nodes.
//!
//! ```text
//! zone tree, host, readings ──> 1. pressure: one number a node, more while it holds more than its goal
//!                               2. directed take: if that is too slow, the coldest bytes of all in the node
//!                               3. ceilings: from whom does not follow, or from all if the host is at its end
//!                               4. grants: what of the host's reserve each may take under pressure of its own
//! ```
//!
//! - A microVM's pressure is the greatest of all nodes above it and its own, divided by its weight. It trims to its
//!   working-set age divided by that, so that in one group all are trimmed to one age: what is needed soonest stays,
//!   whoever has it.
//! - Directed, all give what is older than one age, the age at which it suffices. What no age explains is
//!   taken in proportion to what each has beyond its protection. First what `low` leaves, then what `min` leaves,
//!   never more ([`Protection`](crate::zone::Protection), by the kernel's formula, seen from the node that is short).
//! - While the host is short nobody's target is raised.
//! - What the pool still lacks when all that has been waited for is swapped out by the host, divided in the same way. Below
//!   the last watermark, where nothing gets better by that, the least protected microVM is chosen to be killed, if
//!   that is wanted at all: one, and the next when all of its memory is back.

mod ages;
mod direct;
mod grants;
mod host;
mod lambda;
mod memory;
mod shortage;
mod take;
#[cfg(test)]
mod tests;
mod tick;
#[cfg(test)]
mod tree_tests;

pub use ages::Cold;
pub use host::Host;
#[cfg(feature = "daemon")]
pub(crate) use host::kib;
pub use tick::Fleet;

use crate::zone::Id;
use serde::{Deserialize, Serialize};

/// Points of a guest's cold curve: one for each generation but the oldest.
pub const COLD_POINTS: usize = 3;

/// What a microVM says of itself, for arbitration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Which.
    pub vm: Id,
    /// Its ceiling.
    pub ceiling_bytes: u64,
    /// How much of its memory is unused for how long, ages ascending; those of no age are none.
    pub cold: [Cold; COLD_POINTS],
    /// What it is giving back, by its law.
    pub yield_bytes_per_s: u64,
    /// Whether its guest carries out orders. Who does not is left to the balloon.
    pub follows: bool,
    /// Whether its VMM has the host swap out what it is told to.
    pub pages_out: bool,
}

/// What a microVM is leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allotment {
    /// Which.
    pub vm: Id,
    /// Pressure on it: 1000 is none.
    pub lambda_permille: u64,
    /// Lowest `max` of it and all above it.
    pub max_bytes: u64,
    /// Its ceiling without pressure of its own, if that is less than `max`.
    pub high_bytes: Option<u64>,
    /// What it is not taken below.
    pub floor_bytes: u64,
    /// By how much it may raise its ceiling under pressure.
    pub grant_bytes: u64,
    /// What it is to give back now.
    pub take_bytes: u64,
    /// What of it the host is to swap out now.
    pub page_out_bytes: u64,
    /// The node that presses it, if one does.
    pub pressed_by: Option<Id>,
    /// The ceiling that arbitration imposes on it, which is in `high_bytes` already.
    pub imposed_bytes: Option<u64>,
}

impl Allotment {
    /// The most that its guest can have without asking.
    #[must_use]
    pub fn target_bytes(&self) -> u64 {
        let high = self.high_bytes.unwrap_or(self.max_bytes);
        high.saturating_add(self.grant_bytes).min(self.max_bytes)
    }
}

/// A node that holds more than its goal, or has just done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Which.
    pub node: Id,
    /// Its own pressure: more than 1000.
    pub lambda_permille: u64,
    /// What it holds.
    pub charge_bytes: u64,
    /// What it is to hold.
    pub goal_bytes: u64,
}

/// What a tick came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Pressure on the pool.
    pub lambda_permille: u64,
    /// What the pool holds beyond its goal, or the host lacks.
    pub deficit_bytes: u64,
    /// What of the available memory is taken to be gone before anything directed has come.
    pub falling_bytes: u64,
    /// What was directed to be given back, in sum.
    pub directed_bytes: u64,
    /// What the host was told to swap out, in sum.
    pub page_out_bytes: u64,
    /// What nobody can give: it is protected. The host has to swap, or somebody has to go.
    pub unmet_bytes: u64,
    /// Whether the host is short, so that no target was raised.
    pub short: bool,
    /// Whether new microVMs are to be refused.
    pub refuse: bool,
    /// Who is to be killed.
    pub kill: Option<Kill>,
}

/// The least protected microVM, when nothing else helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Which.
    pub vm: Id,
    /// What it holds.
    pub charge_bytes: u64,
    /// What of it is protected: less than that.
    pub protected_bytes: u64,
    /// Its weight: nobody's is less that could be killed.
    pub weight: u32,
}

/// Constants of arbitration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetTuning {
    /// Available share of the host at which pressure is over: ESX's high state.
    pub enough_permille: u64,
    /// Below it pressure rises: ESX's soft state.
    pub short_permille: u64,
    /// Below it ceilings are lowered in the same tick: ESX's hard state.
    pub critical_permille: u64,
    /// Below it no microVM is started: ESX's low state.
    pub refuse_permille: u64,
    /// Ticks for which what is available is taken to go on falling as it did in the last two, once there is less than
    /// twice of what is enough: before what is directed has come, a host on which a microVM starts is short.
    pub lead_ticks: u64,
    /// Whether the least protected microVM is killed when below that nothing else helps.
    pub kills: bool,
    /// Most by which pressure grows in a tick: by 65 % (e to the power of a half). From none to the cap in ten ticks.
    pub rise_permille: u64,
    /// Least by which it grows while there is any excess, so that a small one does not last.
    pub least_rise_permille: u64,
    /// By how much it falls in a tick. Slower than it rises: giving back too early means to start again.
    pub fall_permille: u64,
    /// Excess at which it falls: so far below the goal. Between that and the goal it stays.
    pub slack_permille: u64,
    /// Most pressure: at 150 the default working-set age is two seconds, a tick.
    pub cap_permille: u64,
    /// What the laws give back by themselves in this time needs no direction.
    pub patience_s: u64,
    /// Share of its ceiling that a microVM may be granted.
    pub grant_permille: u64,
    /// What it may be granted at least.
    pub grant_bytes: u64,
    /// By how much an imposed ceiling, or what is held if that is more, rises in a tick when the host has enough: half of it in
    /// seven ticks.
    pub release_permille: u64,
    /// Least that is worth directing to one microVM.
    pub least_take_bytes: u64,
}

impl Default for FleetTuning {
    fn default() -> Self {
        Self {
            enough_permille: 60,
            short_permille: 40,
            critical_permille: 20,
            refuse_permille: 10,
            lead_ticks: 3,
            kills: false,
            rise_permille: 650,
            least_rise_permille: 20,
            fall_permille: 100,
            slack_permille: 20,
            cap_permille: 150_000,
            patience_s: 5,
            grant_permille: 250,
            grant_bytes: 128 << 20,
            release_permille: 100,
            least_take_bytes: 1 << 20,
        }
    }
}
