//! The law of one microVM: observations in, orders out.
//!
//! ```text
//!                    60 s                    pressure
//!   boot ──> Start ──────> Trimming ─────────────────────────> Hold     10 s, twice as long each time
//!                          ^  │  │ └── forgotten evictions ──> Blind    half a minute
//!                          │  │  └──── nothing gained ───────> NoGain   10 min, twice as long each time
//!                          │  └─────── 3 periods of silence ─> Stale ── 30 s ──> Safe: the ceiling climbs
//!                          └────────── over, heard again ──────────────────────────┘
//!   by the user, from anywhere and back: Manual, Off
//! ```
//!
//! The state is what the strongest of several clocks says ([`pauses`]), so there is no transition to forget. Everything
//! goes in through [`Law::observe`]. The same observations at the same times bring about the same orders.

mod ceiling;
mod ceilings;
mod gain;
mod gather;
mod harm;
mod lease;
mod pace;
mod pause;
mod pauses;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rewarm;
mod signals;
mod statistics;
mod steps;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tolerance;
mod trim;
#[cfg(test)]
mod unverified;

use super::arithmetic::{permille, scale};
use super::meter::Meter;
use super::observation::{Envelope, HostReading, Mode, Observation, Settings};
use super::order::{Order, Orders};
use super::reason::{Reason, Source};
use super::sample::Capabilities;
use super::state::{State, Status};
use super::tuning::Tuning;
use crate::PAGE_BYTES;
use crate::device::LEAST_FLOOR_BYTES;
use ceiling::{Bounds, Ceiling};
use gain::Gain;
use gather::Gather;
use harm::Harm;
use lease::Imposed;
use pace::Pace;
use pause::Pause;
use statistics::Driver;
use steps::Pending;
use stream::Stream;
use trim::Lists;

/// No pressure.
const CALM: u64 = 1000;

/// The law of one microVM.
#[derive(Clone, Debug)]
pub struct Law {
    tuning: Tuning,
    settings: Settings,
    size_bytes: u64,
    capabilities: Option<Capabilities>,
    meter: Meter,
    driver: Driver,
    harm: Harm,
    stream: Stream,
    gain: Gain,
    gather: Gather,
    pace: Pace,
    ceiling: Ceiling,
    /// The ceiling that the balloon was last told.
    ordered_ceiling_bytes: u64,
    host: HostReading,
    /// What the guest had taken when it first spoke.
    booted_bytes: u64,
    envelope: Option<Envelope>,
    lease_until_ms: u64,
    imposed: Imposed,
    /// The ceiling when the envelope came, which grants are added to.
    granted_from_bytes: u64,
    /// The envelope whose take has been ordered.
    taken_sequence: Option<u64>,
    hold: Pause,
    rest: Pause,
    blind: Pause,
    start_until_ms: u64,
    heard_ms: u64,
    next_step_ms: u64,
    step_is_due: bool,
    /// When the step was due after the last one that took what is not verified to be cold.
    unverified_ms: Option<u64>,
    /// A sample has come since the last stream was recycled.
    is_fresh: bool,
    pending: Option<Pending>,
    /// What was directed and did not come, as it is compressed now and not gone.
    short_bytes: u64,
    /// Ordered, and not yet in a sample.
    unseen_bytes: u64,
    /// Verified to be cold and due, but too little for an order.
    owed_bytes: u64,
    number: u64,
    fruitless: u64,
    state: State,
    source: Source,
}

