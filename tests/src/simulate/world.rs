//! A host and its guests, in lockstep: workload, kernel, agent, law and arbiter, a second at a time.
//!
//! Where memory is being allocated fast a guest lives four ticks of 250 ms instead of one. The same plan, seed and
//! law give the same run, byte for byte: nothing here asks for time, order of hashes or threads. A tick takes no memory.

use super::arbiters::{Arbiter, Claim};
use super::command::Commands;
use super::decay::{Row, rates};
use super::guest::agent::{Agent, Manners};
use super::guest::machine::{Machine, Spec};
use super::guest::pages::Pages;
use super::laws::{Law, Sight};
use super::meter::Meter;
use super::random::Random;
use super::series::{Moment, Series};
use balloon::PAGE_BYTES;
use balloon::policy::{HostReading, Reclaimed};

/// Length of a tick, in milliseconds.
pub const TICK_MS: u64 = 1000;
/// Length of a tick while memory is being allocated fast.
pub const SHORT_TICK_MS: u64 = 250;

/// Guests have run for so long when a run begins, so that they hold all that they use.
const WARM_S: f32 = 4.0 * 3600.0;

/// Time between two rounds of the arbiter.
const ARBITRATION_MS: u64 = 2000;

/// What host swap costs: what the host swaps out is its coldest, used once in twenty minutes, and then costs 1 ms.
const HOST_SWAP_S_PER_PAGE_S: f64 = 0.001 / 1200.0;

/// One guest of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Tenant {
    /// What it is.
    pub spec: Spec,
    /// How its agent is.
    pub manners: Manners,
    /// When it comes and goes.
    pub stays_s: (f64, f64),
    /// When it reboots, if it does.
    pub reboots_s: Option<f64>,
    /// `memory.min` of it, in pages.
    pub min: f64,
    /// The top-level group it is in.
    pub group: usize,
}

/// A run to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All guests that will ever be there.
    pub tenants: Vec<Tenant>,
    /// Length of the run.
    pub seconds: u64,
    /// Measured from here on.
    pub measured_from_s: u64,
    /// Memory of the host, in pages.
    pub capacity: f64,
}

struct Guest<L> {
    tenant: Tenant,
    machine: Machine,
    agent: Agent,
    law: L,
    meter: Meter,
    reclaimed: Option<Reclaimed>,
    envelope: Option<balloon::policy::Envelope>,
    present: bool,
    boots: u8,
}

/// What the arbiter did to the sum of what guests may have: for the promises about pressure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Rounds in which the host was short and the sum of ceilings grew.
    pub grew_when_short: u32,
    /// Time in which guests together held more than the host has.
    pub overcommitted_s: f64,
    /// Integral of what all guests held.
    pub footprint: f64,
    /// Greatest shortfall below an effective minimum, in pages.
    pub below_min: f64,
}

/// A running host.
pub struct World<L> {
    guests: Vec<Guest<L>>,
    claims: Vec<Claim>,
    arbiter: Box<dyn Arbiter>,
    plan: Plan,
    rates: Row,
    now_ms: u64,
    commands: Commands,
    host_stall: f64,
    ceilings: f64,
    /// What became of the host.
    pub totals: Totals,
}

impl<L: Law> World<L> {
    /// A host on which `plan` is to be run under `seed`, each guest with a law of its own.
    #[must_use]
    pub fn new(plan: Plan, seed: u64, arbiter: Box<dyn Arbiter>, law: impl Fn() -> L) -> Self {
        let rates = rates();
        let guests: Vec<Guest<L>> = (0_u64..)
            .zip(&plan.tenants)
            .map(|(index, tenant)| Guest {
                tenant: *tenant,
                machine: Machine::new(tenant.spec, &rates, WARM_S, 0, Random::new(seed, 2 * index)),
                agent: Agent::new(tenant.manners, 0, 0, Random::new(seed, 2 * index + 1)),
                law: law(),
                meter: Meter::default(),
                reclaimed: None,
                envelope: None,
                present: false,
                boots: 0,
            })
            .collect();
        let claims = vec![Claim::default(); guests.len()];
        Self {
            guests,
            claims,
            arbiter,
            plan,
            rates,
            now_ms: START_MS,
            commands: Commands::default(),
            host_stall: 0.0,
            ceilings: f64::INFINITY,
            totals: Totals::default(),
        }
    }

