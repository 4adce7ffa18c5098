//! Ballast's arbitration: one pressure scalar, leased to every law, and what is missing at once taken in proportion to what
//! each holds above its minimum.

use super::{Arbiter, Claim};
use balloon::PAGE_BYTES;
use balloon::policy::Envelope;

/// One scalar for all, from what they hold and what is to be held.
#[derive(Clone, Copy, Debug)]
pub struct Lambda {
    lambda: f64,
    sequence: u64,
}

/// Part of the host that is kept free.
const RESERVE: f64 = 0.04;

impl Default for Lambda {
    fn default() -> Self {
        Self { lambda: 1.0, sequence: 0 }
    }
}

impl Arbiter for Lambda {
    fn arbitrate(&mut self, _: u64, capacity: f64, claims: &mut [Claim]) {
        let held: f64 = claims.iter().map(|claim| claim.held).sum();
        let goal = capacity * (1.0 - RESERVE);
        let error = ((held - goal) / goal).clamp(-0.1, 0.5);
        self.lambda = (self.lambda * (1.0 + error)).clamp(1.0, 150.0);
        self.sequence += 1;
        let above = |claim: &Claim| (claim.held - claim.min.max(claim.fixed)).max(0.0);
        let takable: f64 = claims.iter().map(above).sum();
        let share = ((held - capacity).max(0.0) / takable.max(1.0)).min(0.5);
        for claim in claims.iter_mut().filter(|claim| claim.size > 0.0) {
            let bytes = |pages: f64| pages as u64 * PAGE_BYTES;
            let take = above(claim) * share;
            claim.envelope = Some(Envelope {
                sequence: self.sequence,
                lease_ms: 10_000,
                lambda_permille: (self.lambda * 1000.0) as u64,
                max_bytes: bytes(claim.size),
                high_bytes: None,
                floor_bytes: bytes(claim.min),
                grant_bytes: bytes(claim.size * 0.05),
                take_bytes: bytes(take),
            });
        }
    }
}
