//! Division by age with perfect knowledge: everyone keeps what was used within the same time. The bound that a real
//! arbiter is measured against.

use super::{Arbiter, Claim, level};
use crate::simulate::decay::{BINS, dot, rates, survive};

/// Knows everyone's reuse, and finds the age at which all together fit.
#[derive(Clone, Copy, Debug)]
pub struct EqualAge;

/// Part of a guest's memory that its kernel keeps free, which a ceiling must leave room for.
const ROOM: f64 = 0.02;

impl Arbiter for EqualAge {
    fn arbitrate(&mut self, _: u64, capacity: f64, claims: &mut [Claim]) {
        let rates = rates();
        let keeps = |claim: &Claim, age_s: f64| {
            let unused = survive(&rates, (age_s * claim.activity) as f32);
            let used = dot(&claim.demand, &[1.0; BINS]) - dot(&claim.demand, &unused);
            (claim.fixed + used + ROOM * claim.size).min(claim.size)
        };
        // In log2 of seconds.
        let age = |log: f64| log.exp2();
        let log = level(capacity, 0.0, 15.0, |log| claims.iter().map(|claim| keeps(claim, age(log))).sum());
        claims.iter_mut().for_each(|claim| claim.ceiling = Some(keeps(claim, age(log))));
    }
}