    /// Runs to the end, and records one guest if asked.
    pub fn run(&mut self, mut series: Option<&mut Series>) {
        while !self.is_over() {
            self.tick();
            if let Some(series) = series.as_deref_mut() {
                series.push(self.moment(series.guest));
            }
        }
    }

    /// Whether the plan's time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.now_ms >= START_MS + self.plan.seconds * 1000
    }

    /// The host has so many pages from now on.
    pub fn set_capacity(&mut self, pages: f64) {
        self.plan.capacity = pages;
    }

    /// What was measured of each guest.
    pub fn meters(&self) -> impl Iterator<Item = &Meter> {
        self.guests.iter().map(|guest| &guest.meter)
    }

    /// The guests as they are.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.guests.iter().map(|guest| &guest.machine)
    }

    fn moment(&self, guest: usize) -> Moment {
        let guest = &self.guests[guest];
        Moment {
            second: (self.now_ms - START_MS) / 1000,
            footprint: guest.machine.footprint(),
            ceiling: guest.machine.ceiling.min(guest.machine.spec.base + guest.machine.high),
            used: guest.machine.used(),
            stall: guest.machine.stalled_s,
            refaults: guest.machine.counters.refault[0] + guest.machine.counters.refault[1],
        }
    }

    /// One second.
    pub fn tick(&mut self) {
        self.now_ms += TICK_MS;
        let now_s = (self.now_ms - START_MS) as f64 / 1000.0;
        let measured = now_s > self.plan.measured_from_s as f64;
        let free = 1.0 - self.totals.footprint / self.plan.capacity;
        let host = HostView {
            available_permille: (free.clamp(0.0, 1.0) * 1000.0) as u64,
            stall_ppm: (self.host_stall * 1e6).min(1e6) as u64,
        };
        let mut footprint = 0.0;
        for (guest, claim) in self.guests.iter_mut().zip(&mut self.claims) {
            guest.come_and_go(now_s, self.now_ms, &self.rates);
            if !guest.present {
                *claim = Claim::default();
                continue;
            }
            let parts = if guest.machine.hurries(now_s) { TICK_MS / SHORT_TICK_MS } else { 1 };
            let tick_ms = TICK_MS / parts;
            for part in 1..=parts {
                let now_ms = self.now_ms - TICK_MS + part * tick_ms;
                guest.live(now_ms, tick_ms, &self.rates, self.host_stall, host, &mut self.commands);
                if measured {
                    let now_s = (now_ms - START_MS) as f64 / 1000.0;
                    guest.meter.tick(&guest.machine, now_s, tick_ms as f64 / 1000.0);
                }
            }
            footprint += guest.machine.footprint();
        }
        self.settle(footprint, measured);
        if self.now_ms.is_multiple_of(ARBITRATION_MS) {
            self.arbitrate();
        }
    }

    fn settle(&mut self, footprint: f64, measured: bool) {
        self.totals.footprint = footprint;
        let over = (footprint - self.plan.capacity).max(0.0);
        self.host_stall = over / footprint.max(1.0);
        if measured && over > 0.0 {
            self.totals.overcommitted_s += 1.0;
        }
    }

    fn arbitrate(&mut self) {
        for (guest, claim) in self.guests.iter().zip(&mut self.claims) {
            if guest.present {
                *claim = guest.claim(self.now_ms);
            }
        }
        let short = self.totals.footprint > (1.0 - AVAILABLE) * self.plan.capacity;
        self.arbiter.arbitrate(self.now_ms, self.plan.capacity, &mut self.claims);
        let mut ceilings = 0.0;
        for (guest, claim) in self.guests.iter_mut().zip(&self.claims) {
            if !guest.present {
                continue;
            }
            if let Some(ceiling) = claim.ceiling {
                guest.machine.ceiling = ceiling.clamp(guest.tenant.min, guest.machine.spec.total);
            }
            guest.envelope = claim.envelope;
            ceilings += guest.machine.ceiling;
        }
        if short && ceilings > self.ceilings + 1.0 {
            self.totals.grew_when_short += 1;
        }
        self.ceilings = ceilings;
    }
}

