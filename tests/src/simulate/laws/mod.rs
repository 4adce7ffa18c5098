//! The laws of one guest that are compared, all behind one interface: Ballast's own ([`ours`]) and what others run.
//!
//! Each is told what its guest's agent said and what the host sees, and says what is to be done. Comparators follow their
//! source in all that decides; what each is swept over is its first parameter. Pure.

mod age;
mod fixed;
mod mom;
mod none;
pub mod ours;
mod senpai;
mod threshold;
mod tmo;
mod window;

pub use age::Age;
pub use fixed::Fixed;
pub use mom::Mom;
pub use none::Nothing;
pub use ours::Ours;
pub use senpai::Senpai;
pub use threshold::Threshold;
pub use tmo::Tmo;

use super::command::Commands;
use balloon::policy::fleet::{COLD_POINTS, Cold};
use balloon::policy::{Capabilities, Envelope, HostReading, Reclaimed, Sample};

/// What a law is told in one step.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The time.
    pub now_ms: u64,
    /// What came from the agent.
    pub sample: Option<&'a Sample>,
    /// What became of the last order to reclaim, if that was just told.
    pub reclaimed: Option<Reclaimed>,
    /// What the host sees.
    pub host: HostReading,
    /// What an arbiter leases.
    pub envelope: Option<Envelope>,
    /// Share of the host's memory that is free, in permille, for laws that look at the host alone.
    pub host_free_permille: u64,
}

/// What an arbiter may count on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    /// How much of the guest's memory is unused for how long.
    pub cold: [Cold; COLD_POINTS],
    /// What the law gives back by itself.
    pub yield_bytes_per_s: u64,
    /// Whether orders are carried out.
    pub follows: bool,
}

/// A law of one guest.
pub trait Law {
    /// The guest has booted.
    fn booted(&mut self, now_ms: u64, size_bytes: u64, capabilities: Capabilities);

    /// Whether it is to be called between samples too.
    fn wants_ticks(&self) -> bool {
        false
    }

    /// What it offers: nothing, unless an arbiter works with it.
    fn offer(&self, _now_ms: u64) -> Offer {
        Offer::default()
    }

    /// One step.
    fn step(&mut self, sight: &Sight<'_>, commands: &mut Commands);
}
