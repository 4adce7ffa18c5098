//! The law's owner: tells it all that happens, has done what it decides, and remembers why. Pure: time goes in.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::host::Pressure;
use super::recording::Recording;
use super::translate::{self, Deed};
use super::wanted::Wanted;
use super::words;
use crate::control::agent::{Agent, News};
use crate::control::memory::Memory;
use crate::control::trim::AGENT_MS;
use balloon::control::link;
use balloon::control::reclaim::{DecisionDocument, DecisionsDocument, ReclaimDocument, ReclaimRequest};
use balloon::policy::{
    Capabilities, Decision, HostReading, Law, Mode, Observation, Orders, Reclaimed, Settings, Source, State,
    Tuning, trace,
};
use balloon::zone::Limits;
use std::collections::VecDeque;
use std::io::Write;

/// The law is told of the host at least so often.
const HOST_MS: u64 = 1000;
/// Without samples for so long, the balloon's own statistics are asked for so often.
const STATISTICS_MS: u64 = 10_000;
/// Decisions that are remembered: those of some minutes.
const REMEMBERED: usize = 128;

/// What a microVM and its host have to do with its law.
pub struct Sides<'a> {
    /// The guest's agent.
    pub agent: &'a mut dyn Agent,
    /// The guest's memory.
    pub memory: &'a mut dyn Memory,
    /// The host's own.
    pub host: Pressure,
    /// Guest memory that may be used.
    pub max_bytes: u64,
    /// What it is brought back to.
    pub high_bytes: Option<u64>,
    /// The daemon's lease, if one holds.
    pub envelope: Option<&'a link::Envelope>,
}

/// The owner of a law.
pub struct Owner {
    law: Law,
    /// As users and groups have them.
    wanted: Wanted,
    /// As the law was told them.
    settings: Settings,
    orders: Orders,
    /// Orders to reclaim that the agent has not answered: its number for them, the law's, and until when.
    unanswered: Vec<(u32, u64, u64)>,
    remembered: VecDeque<Decision>,
    capabilities: Option<Capabilities>,
    samples_total: u64,
    sampled_ms: Option<u64>,
    guest_used_bytes: Option<u64>,
    told_ms: u64,
    asked_ms: u64,
    envelope: Option<link::Envelope>,
    recording: Option<Recording>,
}

impl Owner {
    /// The owner of the law of a microVM of `size_bytes`, which begins at `now_ms` with these limits.
    /// What happens is recorded to `output`, whose writes do not block.
    #[must_use]
    pub fn new(
        now_ms: u64,
        size_bytes: u64,
        wanted: Wanted,
        limits: &Limits,
        output: Option<Box<dyn Write>>,
    ) -> Self {
        let max_bytes = limits.max.unwrap_or(size_bytes);
        let settings = Settings { high_bytes: limits.high, ..wanted.settings(max_bytes) };
        Self {
            law: Law::new(now_ms, size_bytes, settings, Tuning::default()),
            wanted,
            settings,
            orders: Orders::new(),
            unanswered: Vec::new(),
            remembered: VecDeque::new(),
            capabilities: None,
            samples_total: 0,
            sampled_ms: None,
            guest_used_bytes: None,
            told_ms: now_ms,
            asked_ms: now_ms,
            envelope: None,
            recording: output.map(|output| {
                Recording::new(output, &trace::Header::new(now_ms, size_bytes, settings, Tuning::default()))
            }),
        }
    }

    /// The owner of a law that is off, of a microVM of `size_bytes`.
    #[must_use]
    pub fn off(size_bytes: u64) -> Self {
        Self::new(0, size_bytes, Wanted::new(Mode::Off, link::OwnPolicy::default()), &Limits::default(), None)
    }

