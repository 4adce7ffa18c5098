//! Who gets how much of a host that cannot give everyone all: ways to divide it, behind one interface.
//!
//! Each is told every two seconds what guests are and hold, and leaves each a ceiling or an envelope. Pure.

mod equal_age;
mod ours;
mod shares;

pub use equal_age::EqualAge;
pub use ours::Ballast;
pub use shares::{EqualSize, Proportional, Tax};

use super::decay::{BINS, Row};
use super::laws::Offer;
use balloon::policy::Envelope;

/// One guest, as an arbiter sees it. Sizes are pages. One that is not there has size 0.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its memory.
    pub size: f64,
    /// What the host holds for it.
    pub held: f64,
    /// Pages that it uses, by reuse: for who is to know the truth.
    pub demand: Row,
    /// How busy it is.
    pub activity: f64,
    /// What it cannot do without.
    pub fixed: f64,
    /// What it is not taken below.
    pub min: f64,
    /// The group it is in.
    pub group: usize,
    /// What the balloon leaves it now.
    pub left_by_balloon: f64,
    /// What its law says that can be taken.
    pub offer: Offer,
    /// What it is left through the balloon, for it to say.
    pub ceiling: Option<f64>,
    /// What its law is told, for it to say.
    pub envelope: Option<Envelope>,
}

impl Default for Claim {
    fn default() -> Self {
        Self {
            size: 0.0,
            held: 0.0,
            demand: [0.0; BINS],
            activity: 0.0,
            fixed: 0.0,
            min: 0.0,
            group: 0,
            left_by_balloon: 0.0,
            offer: Offer::default(),
            ceiling: None,
            envelope: None,
        }
    }
}

/// Divides the host's memory.
pub trait Arbiter {
    /// One round.
    fn arbitrate(&mut self, now_ms: u64, capacity: f64, claims: &mut [Claim]);
}

/// Nobody does.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Arbiter for Nobody {
    fn arbitrate(&mut self, _: u64, _: f64, _: &mut [Claim]) {}
}

/// The value of `level` from `low` to `high` at which `total` of it, which rises with it, is `wanted`.
fn level(wanted: f64, mut low: f64, mut high: f64, total: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..48 {
        let middle = (low + high) / 2.0;
        *(if total(middle) < wanted { &mut low } else { &mut high }) = middle;
    }
    low
}