/// Share of a host below which what it has available is called short, as by the policy.
const AVAILABLE: f64 = 0.04;

/// The moment at which a run begins: what happened before it has its place too.
const START_MS: u64 = 4 * 3600 * 1000;

#[derive(Clone, Copy)]
struct HostView {
    available_permille: u64,
    stall_ppm: u64,
}

impl<L: Law> Guest<L> {
    fn come_and_go(&mut self, now_s: f64, now_ms: u64, rates: &Row) {
        let (from_s, until_s) = self.tenant.stays_s;
        let present = now_s > from_s && now_s <= until_s;
        if present && !self.present {
            self.boot(now_ms, from_s <= 0.0, rates);
        }
        self.present = present;
        if present && self.tenant.reboots_s.is_some_and(|at_s| now_s > at_s && self.boots < 2) {
            self.boot(now_ms, false, rates);
        }
    }

    fn boot(&mut self, now_ms: u64, warm: bool, rates: &Row) {
        self.boots += 1;
        if !warm {
            // Nothing is held, and nothing was used yet.
            self.machine = Machine::new(
                self.tenant.spec,
                rates,
                0.0,
                now_ms,
                Random::new(now_ms, u64::from(self.boots)),
            );
            self.machine.pages = Pages::new(self.tenant.spec.demand, [1.0; super::decay::BINS], now_ms);
        }
        self.machine.pages.cycle = self.tenant.spec.cycle;
        self.agent = Agent::new(self.tenant.manners, self.boots, now_ms, Random::new(now_ms, 7));
        let size_bytes = (self.tenant.spec.total as u64) * PAGE_BYTES;
        self.law.booted(now_ms, size_bytes, Agent::capabilities(&self.machine));
    }

    fn live(
        &mut self,
        now_ms: u64,
        tick_ms: u64,
        rates: &Row,
        short: f64,
        host: HostView,
        commands: &mut Commands,
    ) {
        let seconds = tick_ms as f64 / 1000.0;
        let host_stall_s = short * self.machine.footprint() * HOST_SWAP_S_PER_PAGE_S * seconds;
        self.machine.tick(rates, now_ms - START_MS, now_ms, seconds, host_stall_s);
        let sample = self.agent.sample(&self.machine, now_ms, seconds);
        if sample.is_none() && self.reclaimed.is_none() && self.envelope.is_none() && !self.law.wants_ticks()
        {
            return;
        }
        let bytes = |pages: f64| pages.max(0.0) as u64 * PAGE_BYTES;
        let sight = Sight {
            now_ms,
            sample: sample.as_ref(),
            reclaimed: self.reclaimed.take(),
            host: HostReading {
                resident_bytes: Some(bytes(self.machine.footprint())),
                ceiling_bytes: bytes(self.machine.left_by_balloon()),
                floor_bytes: bytes(self.machine.spec.base.max(self.tenant.min)),
                min_bytes: bytes(self.tenant.min),
                stall_ppm: host.stall_ppm,
                available_permille: host.available_permille,
                balloon: true,
            },
            envelope: self.envelope.take(),
            host_free_permille: host.available_permille,
        };
        commands.clear();
        self.law.step(&sight, commands);
        for command in commands.iter() {
            if let Some(reclaimed) = self.agent.execute(&mut self.machine, command, now_ms) {
                self.reclaimed = Some(reclaimed);
            }
        }
    }

    fn claim(&self, now_ms: u64) -> Claim {
        let spec = &self.machine.spec;
        Claim {
            size: spec.total,
            held: self.machine.footprint(),
            demand: self.machine.demand(),
            activity: self.machine.activity,
            fixed: spec.base + self.machine.burst(),
            min: self.tenant.min,
            group: self.tenant.group,
            left_by_balloon: self.machine.left_by_balloon(),
            offer: self.law.offer(now_ms),
            ceiling: None,
            envelope: None,
        }
    }
}
