//! The law of one microVM: observations in, orders out.
//!
//! ```text
//!            60 s              pressure                     hold over
//! Start ------------> Trimming --------> Hold (10 s, twice as long each time) ----> Trimming
//!                        | forgotten evictions: Blind     nothing gained: NoGain (10 min, twice as long each time)
//!                        | 3 periods of silence: Stale    30 s: Safe, the ceiling climbs
//! ```
//!
//! Everything goes through [`Law::observe`]. The same observations at the same times bring about the same orders.

mod ceiling;
mod harm;
mod pause;
mod stream;
#[cfg(test)]
mod tests;
mod trim;

use super::meter::{Delta, Meter, Taken};
use super::observation::{Envelope, HostReading, Mode, Observation, Reclaimed, Settings};
#[cfg(test)]
use super::order::Decision;
use super::order::{Memory, Order, Orders};
use super::reason::{Reason, Source};
use super::sample::{Capabilities, Cause, Sample};
use super::state::{Signal, State, Status};
use super::tuning::Tuning;
use crate::PAGE_BYTES;
use ceiling::{Bounds, Ceiling};
use harm::Harm;
use pause::Pause;
use stream::Stream;
use trim::Lists;

/// The law of one microVM.
#[derive(Clone, Debug)]
pub struct Law {
    tuning: Tuning,
    settings: Settings,
    size_bytes: u64,
    capabilities: Option<Capabilities>,
    meter: Meter,
    harm: Harm,
    stream: Stream,
    ceiling: Ceiling,
    ordered_ceiling_bytes: u64,
    host: HostReading,
    envelope: Option<Envelope>,
    lease_until_ms: u64,
    taken_sequence: Option<u64>,
    hold: Pause,
    rest: Pause,
    blind: Pause,
    start_until_ms: u64,
    heard_ms: u64,
    pace_ms: u64,
    next_step_ms: u64,
    /// The order to reclaim that is under way, and the pages that it may bring.
    pending: Option<(u64, u64)>,
    number: u64,
    state: State,
    idle_since_ms: Option<u64>,
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
            harm: Harm::default(),
            stream: Stream::default(),
            ceiling: Ceiling::new(max_bytes),
            ordered_ceiling_bytes: max_bytes,
            host: HostReading::default(),
            envelope: None,
            lease_until_ms: 0,
            taken_sequence: None,
            hold: Pause::default(),
            rest: Pause::default(),
            blind: Pause::default(),
            start_until_ms: now_ms.saturating_add(tuning.start_ms),
            heard_ms: now_ms,
            pace_ms: tuning.busy_pace_ms,
            next_step_ms: now_ms.saturating_add(tuning.step_ms),
            pending: None,
            number: 0,
            state: State::Start,
            idle_since_ms: None,
        }
    }

    /// Takes note of what happened at `now_ms`, and adds to `orders` what is to be done.
    pub fn observe(&mut self, now_ms: u64, observation: &Observation, orders: &mut Orders) {
        match observation {
            Observation::Tick => {}
            Observation::Capabilities(capabilities) => {
                self.capabilities = Some(*capabilities);
                self.heard_ms = now_ms;
            }
            Observation::AgentGone => self.capabilities = None,
            Observation::Sample(sample) => self.sampled(now_ms, sample),
            Observation::Reclaimed(reclaimed) => self.reclaimed(reclaimed),
            Observation::Statistics(_) => {}
            Observation::Host(reading) => self.host = *reading,
            Observation::Envelope(envelope) => {
                self.lease_until_ms = now_ms.saturating_add(envelope.lease_ms);
                self.envelope = Some(*envelope);
            }
            Observation::Settings(settings) => self.settings = *settings,
        }
        self.enter(now_ms, orders);
        self.trim(now_ms, orders);
        self.adjust_ceiling(now_ms, orders);
    }

    /// What can be shown of it at `now_ms`.
    #[must_use]
    pub fn status(&self, now_ms: u64) -> Status {
        let age_ms = self.age_ms(now_ms);
        let lists = self.lists(age_ms);
        let held = self.host.resident_bytes.unwrap_or(self.size_bytes);
        let step = self.planned_bytes(now_ms, lists);
        Status {
            state: self.state,
            until_ms: self.pause(now_ms).map(|(_, until_ms, _)| until_ms),
            source: self.source(),
            target_bytes: held
                .saturating_sub(step)
                .max(self.floor_bytes())
                .min(self.bounds(now_ms).max_bytes),
            ceiling_bytes: Some(self.ordered_ceiling_bytes),
            age_ms,
            stall_ppm: self.harm.stall_ppm(&self.tuning),
            refault_millis: self.harm.refault_millis(&self.tuning),
            harm_permille: self.harm_permille(now_ms),
            evicted_bytes: self.harm.ordered_pages().saturating_mul(PAGE_BYTES),
            reuse_ms: self.harm.reuse_ms(&self.tuning),
            cold_bytes: lists.cold_bytes,
            implausible_samples: self.meter.implausible(),
        }
    }

    fn leased(&self, now_ms: u64) -> Option<&Envelope> {
        self.envelope.as_ref().filter(|_| now_ms < self.lease_until_ms)
    }

    fn lambda_permille(&self, now_ms: u64) -> u64 {
        self.leased(now_ms).map_or(1000, |envelope| envelope.lambda_permille.max(1000))
    }

    fn age_ms(&self, now_ms: u64) -> u64 {
        super::arithmetic::scale(self.settings.working_set_age_ms, 1000, self.lambda_permille(now_ms))
    }

    /// `max` and floor stay when a lease ends, all else goes.
    fn bounds(&self, now_ms: u64) -> Bounds {
        let own_max = self.settings.max_bytes.min(self.size_bytes);
        let max_bytes = self.envelope.map_or(own_max, |envelope| envelope.max_bytes.min(own_max));
        let leased = self.leased(now_ms).and_then(|envelope| envelope.high_bytes);
        let high_bytes = [leased, self.settings.high_bytes].into_iter().flatten().min();
        Bounds { max_bytes, high_bytes, floor_bytes: self.floor_bytes().min(max_bytes) }
    }

    fn floor_bytes(&self) -> u64 {
        self.host.floor_bytes.max(self.envelope.map_or(0, |envelope| envelope.floor_bytes))
    }

    fn source(&self) -> Source {
        match (self.capabilities, self.meter.last()) {
            (Some(capabilities), Some(_)) if capabilities.psi => Source::Agent,
            (Some(_), Some(_)) => Source::AgentWithoutPressure,
            _ => Source::None,
        }
    }

    fn harm_permille(&self, now_ms: u64) -> u64 {
        let lambda = self.lambda_permille(now_ms).min(16_000);
        let budget_ppm = super::arithmetic::permille(self.settings.stall_budget_ppm, lambda);
        self.harm.permille(budget_ppm, self.age_ms(now_ms), &self.tuning)
    }

    fn lists(&self, age_ms: u64) -> Lists {
        match (self.meter.last(), &self.capabilities) {
            (Some(sample), Some(capabilities)) => Lists::of(sample, capabilities, age_ms),
            _ => Lists { lru_bytes: 0, cold_bytes: 0 },
        }
    }

    fn sampled(&mut self, now_ms: u64, sample: &Sample) {
        match self.meter.take(sample, self.size_bytes) {
            Taken::Dropped => return,
            Taken::First => {
                self.harm.reset();
                self.start_until_ms = now_ms.saturating_add(self.tuning.start_ms);
                self.stream.accept(sample);
            }
            Taken::Rebased => {}
            Taken::Delta(delta) => self.passed(now_ms, sample, &delta),
        }
        self.heard_ms = now_ms;
    }

    fn passed(&mut self, now_ms: u64, sample: &Sample, delta: &Delta) {
        let psi = self.capabilities.is_some_and(|capabilities| capabilities.psi);
        self.harm.passed(delta, (!psi).then_some(self.tuning.refetch_us));
        self.stream.passed(sample, delta, &self.tuning);
        if now_ms < self.start_until_ms {
            self.stream.accept(sample);
        }
        let cpu_permille = super::arithmetic::scale(delta.cpu_busy_us, 1000, delta.elapsed_us);
        let idle = cpu_permille < self.tuning.idle_cpu_permille;
        self.idle_since_ms = idle.then(|| self.idle_since_ms.unwrap_or(now_ms));
        if delta.nodereclaim > 0 {
            let first_ms = self.tuning.window_ms;
            self.blind.begin(now_ms, first_ms, first_ms, |_, until_ms| Reason::Forgotten {
                nodes: delta.nodereclaim,
                until_ms,
            });
        }
        if let Some(signal) = self.signal(now_ms, sample, delta) {
            self.suffers(now_ms, signal, delta);
        }
    }

    /// How the guest suffers, if it does.
    fn signal(&self, now_ms: u64, sample: &Sample, delta: &Delta) -> Option<Signal> {
        let bounds = self.bounds(now_ms);
        let bound = self.ceiling.bytes() < bounds.max_bytes;
        // A guest whose page cache fills its memory waits for reclaim now and then, and is helped by trimming.
        let scarce = sample.available_bytes < sample.total_bytes.div_euclid(10);
        let lists_pages = sample.file_bytes().saturating_add(sample.anon_bytes()).div_euclid(PAGE_BYTES);
        if sample.cause == Cause::OutOfMemory || delta.oom_kill > 0 {
            Some(Signal::OutOfMemory)
        } else if sample.cause == Cause::Pressure {
            Some(Signal::Trigger)
        } else if (sample.cause == Cause::Stall || delta.alloc_stall > 0) && (bound || scarce) {
            Some(Signal::Stall)
        } else if bound && self.harm.thrashes(lists_pages, &self.tuning) {
            Some(Signal::Thrash)
        } else {
            None
        }
    }

    fn suffers(&mut self, now_ms: u64, signal: Signal, delta: &Delta) {
        let tuning = self.tuning;
        let stall_ppm = super::arithmetic::scale(delta.stall_us, 1_000_000, delta.elapsed_us);
        let ceiling_bytes = self.ceiling.bytes();
        let grant_bytes = self.leased(now_ms).map_or(0, |envelope| envelope.grant_bytes);
        let repeats = self.hold.repeats(now_ms, tuning.longest_hold_ms);
        self.hold.begin(now_ms, tuning.hold_ms, tuning.longest_hold_ms, |repeats, _| Reason::Pressure {
            signal,
            stall_ppm,
            repeats,
            ceiling_bytes,
            grant_bytes,
        });
        let bounds = self.bounds(now_ms);
        let granted = self.host_is_short().then_some(grant_bytes);
        self.ceiling.lift(&bounds, repeats > 0, granted, self.hold.until_ms(), &tuning);
    }

    fn host_is_short(&self) -> bool {
        self.host.stall_ppm > self.tuning.host_stall_ppm
            || self.host.available_permille < self.tuning.host_available_permille
    }

    fn reclaimed(&mut self, reclaimed: &Reclaimed) {
        let Some((number, most_pages)) = self.pending else { return };
        if number != reclaimed.number {
            return;
        }
        self.pending = None;
        let pages = reclaimed.file_pages.saturating_add(reclaimed.anon_pages);
        self.harm.evicted(pages.min(most_pages));
    }

    /// What keeps the law from a step.
    fn pause(&self, now_ms: u64) -> Option<(State, u64, Reason)> {
        let silent_ms = now_ms.saturating_sub(self.heard_ms);
        let stale_ms = self.pace_ms.saturating_mul(self.tuning.stale_periods);
        let silent = || Reason::Silent {
            silent_ms,
            host_stall_ppm: self.host.stall_ppm,
            host_available_permille: self.host.available_permille,
        };
        if self.settings.mode == Mode::Off {
            return Some((State::Off, u64::MAX, Reason::Off));
        }
        if let Some(ceiling_bytes) = self.settings.ceiling_bytes {
            return Some((State::Manual, u64::MAX, Reason::Manual { ceiling_bytes }));
        }
        if silent_ms >= self.tuning.silent_ms.max(stale_ms) {
            return Some((State::Safe, u64::MAX, silent()));
        }
        if silent_ms >= stale_ms {
            return Some((State::Stale, u64::MAX, silent()));
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

    fn enter(&mut self, now_ms: u64, orders: &mut Orders) {
        let (state, reason) = match self.pause(now_ms) {
            Some((state, _, reason)) => (state, reason),
            None => (State::Trimming, Reason::Resumed { after: self.state }),
        };
        if state != self.state {
            self.state = state;
            orders.push(now_ms, Order::Enter { state }, reason);
        }
    }

    fn planned_bytes(&self, now_ms: u64, lists: Lists) -> u64 {
        let lambda = self.lambda_permille(now_ms);
        let gain = if lambda > 1000 { self.tuning.pressed_gain } else { self.tuning.gain };
        let idle =
            self.idle_since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= self.tuning.window_ms);
        let quiet = idle && self.harm.refaults() == 0;
        let age_ms = self.age_ms(now_ms);
        let bytes = trim::step_bytes(lists, age_ms, gain, quiet, self.harm_permille(now_ms), &self.tuning);
        self.above_floor(bytes)
    }

    fn above_floor(&self, bytes: u64) -> u64 {
        let held = self.host.resident_bytes.unwrap_or(self.size_bytes);
        bytes.min(held.saturating_sub(self.floor_bytes()))
    }

    fn trim(&mut self, now_ms: u64, orders: &mut Orders) {
        let Some(sample) = self.meter.last().copied() else { return };
        self.direct(now_ms, orders);
        let steps = now_ms >= self.next_step_ms;
        if steps {
            let late = now_ms.saturating_sub(self.next_step_ms);
            let step_ms = self.tuning.step_ms;
            self.next_step_ms =
                if late < step_ms { self.next_step_ms } else { now_ms }.saturating_add(step_ms);
            self.harm.turn(self.age_ms(now_ms), &self.tuning);
        }
        if self.state != State::Trimming || self.pending.is_some() {
            return;
        }
        let age_ms = self.age_ms(now_ms);
        if let Some(excess) = self.stream.excess(&sample, &self.tuning) {
            let bytes = self.above_floor(excess.bytes);
            if bytes >= self.tuning.least_bytes {
                let reason = Reason::Stream {
                    grown_bytes: excess.grown_bytes,
                    allowance_bytes: excess.allowance_bytes,
                    refault_pages: self.harm.refaults(),
                };
                self.reclaim(now_ms, bytes, Memory::File, None, reason, orders);
                return;
            }
        }
        if !steps {
            return;
        }
        let lists = self.lists(age_ms);
        let bytes = self.planned_bytes(now_ms, lists);
        if bytes < self.tuning.least_bytes {
            return;
        }
        let reason = Reason::Step {
            lru_bytes: lists.lru_bytes,
            cold_bytes: lists.cold_bytes,
            age_ms,
            stall_ppm: self.harm.stall_ppm(&self.tuning),
            refault_millis: self.harm.charged_millis(&self.tuning),
            harm_permille: self.harm_permille(now_ms),
            lambda_permille: self.lambda_permille(now_ms),
        };
        let older_than_ms = (lists.cold_bytes >= bytes).then_some(age_ms);
        let swap = self.capabilities.is_some_and(|capabilities| capabilities.swap);
        let memory = if swap { Memory::Both } else { Memory::File };
        self.reclaim(now_ms, bytes, memory, older_than_ms, reason, orders);
    }

    /// What the daemon wants back now, once for each envelope.
    fn direct(&mut self, now_ms: u64, orders: &mut Orders) {
        let Some(envelope) = self.leased(now_ms).copied() else { return };
        if self.taken_sequence == Some(envelope.sequence) || self.settings.mode == Mode::Off {
            return;
        }
        self.taken_sequence = Some(envelope.sequence);
        let bytes = self.above_floor(envelope.take_bytes);
        if bytes < self.tuning.least_bytes || self.state == State::Manual {
            return;
        }
        let reason = Reason::Directed {
            take_bytes: envelope.take_bytes,
            resident_bytes: self.host.resident_bytes.unwrap_or(self.size_bytes),
            floor_bytes: self.floor_bytes(),
        };
        self.reclaim(now_ms, bytes, Memory::Both, None, reason, orders);
    }

    fn reclaim(
        &mut self,
        now_ms: u64,
        bytes: u64,
        memory: Memory,
        older_than_ms: Option<u64>,
        reason: Reason,
        orders: &mut Orders,
    ) {
        self.number = self.number.saturating_add(1);
        let number = self.number;
        self.pending = Some((number, bytes.div_euclid(PAGE_BYTES).saturating_mul(2)));
        orders.push(now_ms, Order::Reclaim { number, bytes, memory, older_than_ms }, reason);
    }

    fn adjust_ceiling(&mut self, now_ms: u64, orders: &mut Orders) {
        let bounds = self.bounds(now_ms);
        self.ceiling.bound(&bounds);
        match self.state {
            State::Manual => {
                self.ceiling.set(self.settings.ceiling_bytes.unwrap_or(bounds.max_bytes), &bounds)
            }
            State::Safe if self.host_is_short() => {}
            State::Safe => self.ceiling.climb(now_ms, &bounds, self.size_bytes, &self.tuning),
            State::Stale => {}
            _ => self.ceiling.settle(now_ms, &bounds, &self.tuning),
        }
        let bytes = self.ceiling.bytes();
        if bytes == self.ordered_ceiling_bytes {
            return;
        }
        let reason = match (self.pause(now_ms), bytes > self.ordered_ceiling_bytes) {
            (Some((State::Manual | State::Safe, _, reason)), _) => reason,
            (Some((State::Hold, _, reason)), true) => reason,
            _ => Reason::Limits {
                max_bytes: bounds.max_bytes,
                high_bytes: bounds.high_bytes,
                floor_bytes: bounds.floor_bytes,
            },
        };
        self.ordered_ceiling_bytes = bytes;
        orders.push(now_ms, Order::Ceiling { bytes }, reason);
    }
}
