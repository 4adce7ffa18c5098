//! Division by size and by idleness: what is done elsewhere.

use super::{Arbiter, Claim, level};
use crate::simulate::decay::{dot, rates, survive};

/// Everyone the same share of its size.
#[derive(Clone, Copy, Debug)]
pub struct Proportional;

/// Everyone the same size, as far as it has use for it: max-min.
#[derive(Clone, Copy, Debug)]
pub struct EqualSize;

/// Shares by size, with a tax on idle memory: ESX (OSDI'02, section 5), at its default rate of 75 %.
#[derive(Clone, Copy, Debug)]
pub struct Tax;

/// What an idle page costs, compared with one in use: `1 / (1 - tax rate)`.
const IDLE_COST: f64 = 4.0;

/// ESX samples which pages were used in a minute.
const SAMPLE_S: f32 = 60.0;

impl Arbiter for Proportional {
    fn arbitrate(&mut self, _: u64, capacity: f64, claims: &mut [Claim]) {
        let sizes: f64 = claims.iter().map(|claim| claim.size).sum();
        let share = (capacity / sizes.max(1.0)).min(1.0);
        claims.iter_mut().for_each(|claim| claim.ceiling = Some(claim.size * share));
    }
}

impl Arbiter for EqualSize {
    fn arbitrate(&mut self, _: u64, capacity: f64, claims: &mut [Claim]) {
        let most = claims.iter().map(|claim| claim.size).fold(0.0, f64::max);
        let size = level(capacity, 0.0, most, |size| claims.iter().map(|claim| claim.size.min(size)).sum());
        claims.iter_mut().for_each(|claim| claim.ceiling = Some(claim.size.min(size)));
    }
}

impl Arbiter for Tax {
    fn arbitrate(&mut self, _: u64, capacity: f64, claims: &mut [Claim]) {
        let rates = rates();
        for claim in claims.iter_mut() {
            let unused = survive(&rates, SAMPLE_S * claim.activity as f32);
            let all = dot(&claim.demand, &[1.0; crate::simulate::decay::BINS]);
            let active = all - dot(&claim.demand, &unused) + claim.fixed;
            let share = (active / claim.held.max(1.0)).min(1.0);
            claim.ceiling = Some(claim.size / (share + IDLE_COST * (1.0 - share)));
        }
        let price = |claim: &Claim, factor: f64| (claim.ceiling.unwrap_or_default() * factor).min(claim.size);
        let factor =
            level(capacity, 0.0, IDLE_COST, |factor| claims.iter().map(|claim| price(claim, factor)).sum());
        for claim in claims.iter_mut() {
            claim.ceiling = Some(price(claim, factor));
        }
    }
}