impl Law {
    /// The law of a microVM of `size_bytes` that starts at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64, size_bytes: u64, settings: Settings, tuning: Tuning) -> Self {
        let max_bytes = settings.max_bytes.min(size_bytes);
        Self {
            tuning,
            settings,
            size_bytes,
            capabilities: None,
            meter: Meter::default(),
            driver: Driver::default(),
            harm: Harm::default(),
            stream: Stream::default(),
            gain: Gain::default(),
            gather: Gather::default(),
            pace: Pace::new(&tuning),
            ceiling: Ceiling::new(max_bytes),
            ordered_ceiling_bytes: max_bytes,
            host: HostReading::default(),
            booted_bytes: size_bytes,
            envelope: None,
            lease_until_ms: 0,
            imposed: Imposed::default(),
            granted_from_bytes: max_bytes,
            taken_sequence: None,
            hold: Pause::default(),
            rest: Pause::default(),
            blind: Pause::default(),
            start_until_ms: now_ms.saturating_add(tuning.start_ms),
            heard_ms: now_ms,
            next_step_ms: now_ms.saturating_add(tuning.step_ms),
            step_is_due: false,
            unverified_ms: None,
            is_fresh: false,
            pending: None,
            short_bytes: 0,
            unseen_bytes: 0,
            owed_bytes: 0,
            number: 0,
            fruitless: 0,
            state: State::Start,
            source: Source::None,
        }
    }

    /// Takes note of what happened at `now_ms`, and adds to `orders` what is to be done.
    pub fn observe(&mut self, now_ms: u64, observation: &Observation, orders: &mut Orders) {
        match observation {
            Observation::Tick => {}
            Observation::Capabilities(capabilities) => {
                self.capabilities = Some(*capabilities);
                self.pace = Pace::new(&self.tuning);
                self.gain.reset();
                self.heard_ms = now_ms;
            }
            Observation::Sample(sample) => self.sampled(now_ms, sample),
            Observation::Reclaimed(reclaimed) => self.reclaimed(now_ms, reclaimed),
            Observation::Statistics(values) => self.told(now_ms, values),
            Observation::Host(reading) => self.host = *reading,
            Observation::Envelope(envelope) => self.lease(now_ms, envelope),
            Observation::Settings(settings) => {
                self.settings = *settings;
                self.ceiling.settled();
            }
        }
        self.lapse(now_ms);
        self.choose_source(now_ms, orders);
        self.check_gain(now_ms);
        self.enter(now_ms, orders);
        self.trim(now_ms, orders);
        self.keep_pace(now_ms, orders);
        self.adjust_ceiling(now_ms, orders);
    }

    /// What can be shown of it at `now_ms`.
    #[must_use]
    pub fn status(&self, now_ms: u64) -> Status {
        let age_ms = self.age_ms(now_ms);
        let lists = self.lists(age_ms);
        let held = self.held_bytes();
        let step = if self.state == State::Trimming { self.planned_bytes(now_ms, lists) } else { 0 };
        // Who holds less than trimming leaves is not wanted to hold more.
        let target = held.saturating_sub(step).max(self.left_bytes().min(held)).min(self.bounds().max_bytes);
        Status {
            state: self.state,
            until_ms: self.pause(now_ms).map(|(_, until_ms, _)| until_ms).filter(|until| *until < u64::MAX),
            source: self.source,
            target_bytes: target,
            ceiling_bytes: self.ordered_ceiling_bytes,
            age_ms,
            stall_ppm: self.harm.stall_ppm(&self.tuning),
            refault_millis: self.harm.refault_millis(&self.tuning),
            harm_permille: self.harm_permille(now_ms),
            evicted_bytes: self.harm.ordered_pages().saturating_mul(PAGE_BYTES),
            reuse_ms: self.harm.reuse_ms(&self.tuning),
            cold_bytes: lists.cold_bytes,
            cold: self.meter.last().map_or_else(Default::default, trim::cold_curve),
            yield_bytes_per_s: self.yield_bytes_per_s(now_ms, lists, step),
            implausible_samples: self.meter.implausible(),
            totals: self.meter.totals(),
        }
    }

    /// The ceiling that was last ordered, or that there was from the start.
    #[must_use]
    pub fn ceiling_bytes(&self) -> u64 {
        self.ordered_ceiling_bytes
    }

    fn leased(&self, now_ms: u64) -> Option<&Envelope> {
        self.envelope.as_ref().filter(|_| now_ms < self.lease_until_ms)
    }

    fn lambda_permille(&self, now_ms: u64) -> u64 {
        self.leased(now_ms).map_or(CALM, |envelope| envelope.lambda_permille.max(CALM))
    }

    /// Working-set age as it stands under pressure.
    fn age_ms(&self, now_ms: u64) -> u64 {
        scale(self.settings.working_set_age_ms, CALM, self.lambda_permille(now_ms))
    }

    /// `max` and floor stay when a lease ends, and a ceiling is not shed at once; all else goes.
    fn bounds(&self) -> Bounds {
        let own_max = self.settings.max_bytes.min(self.size_bytes);
        let max_bytes = self.envelope.map_or(own_max, |envelope| envelope.max_bytes.min(own_max));
        let high_bytes = [self.imposed.bytes(), self.settings.high_bytes].into_iter().flatten().min();
        Bounds { max_bytes, high_bytes, floor_bytes: self.floor_bytes().min(max_bytes) }
    }

    fn floor_bytes(&self) -> u64 {
        self.host.floor_bytes.max(self.envelope.map_or(0, |envelope| envelope.floor_bytes))
    }

    /// What trimming leaves in use: what the guest had taken when it had booted, and some room, or what it is promised. The
    /// floor of ceilings is higher by what a kernel keeps free, which the host need not hold.
    fn left_bytes(&self) -> u64 {
        let booted = self.booted_bytes.saturating_add(self.tuning.boot_room_bytes).max(LEAST_FLOOR_BYTES);
        let used = self.floor_bytes().min(booted).saturating_sub(self.tuning.reserve_bytes);
        used.max(self.promised_bytes())
    }

    fn promised_bytes(&self) -> u64 {
        self.host.min_bytes.max(self.envelope.map_or(0, |envelope| envelope.floor_bytes))
    }

    /// What the host holds, or all that it may hold if that is not known.
    fn held_bytes(&self) -> u64 {
        self.host.resident_bytes.unwrap_or(self.size_bytes)
    }

    /// What the balloon leaves the guest now.
    fn guest_bytes(&self) -> u64 {
        if self.host.ceiling_bytes == 0 {
            self.size_bytes
        } else {
            self.host.ceiling_bytes.min(self.size_bytes)
        }
    }

    /// What the balloon has of the guest's memory, in bytes, by the last reading.
    #[must_use]
    pub fn ballooned_bytes(&self) -> u64 {
        self.size_bytes.saturating_sub(self.guest_bytes())
    }

    /// What the guest uses, if it is known. Ballooned pages count as used where the balloon deflates on OOM, so it is
    /// told by what is free of what the balloon leaves.
    fn used_bytes(&self) -> Option<u64> {
        self.meter.last().map(|sample| self.guest_bytes().saturating_sub(sample.free_bytes))
    }

    /// Says where the numbers come from, if that has changed.
    fn choose_source(&mut self, now_ms: u64, orders: &mut Orders) {
        let agent =
            self.capabilities.filter(|_| self.settings.mode != Mode::Balloon && self.meter.last().is_some());
        let driver = self.host.balloon && self.settings.mode != Mode::Trim;
        let source = match agent {
            Some(capabilities) if capabilities.psi => Source::Agent,
            Some(_) => Source::AgentWithoutPressure,
            None if driver => self.driver.source(),
            None => Source::None,
        };
        if source != self.source {
            self.source = source;
            self.harm.reset();
            orders.push(now_ms, Order::Enter { state: self.state }, Reason::Source { source });
        }
    }

    /// Whether the agent's word counts.
    fn has_agent(&self) -> bool {
        matches!(self.source, Source::Agent | Source::AgentWithoutPressure)
    }

    /// Stall budget as it stands under pressure.
    fn budget_ppm(&self, now_ms: u64) -> u64 {
        let lambda = self.lambda_permille(now_ms).min(self.tuning.most_harm_permille);
        permille(self.settings.stall_budget_ppm, lambda)
    }

    fn harm_permille(&self, now_ms: u64) -> u64 {
        self.harm.permille(self.budget_ppm(now_ms), self.age_ms(now_ms), &self.tuning)
    }

    fn lists(&self, age_ms: u64) -> Lists {
        match (self.meter.last(), &self.capabilities) {
            (Some(sample), Some(can)) => {
                Lists::of(sample, &Capabilities { swap: self.swaps(can), ..*can }, age_ms)
            }
            _ => Lists { lru_bytes: 0, cold_bytes: 0 },
        }
    }

    fn host_is_short(&self) -> bool {
        self.host.stall_ppm > self.tuning.host_stall_ppm
            || self.host.available_permille < self.tuning.host_available_permille
    }
}