    /// Goes on: tells the law what is new, and has done what it decides.
    pub fn advance(&mut self, now_ms: u64, sides: &mut Sides<'_>) {
        let envelope = sides.envelope.filter(|envelope| self.envelope.as_ref() != Some(envelope));
        if let Some(policy) = envelope.and_then(|envelope| envelope.policy.as_ref()) {
            self.wanted.inherit(policy);
        }
        let settings = Settings {
            high_bytes: sides.high_bytes,
            ceiling_bytes: sides.memory.ceiling_by_hand(),
            ..self.wanted.settings(sides.max_bytes)
        };
        if settings != self.settings {
            self.settings = settings;
            self.observe(now_ms, Observation::Settings(settings), sides);
        }
        if let Some(envelope) = envelope {
            self.envelope = Some(envelope.clone());
            self.observe(now_ms, Observation::Envelope(translate::envelope(envelope)), sides);
        }
        self.hear_answers(now_ms, sides);
        while let Some(news) = sides.agent.news() {
            self.hear(now_ms, news, sides);
        }
        if now_ms.saturating_sub(self.told_ms) >= HOST_MS {
            self.told_ms = now_ms;
            let reading = HostReading {
                stall_ppm: sides.host.stall_ppm,
                available_permille: sides.host.available_permille,
                ..sides.memory.reading()
            };
            self.observe(now_ms, Observation::Host(reading), sides);
            self.ask_balloon(now_ms, sides);
            // A user's hand moves the ceiling, too: the law may have nothing new to say of one that its limits forbid.
            keep_ceiling(self.law.ceiling_bytes(), sides);
        }
    }

    fn hear(&mut self, now_ms: u64, news: News, sides: &mut Sides<'_>) {
        let observation = match news {
            News::Capabilities(capabilities) => {
                let capabilities = translate::capabilities(capabilities);
                self.capabilities = Some(capabilities);
                Observation::Capabilities(capabilities)
            }
            News::Sample(boot_id, sample) => {
                self.samples_total = self.samples_total.saturating_add(1);
                self.sampled_ms = Some(now_ms);
                let sample = translate::sample(boot_id, &sample);
                // To its kernel what the balloon has is neither available nor gone.
                let others = sample.available_bytes.saturating_add(self.law.ballooned_bytes());
                self.guest_used_bytes = Some(sample.total_bytes.saturating_sub(others));
                Observation::Sample(sample)
            }
        };
        self.observe(now_ms, observation, sides);
    }

    fn hear_answers(&mut self, now_ms: u64, sides: &mut Sides<'_>) {
        let mut answered: Vec<Reclaimed> = Vec::new();
        self.unanswered.retain(|(id, number, until_ms)| {
            let answer = sides.agent.answer(*id);
            let late = answer.is_none() && now_ms >= *until_ms;
            if late {
                sides.agent.forget(*id);
            }
            if answer.is_some() || late {
                answered.push(translate::reclaimed(*number, answer.as_ref()));
            }
            answer.is_none() && !late
        });
        for reclaimed in answered {
            self.observe(now_ms, Observation::Reclaimed(reclaimed), sides);
        }
    }

    /// Where the agent tells nothing, or is not to be gone by, the balloon's driver is asked for what it knows.
    fn ask_balloon(&mut self, now_ms: u64, sides: &mut Sides<'_>) {
        let is_silent = self.sampled_ms.is_none_or(|at| now_ms.saturating_sub(at) >= 3 * STATISTICS_MS);
        let is_wanted = match self.settings.mode {
            Mode::Off => false,
            Mode::Balloon => true,
            Mode::Auto | Mode::Trim => is_silent,
        };
        if !is_wanted || now_ms.saturating_sub(self.asked_ms) < STATISTICS_MS {
            return;
        }
        self.asked_ms = now_ms;
        // The answer to the last request, if there was one.
        if let Some(statistics) = sides.memory.statistics().filter(|statistics| !statistics.stale) {
            self.observe(now_ms, Observation::Statistics(statistics.values), sides);
        }
        // Without a driver there is nobody to ask, which is no fault.
        let _ = sides.memory.request_statistics();
    }

    /// Tells the law one thing. What is decided may fail at once, of which the law is told in turn.
    fn observe(&mut self, now_ms: u64, observation: Observation, sides: &mut Sides<'_>) {
        let mut next = VecDeque::from([observation]);
        while let Some(observation) = next.pop_front() {
            self.orders.clear();
            self.law.observe(now_ms, &observation, &mut self.orders);
            if let Some(recording) = &mut self.recording {
                recording.note(now_ms, &observation, &self.orders);
            }
            for decision in self.orders.iter() {
                if self.remembered.len() >= REMEMBERED {
                    self.remembered.pop_front();
                }
                self.remembered.push_back(*decision);
            }
            let decided: Vec<_> = self.orders.iter().map(|decision| decision.order).collect();
            for order in decided {
                if let Some(number) = self.carry_out(now_ms, translate::deed(order), sides) {
                    next.push_back(Observation::Reclaimed(translate::reclaimed(number, None)));
                }
            }
        }
    }

