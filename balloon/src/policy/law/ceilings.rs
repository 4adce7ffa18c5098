//! What the balloon is told.

use super::ceiling::Bounds;
use super::{CALM, Law};
use crate::policy::arithmetic::{permille, ppm};
use crate::policy::order::{Order, Orders};
use crate::policy::reason::{Reason, Source};
use crate::policy::state::State;

impl Law {
    pub(super) fn adjust_ceiling(&mut self, now_ms: u64, orders: &mut Orders) {
        let bounds = self.bounds();
        self.ceiling.bound(&bounds);
        let mut by_statistics = None;
        match self.state {
            State::Manual => {
                self.ceiling.set(self.settings.ceiling_bytes.unwrap_or(bounds.max_bytes), &bounds)
            }
            State::Stale | State::Safe if self.lambda_permille(now_ms) > CALM => {
                self.come_down(now_ms, &bounds)
            }
            State::Safe if self.host_is_short() => {}
            State::Safe => self.ceiling.climb(now_ms, &bounds, self.size_bytes, &self.tuning),
            State::Stale => {}
            State::Start | State::Off => self.rest(now_ms, &bounds),
            _ if self.is_by_statistics() => by_statistics = self.follow_statistics(now_ms, &bounds),
            _ => self.rest(now_ms, &bounds),
        }
        let gathered = self.gathered(now_ms).filter(|(bytes, _)| *bytes < self.ceiling.bytes());
        let bytes = gathered.map_or(self.ceiling.bytes(), |(bytes, _)| bytes);
        if bytes == self.ordered_ceiling_bytes {
            return;
        }
        let rises = bytes > self.ordered_ceiling_bytes;
        let limits = Reason::Limits {
            max_bytes: bounds.max_bytes,
            high_bytes: bounds.high_bytes,
            floor_bytes: bounds.floor_bytes,
        };
        let reason = match (gathered, self.pause(now_ms), by_statistics) {
            (Some((_, reason)), _, _) => reason,
            (_, Some((State::Manual, _, reason)), _) => reason,
            (_, Some((State::Hold | State::Safe, _, reason)), _) if rises => reason,
            (_, _, Some(reason)) => reason,
            _ => limits,
        };
        self.ordered_ceiling_bytes = bytes;
        orders.push(now_ms, Order::Ceiling { bytes }, reason);
    }

    fn is_by_statistics(&self) -> bool {
        matches!(self.source, Source::Statistics | Source::StatisticsWithStalls)
    }

    /// Who is silent and pressed is not told to trim, so that all that arbitration can do is to impose a ceiling.
    fn come_down(&mut self, now_ms: u64, bounds: &Bounds) {
        let wanted = bounds.rest_bytes().min(self.ceiling.bytes());
        self.ceiling.follow(now_ms, wanted, u64::MAX, u64::MAX, &self.tuning);
    }

    /// Where limits have it. What pressure lifted comes down as it is unused, unless the host or the group is short.
    fn rest(&mut self, now_ms: u64, bounds: &Bounds) {
        let must_return =
            self.host_is_short() || self.lambda_permille(now_ms) > CALM || !self.ceiling.is_lifted();
        let used = self.used_bytes().filter(|_| !must_return && self.has_agent()).map_or(0, |used| {
            used.saturating_add(permille(used, self.tuning.headroom_permille).max(self.tuning.headroom_bytes))
        });
        let wanted = bounds.rest_bytes().max(used.min(self.ceiling.bytes()));
        self.ceiling.follow(now_ms, wanted, u64::MAX, u64::MAX, &self.tuning);
        if self.ceiling.bytes() <= bounds.rest_bytes() {
            self.ceiling.settled();
        }
    }

    /// Where the driver's word has it, within limits: down by no more than a step of what the guest has, and less the
    /// more it hurts; up beyond what was granted only as the host allows.
    fn follow_statistics(&mut self, now_ms: u64, bounds: &Bounds) -> Option<Reason> {
        let (wanted, reason) = self.wanted_ceiling(now_ms)?;
        let wanted = wanted.max(bounds.floor_bytes).min(bounds.rest_bytes());
        let grant = self.leased(now_ms).map_or(0, |envelope| envelope.grant_bytes);
        let most =
            if self.host_is_short() { self.granted_from_bytes.saturating_add(grant) } else { u64::MAX };
        let step = ppm(self.ceiling.bytes(), self.tuning.unverified_ppm);
        let step = permille(step, CALM.saturating_sub(self.harm_permille(now_ms)));
        let is_above_limits = self.ceiling.bytes() > bounds.rest_bytes();
        self.ceiling.follow(
            now_ms,
            wanted,
            most,
            if is_above_limits { u64::MAX } else { step },
            &self.tuning,
        );
        Some(reason)
    }
}
