//! Ballast's own law, the code that runs in the VMM: this only translates.

use super::{Law, Offer, Sight};
use crate::simulate::command::{Command, Commands};
use balloon::policy::{Capabilities, Law as Policy, Observation, Orders, Settings, Source, State, Tuning};

/// Ballast's law, with what a user sets.
#[derive(Clone, Debug)]
pub struct Ours {
    age_ms: u64,
    budget_ppm: u64,
    policy: Option<Policy>,
    orders: Orders,
}

impl Ours {
    /// With this stall budget in parts per million, and the default working-set age.
    #[must_use]
    pub fn new(budget_ppm: u64) -> Self {
        Self::with(budget_ppm, Settings::WORKING_SET_AGE_MS)
    }

    /// With both settings moved together, as pressure on a group moves them: `scale` times the default stall budget, and
    /// the default working-set age divided by it.
    #[must_use]
    pub fn scaled(scale: f64) -> Self {
        let budget_ppm = Settings::STALL_BUDGET_PPM as f64 * scale;
        Self::with(budget_ppm as u64, (Settings::WORKING_SET_AGE_MS as f64 / scale) as u64)
    }

    /// With both settings.
    #[must_use]
    pub fn with(budget_ppm: u64, age_ms: u64) -> Self {
        Self { age_ms, budget_ppm, policy: None, orders: Orders::new() }
    }
}

impl Law for Ours {
    fn booted(&mut self, now_ms: u64, size_bytes: u64, capabilities: Capabilities) {
        if self.policy.is_none() {
            let settings = Settings {
                working_set_age_ms: self.age_ms,
                stall_budget_ppm: self.budget_ppm,
                ..Settings::new(size_bytes)
            };
            self.policy = Some(Policy::new(now_ms, size_bytes, settings, Tuning::default()));
        }
        // After a reboot of the guest the law stays, as the VMM does.
        if let Some(policy) = &mut self.policy {
            policy.observe(now_ms, &Observation::Capabilities(capabilities), &mut self.orders);
        }
    }

    fn wants_ticks(&self) -> bool {
        true
    }

    fn offer(&self, now_ms: u64) -> Offer {
        let Some(policy) = &self.policy else { return Offer::default() };
        let status = policy.status(now_ms);
        let hears = matches!(status.source, Source::Agent | Source::AgentWithoutPressure);
        let obeys = !matches!(status.state, State::Manual | State::Off | State::Safe | State::Stale);
        Offer { cold: status.cold, yield_bytes_per_s: status.yield_bytes_per_s, follows: hears && obeys }
    }

    fn step(&mut self, sight: &Sight<'_>, commands: &mut Commands) {
        let Self { policy: Some(policy), orders, .. } = self else { return };
        let now_ms = sight.now_ms;
        if let Some(envelope) = sight.envelope {
            policy.observe(now_ms, &Observation::Envelope(envelope), orders);
        }
        if let Some(reclaimed) = sight.reclaimed {
            policy.observe(now_ms, &Observation::Reclaimed(reclaimed), orders);
        }
        if let Some(sample) = sight.sample {
            policy.observe(now_ms, &Observation::Host(sight.host), orders);
            policy.observe(now_ms, &Observation::Sample(*sample), orders);
        } else {
            policy.observe(now_ms, &Observation::Tick, orders);
        }
        for decision in orders.iter() {
            commands.push(Command::Order(decision.order));
        }
        orders.clear();
    }
}
