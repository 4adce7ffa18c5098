//! The state of a law: what keeps it from a step, the strongest first.

use super::Law;
use crate::policy::observation::Mode;
use crate::policy::order::{Order, Orders};
use crate::policy::reason::Reason;
use crate::policy::state::State;

impl Law {
    /// What keeps the law from a step, until when and why.
    pub(super) fn pause(&self, now_ms: u64) -> Option<(State, u64, Reason)> {
        if let Some(ceiling_bytes) = self.settings.ceiling_bytes {
            return Some((State::Manual, u64::MAX, Reason::Manual { ceiling_bytes }));
        }
        if self.settings.mode == Mode::Off {
            return Some((State::Off, u64::MAX, Reason::Off));
        }
        let silent_ms = now_ms.saturating_sub(self.heard_ms);
        let stale_ms = self.pace.sample_ms().saturating_mul(self.tuning.stale_periods);
        if silent_ms >= stale_ms {
            let state =
                if silent_ms >= self.tuning.silent_ms.max(stale_ms) { State::Safe } else { State::Stale };
            let reason = Reason::Silent {
                silent_ms,
                host_stall_ppm: self.host.stall_ppm,
                host_available_permille: self.host.available_permille,
            };
            return Some((state, u64::MAX, reason));
        }
        if now_ms < self.start_until_ms {
            let until_ms = self.start_until_ms;
            return Some((State::Start, until_ms, Reason::Started { until_ms }));
        }
        let pauses = [(State::Hold, &self.hold), (State::Blind, &self.blind), (State::NoGain, &self.rest)];
        pauses.into_iter().find_map(|(state, pause)| {
            pause.holds(now_ms).map(|(until_ms, reason)| (state, until_ms, reason))
        })
    }

    /// Says in which state the law is, if that has changed.
    pub(super) fn enter(&mut self, now_ms: u64, orders: &mut Orders) {
        let (state, reason) = match self.pause(now_ms) {
            Some((state, _, reason)) => (state, reason),
            None => (State::Trimming, Reason::Resumed { after: self.state }),
        };
        if state != self.state {
            self.state = state;
            orders.push(now_ms, Order::Enter { state }, reason);
        }
    }
}
