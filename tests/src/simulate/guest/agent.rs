//! The guest's agent as the host sees it: it samples, executes, is late, loses records, falls silent and lies.
//!
//! Turns a [`Machine`]'s numbers into [`Sample`]s and orders into its calls. Pure but for the guest's random numbers.

use super::machine::Machine;
use super::pages::Kind;
use crate::simulate::command::Command;
use crate::simulate::random::Random;
use balloon::PAGE_BYTES;
use balloon::policy::{Capabilities, Cause, Generation, Memory, Order, Reclaimed, Sample, Stopped};

/// Share of time that is pressure: the agent's trigger, `some 20000 500000`.
const TRIGGER: f64 = 0.04;

/// `swappiness=` of the agent's requests, in hundredths: `PREFERS_SWAP` of `guest-agent/src/evict.rs`.
const SWAPPINESS: f64 = 1.33;

/// The kernel's own, in hundredths.
const KERNEL_SWAPPINESS: f64 = 0.6;

/// What an agent says that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It never refaults and never waits.
    Zero,
    /// It always refaults and waits.
    Endless,
}

/// How an agent is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Whether its records come a second late.
    pub late: bool,
    /// Share of them that is lost.
    pub loss: f64,
    /// When it falls silent.
    pub silent_from_s: Option<f64>,
    /// What it says that is not so.
    pub lie: Option<Lie>,
}

/// The agent of one guest.
#[derive(Clone, Debug)]
pub struct Agent {
    manners: Manners,
    boot: u8,
    booted_ms: u64,
    sequence: u64,
    sample_ms: u64,
    next_ms: u64,
    held_back: Option<Sample>,
    alloc_stall: f64,
    oom_kill: f64,
    stall_s: f64,
    random: Random,
}

impl Agent {
    /// The agent of a guest that booted at `now_ms` for the `boot`th time.
    #[must_use]
    pub fn new(manners: Manners, boot: u8, now_ms: u64, random: Random) -> Self {
        Self {
            manners,
            boot,
            booted_ms: now_ms,
            sequence: 0,
            sample_ms: 1000,
            next_ms: now_ms,
            held_back: None,
            alloc_stall: 0.0,
            oom_kill: 0.0,
            stall_s: 0.0,
            random,
        }
    }

    /// What it can do.
    #[must_use]
    pub fn capabilities(machine: &Machine) -> Capabilities {
        Capabilities {
            psi: true,
            psi_trigger: true,
            memory_reclaim: true,
            reclaim_swappiness: true,
            ages: machine.spec.lists.generations,
            swap: machine.spec.swap,
            reporting_order: true,
            compaction: true,
            proactive_counter: true,
        }
    }

    /// The record that arrives at the host now, if one does. `seconds` is the length of the last tick.
    pub fn sample(&mut self, machine: &Machine, now_ms: u64, seconds: f64) -> Option<Sample> {
        let counters = &machine.counters;
        let cause = if counters.oom_kill > self.oom_kill {
            Cause::OutOfMemory
        } else if counters.alloc_stall > self.alloc_stall {
            Cause::Stall
        } else if counters.stall_s - self.stall_s > TRIGGER * seconds {
            Cause::Pressure
        } else {
            Cause::Periodic
        };
        let arrived = if self.manners.late { self.held_back.take() } else { None };
        if now_ms < self.next_ms && cause == Cause::Periodic {
            return arrived;
        }
        (self.oom_kill, self.alloc_stall, self.stall_s) =
            (counters.oom_kill, counters.alloc_stall, counters.stall_s);
        self.next_ms = now_ms + self.sample_ms;
        self.sequence += 1;
        let silent = self.manners.silent_from_s.is_some_and(|from_s| now_ms as f64 / 1000.0 >= from_s);
        if silent || self.random.happens(self.manners.loss) {
            return arrived;
        }
        let sample = self.read(machine, now_ms, cause);
        if self.manners.late {
            self.held_back = Some(sample);
            return arrived;
        }
        Some(sample)
    }

