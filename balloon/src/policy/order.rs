//! What a law orders, and why.

use super::reason::Reason;
use super::state::State;
use serde::{Deserialize, Serialize};

/// Most orders that are collected: one observation brings about at most one of each kind, a second to reclaim and a
/// second to enter a state, and a caller may collect those of two.
pub const MAX_ORDERS: usize = 16;

/// Which memory is to be reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Memory {
    /// Page cache.
    File,
    /// Anonymous memory, to swap.
    Anon,
    /// Both, as the guest's kernel thinks fit.
    Both,
}

/// One order. [`Order::Ceiling`] is for the balloon, [`Order::Enter`] for nobody, all others are for the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Reclaim, coldest first. Answered by [`Reclaimed`](super::Reclaimed) of the same number.
    Reclaim {
        /// Ascends with each.
        number: u64,
        /// How much.
        bytes: u64,
        /// Of what.
        memory: Memory,
        /// Only what has been unused for so long, where the kernel can tell.
        older_than_ms: Option<u64>,
    },
    /// One aging pass of the multi-generational LRU.
    Age,
    /// How finely free pages are reported.
    Reporting {
        /// Smallest order of buddy blocks that is reported.
        order: u8,
        /// Whether to compact first, once.
        compact: bool,
    },
    /// How often to sample.
    Pace {
        /// Time between two samples.
        sample_ms: u64,
    },
    /// What the balloon is to leave the guest.
    Ceiling {
        /// Guest memory.
        bytes: u64,
    },
    /// Nothing to be done: the law is in this state now.
    Enter {
        /// Which.
        state: State,
    },
}

/// An order, when it was given and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The time of the observation that brought it about.
    pub now_ms: u64,
    /// What is to be done.
    pub order: Order,
    /// The numbers that decided it.
    pub reason: Reason,
}

/// The decisions that one observation brought about. Takes no memory of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Orders {
    decisions: [Option<Decision>; MAX_ORDERS],
    count: usize,
}

impl Orders {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds one. What would be too much is left out.
    pub(super) fn push(&mut self, now_ms: u64, order: Order, reason: Reason) {
        if let Some(slot) = self.decisions.get_mut(self.count) {
            *slot = Some(Decision { now_ms, order, reason });
            self.count = self.count.saturating_add(1);
        }
    }

    /// The decisions, in the order in which they are to be carried out.
    pub fn iter(&self) -> impl Iterator<Item = &Decision> + '_ {
        self.decisions.iter().take(self.count).flatten()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