    /// Has it done; the law's number of what nobody does, if it waits for that.
    fn carry_out(&mut self, now_ms: u64, deed: Deed, sides: &mut Sides<'_>) -> Option<u64> {
        match deed {
            Deed::Order(order, number) => match (sides.agent.order(order), number) {
                (Ok(id), Some(number)) => {
                    self.unanswered.push((id, number, now_ms.saturating_add(AGENT_MS)));
                    None
                }
                (Ok(id), None) => {
                    sides.agent.forget(id);
                    None
                }
                (Err(_), number) => number,
            },
            Deed::Pace(sample_ms) => {
                sides.agent.pace(sample_ms);
                None
            }
            Deed::Ceiling(bytes) => {
                keep_ceiling(bytes, sides);
                None
            }
            Deed::Nothing => None,
        }
    }

    /// The user's wishes from now on; [`Self::advance`] tells the law.
    pub fn set(&mut self, wanted: ReclaimRequest) {
        self.wanted.set(wanted);
    }

    /// What the daemon may count on.
    #[must_use]
    pub fn offer(&self, now_ms: u64) -> link::Offer {
        let status = self.law.status(now_ms);
        let reclaims = self.capabilities.is_some_and(|guest| guest.memory_reclaim || guest.ages);
        let hears = matches!(status.source, Source::Agent | Source::AgentWithoutPressure);
        let obeys = !matches!(status.state, State::Manual | State::Off | State::Safe | State::Stale);
        link::Offer {
            cold: status.cold,
            yield_bytes_per_s: status.yield_bytes_per_s,
            follows: reclaims && hears && obeys,
            ..link::Offer::default()
        }
    }

    /// What of it is worth a curve.
    #[must_use]
    pub fn usage(&self, now_ms: u64) -> link::Usage {
        let status = self.law.status(now_ms);
        link::Usage {
            target_bytes: (self.wanted.mode() != Mode::Off).then_some(status.target_bytes),
            guest_used_bytes: self.guest_used_bytes,
            sample_age_ms: self.sampled_ms.map(|at| now_ms.saturating_sub(at)),
            harm_permille: status.harm_permille,
            totals: status.totals,
            own: self.wanted.own(),
            ..link::Usage::default()
        }
    }

    /// What can be shown of it.
    #[must_use]
    pub fn document(&self, now_ms: u64) -> ReclaimDocument {
        let (working_set_age_ms, working_set_age_from) = self.wanted.working_set_age_ms();
        let (stall_budget_ppm, stall_budget_from) = self.wanted.stall_budget_ppm();
        ReclaimDocument {
            mode: self.wanted.mode(),
            working_set_age_ms,
            working_set_age_from,
            stall_budget_ppm,
            stall_budget_from,
            status: self.law.status(now_ms),
            capabilities: self.capabilities,
            samples_total: self.samples_total,
            sample_age_ms: self.sampled_ms.map(|at| now_ms.saturating_sub(at)),
            guest_used_bytes: self.guest_used_bytes,
            last: self.remembered.back().map(|decision| told(now_ms, decision)),
        }
    }

    /// The last decisions, the newest last.
    #[must_use]
    pub fn decisions(&self, now_ms: u64) -> DecisionsDocument {
        DecisionsDocument {
            decisions: self.remembered.iter().map(|decision| told(now_ms, decision)).collect(),
        }
    }
}

/// Without a driver there is nobody to keep it; the law sees that by its readings.
fn keep_ceiling(bytes: u64, sides: &mut Sides<'_>) {
    if let Err(why) = sides.memory.follow_ceiling(bytes) {
        log::debug!("the ceiling of {bytes} bytes is not kept: {why}");
    }
}

fn told(now_ms: u64, decision: &Decision) -> DecisionDocument {
    DecisionDocument {
        age_ms: now_ms.saturating_sub(decision.now_ms),
        order: words::of(decision.order),
        reason: decision.reason.to_string(),
        decision: serde_json::to_value(decision).unwrap_or_default(),
    }
}