    fn read(&self, machine: &Machine, now_ms: u64, cause: Cause) -> Sample {
        let count = |pages: f64| pages.max(0.0) as u64;
        let bytes = |pages: f64| count(pages) * PAGE_BYTES;
        let micros = |seconds: f64| count(seconds * 1e6);
        let counters = &machine.counters;
        let (file, anon) = (machine.pages.held(Kind::File), machine.pages.held(Kind::Anon) + machine.burst);
        let inactive = machine.pages.inactive_file().min(file);
        let swapped = if machine.spec.swap { machine.pages.swapped() } else { 0.0 };
        let swap_total = if machine.spec.swap { machine.spec.total / 2.0 } else { 0.0 };
        let mut sample = Sample {
            boot_id: [self.boot; 16],
            sequence: self.sequence,
            monotonic_us: (now_ms - self.booted_ms) * 1000,
            cause,
            refault_file: count(counters.refault[0]),
            refault_anon: count(counters.refault[1]),
            activate_file: count(counters.restore[0]),
            activate_anon: count(counters.restore[1]),
            restore_file: count(counters.restore[0]),
            restore_anon: count(counters.restore[1]),
            nodereclaim: 0,
            steal_kswapd: count(counters.steal_kswapd),
            steal_direct: count(counters.steal_direct),
            steal_proactive: count(counters.steal_proactive),
            scan_kswapd: count(counters.steal_kswapd * 1.3),
            scan_direct: count(counters.steal_direct * 1.3),
            swap_in: count(counters.refault[1]),
            swap_out: count(counters.swap_out),
            major_faults: count(counters.refault[0] + counters.refault[1] + counters.first_file / 8.0),
            alloc_stall: count(counters.alloc_stall),
            oom_kill: count(counters.oom_kill),
            memory_some_us: micros(counters.stall_s),
            memory_full_us: micros(counters.stall_s / 2.0),
            io_some_us: micros(counters.io_s),
            own_stall_us: micros(counters.own_stall_s),
            cpu_busy_us: micros(counters.busy_s),
            total_bytes: bytes(machine.spec.total),
            free_bytes: bytes(machine.free_pages()),
            available_bytes: bytes(machine.free_pages() + file * 0.9),
            active_file_bytes: bytes(file - inactive),
            inactive_file_bytes: bytes(inactive),
            active_anon_bytes: bytes(anon * 0.8),
            inactive_anon_bytes: bytes(anon * 0.2),
            unevictable_bytes: 0,
            dirty_bytes: bytes(machine.dirty()),
            shmem_bytes: 0,
            slab_reclaimable_bytes: 0,
            swap_total_bytes: bytes(swap_total),
            swap_free_bytes: bytes(swap_total - swapped),
            ages: std::array::from_fn(|_| Generation::default()),
        };
        if machine.spec.lists.generations {
            machine.pages.generations(now_ms, |index, age_ms, held| {
                sample.ages[index] =
                    Generation { age_ms, anon_bytes: bytes(held[1]), file_bytes: bytes(held[0]) };
            });
        }
        self.lie(&mut sample, now_ms);
        sample
    }

    fn lie(&self, sample: &mut Sample, now_ms: u64) {
        let lived_ms = now_ms - self.booted_ms;
        match self.manners.lie {
            None => {}
            Some(Lie::Zero) => {
                (sample.refault_file, sample.refault_anon, sample.restore_file, sample.restore_anon) =
                    (0, 0, 0, 0);
                (sample.memory_some_us, sample.memory_full_us, sample.own_stall_us) = (0, 0, 0);
                sample.cause = Cause::Periodic;
            }
            Some(Lie::Endless) => {
                sample.refault_file += lived_ms * 10;
                sample.restore_file += lived_ms * 10;
                sample.memory_some_us += lived_ms * 500;
                sample.memory_full_us += lived_ms * 300;
                sample.alloc_stall += lived_ms / 100;
                sample.cause = Cause::Stall;
            }
        }
    }

    /// Carries out an order, if it is one for the agent.
    pub fn execute(&mut self, machine: &mut Machine, command: Command, now_ms: u64) -> Option<Reclaimed> {
        if self.manners.silent_from_s.is_some_and(|from_s| now_ms as f64 / 1000.0 >= from_s) {
            return None;
        }
        match command {
            Command::Order(Order::Reclaim { number, bytes, memory, older_than_ms }) => {
                let pages = bytes as f64 / PAGE_BYTES as f64;
                let wish = match memory {
                    Memory::File => [pages, 0.0],
                    Memory::Anon => [0.0, pages],
                    Memory::Both => machine.divide(pages, SWAPPINESS),
                };
                let ([mut file, mut anon], mut took_s) = machine.reclaim(now_ms, wish, older_than_ms);
                let missing = pages - file - anon;
                if matches!(memory, Memory::Both) && older_than_ms.is_none() && missing > 1.0 {
                    // Where one kind has no more the kernel goes on with the other.
                    for wish in [[missing, 0.0], [0.0, missing]] {
                        let left = pages - file - anon;
                        let ([more_file, more_anon], more_s) =
                            machine.reclaim(now_ms, wish.map(|pages| pages.min(left)), None);
                        (file, anon, took_s) = (file + more_file, anon + more_anon, took_s + more_s);
                    }
                }
                let stopped = if file + anon + 1.0 < 0.9 * pages { Stopped::InUse } else { Stopped::Done };
                let (file_pages, anon_pages, took_us) = (file as u64, anon as u64, (took_s * 1e6) as u64);
                Some(Reclaimed { number, file_pages, anon_pages, took_us, stopped })
            }
            Command::Request { bytes } => {
                let pages = machine.divide(bytes as f64 / PAGE_BYTES as f64, KERNEL_SWAPPINESS);
                machine.reclaim(now_ms, pages, None);
                None
            }
            Command::Order(Order::Age) => {
                machine.pages.begin_generation(now_ms);
                None
            }
            Command::Order(Order::Reporting { order, compact }) => {
                machine.free.order = order;
                if compact {
                    machine.free.compact();
                }
                None
            }
            Command::Order(Order::Pace { sample_ms }) => {
                self.sample_ms = sample_ms;
                self.next_ms = self.next_ms.min(now_ms + sample_ms);
                None
            }
            Command::Order(Order::Ceiling { bytes }) => {
                machine.ceiling = bytes as f64 / PAGE_BYTES as f64;
                None
            }
            Command::Order(Order::Enter { .. }) => None,
            Command::Limit { bytes } => {
                machine.high = bytes as f64 / PAGE_BYTES as f64;
                None
            }
        }
    }
}
