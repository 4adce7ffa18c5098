//! Proportional ballooning by free memory: oVirt's MOM, `doc/balloon.rules` at 3de1c8e.
//!
//! Looks at the host's free memory and the guest's, every ten seconds. Page cache counts as used.

use super::{Law, Sight};
use crate::simulate::command::{Command, Commands};
use balloon::policy::{Capabilities, Order};

const STEP_MS: u64 = 10_000;
/// Share of host memory that is to be free.
const PRESSURE: f64 = 0.20;
const MAX_CHANGE: f64 = 0.05;
const MIN_CHANGE: f64 = 0.0025;
/// Share of its memory that a guest is left free.
const MIN_GUEST_FREE: f64 = 0.20;

/// MOM's rules.
#[derive(Clone, Copy, Debug)]
pub struct Mom {
    guest_free: f64,
    host_free: Option<f64>,
    next_ms: u64,
    size: f64,
    ceiling: f64,
}

impl Mom {
    /// Under a host whose free share is always `host_free`; the rule's own 20 % is the bound of pressure.
    #[must_use]
    pub fn new(host_free: f64) -> Self {
        Self { guest_free: MIN_GUEST_FREE, host_free: Some(host_free), next_ms: 0, size: 0.0, ceiling: 0.0 }
    }
}

impl Law for Mom {
    fn booted(&mut self, now_ms: u64, size_bytes: u64, _: Capabilities) {
        (self.size, self.ceiling, self.next_ms) = (size_bytes as f64, size_bytes as f64, now_ms);
    }

    fn step(&mut self, sight: &Sight<'_>, commands: &mut Commands) {
        let Some(sample) = sight.sample else { return };
        if sight.now_ms < self.next_ms {
            return;
        }
        self.next_ms = sight.now_ms + STEP_MS;
        let host_free = self.host_free.unwrap_or(sight.host_free_permille as f64 / 1000.0);
        let used = self.ceiling - sample.free_bytes as f64;
        let wanted = if host_free < PRESSURE {
            // Critical below 5 %: more is taken than is free, which swaps.
            let share =
                if host_free < 0.05 { host_free - 0.05 } else { self.guest_free * host_free / PRESSURE };
            (used + share * self.ceiling).max(self.ceiling * (1.0 - MAX_CHANGE)).min(self.ceiling)
        } else {
            self.ceiling * (1.0 + MAX_CHANGE)
        };
        let wanted = wanted.clamp(0.1 * self.size, self.size);
        if (wanted - self.ceiling).abs() > MIN_CHANGE * self.ceiling {
            self.ceiling = wanted;
            commands.push(Command::Order(Order::Ceiling { bytes: wanted as u64 }));
        }
    }
}
