//! One guest: its workload, its kernel and its balloon, a tick at a time.
//!
//! Called by the simulation with the order of ticks, and by the guest's agent for numbers. Knows nothing of laws.
//! Pure but for the guest's own random numbers. Counts are pages, as floats; times are seconds.

use super::evict::{Lists, Wish};
use super::free::{DEFLATE_PER_S, Free, INFLATE_PER_S};
use super::pages::{Cycle, Kind, Pages};
use super::waits::Waits;
use super::workload::Workload;
use crate::simulate::decay::{BINS, Row, survive};
use crate::simulate::random::Random;

/// Compression of zram: what 4 KiB in swap still takes, as `zstd` does on heaps.
const ZRAM: f64 = 1.0 / 3.0;

/// What a page costs whoever must reclaim it himself, in seconds.
const DIRECT_S: f64 = 2e-6;

/// What a page of a proactive reclaim costs the agent, in seconds.
const PROACTIVE_S: f64 = 1.5e-6;

/// How finely the books of last uses are kept at least.
const SLOT_MS: u64 = 60_000;

/// Time over which the rate of evictions is averaged.
const OF_LATE_S: f64 = 60.0;

/// When a guest writes its files that does so: its agent's first sample is out.
const WRITTEN_MS: u64 = 10_000;

/// The balloon's driver waits so long when it finds no page ("Out of puff").
const PUFF_S: f64 = 0.2;

/// Watermarks of the guest's kernel, as shares of its memory.
const LOW: f64 = 0.012;
/// As [`LOW`].
const HIGH: f64 = 0.016;

/// What a guest is.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its memory.
    pub total: f64,
    /// What its kernel and unevictable memory take.
    pub base: f64,
    /// File and anonymous pages by reuse.
    pub demand: [Row; 2],
    /// File pages that are read round and round.
    pub cycle: Option<Cycle>,
    /// What its processes do.
    pub workload: Workload,
    /// Its file pages are written when its agent is there, all that there are, and were never used before.
    pub written: bool,
    /// How its kernel evicts.
    pub lists: Lists,
    /// To read an evicted file page again.
    pub refetch_s: f64,
    /// To get an anonymous page from swap.
    pub swap_in_s: f64,
    /// Whether there is swap.
    pub swap: bool,
    /// Part of what is streamed that is written, and cannot be evicted for thirty seconds.
    pub dirty: f64,
}

/// Raw cumulative counters, as the kernel's.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "they are named as in /proc/vmstat")]
pub struct Counters {
    pub refault: [f64; 2],
    pub restore: [f64; 2],
    pub steal_kswapd: f64,
    pub steal_direct: f64,
    pub steal_proactive: f64,
    pub swap_out: f64,
    pub first_file: f64,
    pub alloc_stall: f64,
    pub oom_kill: f64,
    pub stall_s: f64,
    pub io_s: f64,
    pub own_stall_s: f64,
    pub busy_s: f64,
    pub puffs: f64,
}

/// A running guest.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it is.
    pub spec: Spec,
    /// What its processes use.
    pub pages: Pages,
    /// What it counts.
    pub counters: Counters,
    /// Free pages that the host holds.
    pub free: Free,
    /// `memory.high` around its processes, for laws that use it.
    pub high: f64,
    /// What the balloon is to leave the guest.
    pub ceiling: f64,
    pub(super) balloon: f64,
    pub(super) burst: f64,
    burst_refused: bool,
    waits: Waits,
    puff_s: f64,
    /// File pages that were evicted in a second, of late, and in this tick.
    evicted_per_s: f64,
    evicted: f64,
    dirty: f64,
    turned_over: f64,
    /// Time that its processes waited in the last tick, and what its allocations met.
    pub stalled_s: f64,
    /// Share of the last tick in which there was work.
    pub activity: f64,
    random: Random,
}

impl Machine {
    /// A guest that has run for `warm_s` before.
    #[must_use]
    pub fn new(spec: Spec, rates: &Row, warm_s: f32, now_ms: u64, random: Random) -> Self {
        let before = if spec.written { [1.0; BINS] } else { survive(rates, warm_s) };
        let pages = Pages::new(spec.demand, before, now_ms);
        Self {
            spec,
            pages,
            counters: Counters::default(),
            free: Free::new(),
            high: f64::INFINITY,
            ceiling: spec.total,
            balloon: 0.0,
            burst: 0.0,
            burst_refused: false,
            waits: Waits::default(),
            puff_s: 0.0,
            evicted_per_s: 0.0,
            evicted: 0.0,
            dirty: 0.0,
            turned_over: 0.0,
            stalled_s: 0.0,
            activity: 0.0,
            random,
        }
    }

    /// What is not free, without the balloon.
    #[must_use]
    pub fn used(&self) -> f64 {
        self.spec.base + self.charge()
    }

    /// What processes are charged, swap in memory among it.
    #[must_use]
    pub fn charge(&self) -> f64 {
        let swapped = if self.spec.swap { self.pages.swapped() * ZRAM } else { 0.0 };
        self.pages.held(Kind::File) + self.pages.held(Kind::Anon) + self.burst + swapped
    }

    /// `MemFree`.
    #[must_use]
    pub fn free_pages(&self) -> f64 {
        self.spec.total - self.balloon - self.used()
    }

    /// What the host holds for it.
    #[must_use]
    pub fn footprint(&self) -> f64 {
        (self.used() + self.free.pages()).min(self.spec.total)
    }

    /// What the balloon leaves it now.
    #[must_use]
    pub fn left_by_balloon(&self) -> f64 {
        self.spec.total - self.balloon
    }

    /// What a burst holds.
    #[must_use]
    pub fn burst(&self) -> f64 {
        self.burst
    }

    /// File pages that are being written.
    #[must_use]
    pub fn dirty(&self) -> f64 {
        self.dirty
    }

    /// All pages that its processes use again, by bin.
    #[must_use]
    pub fn demand(&self) -> Row {
        std::array::from_fn(|bin| self.spec.demand[0][bin] + self.spec.demand[1][bin])
    }

    /// Whether the next tick must be short.
    #[must_use]
    pub fn hurries(&self, now_s: f64) -> bool {
        self.spec.workload.burst.ramps(now_s)
    }

    /// Lives for `seconds` until `now_ms`. What the host makes it wait comes on top.
    ///
    /// `run_ms` is the time since the run began, by which the workload goes.
    pub fn tick(&mut self, rates: &Row, run_ms: u64, now_ms: u64, seconds: f64, host_stall_s: f64) {
        let now_s = run_ms as f64 / 1000.0;
        if now_ms.is_multiple_of(SLOT_MS) {
            self.pages.begin_slot(now_ms);
        }
        let of_late = (seconds / OF_LATE_S).min(1.0);
        self.evicted_per_s += (std::mem::take(&mut self.evicted) / seconds - self.evicted_per_s) * of_late;
        let (own, told) = self.waits.pass(seconds);
        // The guest's kernel sees a slow processor there, and no pressure.
        let waits = (own + host_stall_s).min(0.95 * seconds);
        self.activity = self.spec.workload.activity.at(now_s);
        let active_s = self.activity * (seconds - waits);
        self.counters.busy_s += active_s;
        self.counters.stall_s += told;
        self.stalled_s = waits;

        let free = self.free_pages();
        if self.spec.written && run_ms >= WRITTEN_MS {
            self.spec.written = false;
            self.pages = Pages::written(self.spec.demand, now_ms);
        }
        let unused = survive(rates, active_s as f32);
        let faults = self.pages.age(&unused, &self.pages.distant(rates, self.evicted_per_s));
        let round = self.pages.read_on(now_ms, active_s * 1000.0);
        let streamed = self.spec.workload.stream.at(now_s) * (seconds - waits);
        if streamed > 0.0 {
            self.pages.stream(streamed);
            self.counters.first_file += streamed;
        }
        self.dirty += streamed * self.spec.dirty - self.dirty * (seconds / 30.0).min(1.0);
        let (every_s, share) = self.spec.workload.turn_over;
        if every_s > 0.0 && (now_s / every_s).floor() > self.turned_over {
            if self.turned_over > 0.0 {
                self.pages.turn_over(share);
            }
            self.turned_over = (now_s / every_s).floor();
        }
        self.count(&faults.refaults, faults.restores_file, round, faults.first[0]);
        self.follow_burst(now_s);

        self.free.take((free - self.free_pages()).max(0.0));
        self.keep_free(now_ms, free);
        self.keep_high(now_ms);
        self.follow_ceiling(now_ms, seconds);
        self.free.report(seconds);
        self.free.bound(self.free_pages());
    }

    fn count(&mut self, refaults: &[f64; 2], restores_file: f64, round: f64, first: f64) {
        let file = self.random.count(refaults[0] + round);
        let anon = self.random.count(refaults[1]);
        let restored = (restores_file + round) / (refaults[0] + round).max(1e-9);
        self.counters.refault[0] += file;
        self.counters.refault[1] += anon;
        self.counters.restore[0] += file * restored;
        self.counters.restore[1] += anon;
        self.counters.first_file += first;
        self.waits.owe(file * restored * self.spec.refetch_s + anon * self.spec.swap_in_s);
        self.waits.owe_untold(file * (1.0 - restored) * self.spec.refetch_s);
        self.counters.io_s += file * self.spec.refetch_s;
    }

    fn follow_burst(&mut self, now_s: f64) {
        let wanted = self.spec.workload.burst.at(now_s);
        if wanted <= 0.0 {
            self.burst_refused = false;
        }
        let wanted = if self.burst_refused { 0.0 } else { wanted };
        if wanted < self.burst {
            self.free.freed(self.burst - wanted);
        }
        self.burst = wanted;
    }

    /// Reclaim of the guest's own kernel: by kswapd in time, by the allocating process if that was too late.
    fn keep_free(&mut self, now_ms: u64, before: f64) {
        let free = self.free_pages();
        if free >= LOW * self.spec.total {
            return;
        }
        // kswapd begins at the low watermark, and what is allocated beyond what was free then is nobody's in time.
        let late = (-free).max(0.0).min((before - free).max(0.0));
        let evicted = self.evict_both(now_ms, HIGH * self.spec.total - free, 0.3);
        let direct = late.min(evicted);
        self.counters.steal_direct += direct;
        self.counters.steal_kswapd += evicted - direct;
        self.counters.alloc_stall += (direct / 32.0).ceil();
        self.waits.owe(direct * DIRECT_S);
        let short = -self.free_pages();
        if short > 0.0 && self.burst > 0.0 {
            self.counters.oom_kill += 1.0;
            self.burst_refused = true;
            self.free.freed(self.burst - short.min(self.burst));
            self.burst = 0.0;
        }
    }

    /// `memory.high`: whoever allocates beyond it reclaims, and sleeps if that does not help.
    fn keep_high(&mut self, now_ms: u64) {
        let over = self.charge() - self.high;
        if over <= 0.0 {
            return;
        }
        let evicted = self.evict_both(now_ms, over, 0.3);
        self.counters.steal_direct += evicted;
        self.waits.owe(evicted * DIRECT_S);
        let over = (self.charge() - self.high).max(0.0) / self.high.max(1.0);
        // The kernel's penalty: the square of the overage, at most two seconds.
        self.waits.owe((over * over * 64.0).min(2.0));
    }

    fn follow_ceiling(&mut self, now_ms: u64, seconds: f64) {
        let wanted = (self.spec.total - self.ceiling).clamp(0.0, self.spec.total);
        if wanted <= self.balloon {
            let pages = (self.balloon - wanted).min(DEFLATE_PER_S * seconds);
            self.balloon -= pages;
            return;
        }
        self.puff_s = (self.puff_s - seconds).max(0.0);
        if self.puff_s > 0.0 {
            return;
        }
        let pages = (wanted - self.balloon).min(INFLATE_PER_S * seconds);
        let room = self.free_pages() - LOW * self.spec.total;
        if room < pages {
            let evicted = self.evict_both(now_ms, pages - room, 0.3);
            self.counters.steal_kswapd += evicted;
        }
        let room = (self.free_pages() - LOW * self.spec.total).max(0.0);
        if room < pages {
            self.counters.puffs += 1.0;
            self.puff_s = PUFF_S;
        }
        self.balloon += pages.min(room);
        self.free.take(pages.min(room));
    }

    /// What the agent is asked to reclaim. Gives the evicted file and anonymous pages, and the time that it took.
    pub fn reclaim(&mut self, now_ms: u64, pages: [f64; 2], older_than_ms: Option<u64>) -> ([f64; 2], f64) {
        let file = self.evict(now_ms, Kind::File, pages[0], older_than_ms);
        let anon = self.evict(now_ms, Kind::Anon, pages[1], older_than_ms);
        self.counters.steal_proactive += file + anon;
        let took_s = (file + 3.0 * anon) * PROACTIVE_S;
        self.counters.own_stall_s += took_s;
        self.counters.stall_s += took_s;
        ([file, anon], took_s)
    }

    /// As `memory.reclaim` divides it: by size and swappiness.
    #[must_use]
    pub fn divide(&self, pages: f64, swappiness: f64) -> [f64; 2] {
        let file = self.pages.held(Kind::File) * (2.0 - swappiness);
        let anon = if self.spec.swap { self.pages.held(Kind::Anon) * swappiness } else { 0.0 };
        let share = file / (file + anon).max(1e-9);
        [pages * share, pages * (1.0 - share)]
    }

    fn evict_both(&mut self, now_ms: u64, pages: f64, swappiness: f64) -> f64 {
        let [file, anon] = self.divide(pages, 2.0 * swappiness);
        let mut evicted =
            self.evict(now_ms, Kind::File, file, None) + self.evict(now_ms, Kind::Anon, anon, None);
        if evicted + 1.0 < pages {
            evicted += self.evict(now_ms, Kind::File, pages - evicted, None);
        }
        if evicted + 1.0 < pages {
            evicted += self.evict(now_ms, Kind::Anon, pages - evicted, None);
        }
        evicted
    }

    fn evict(&mut self, now_ms: u64, kind: Kind, pages: f64, older_than_ms: Option<u64>) -> f64 {
        let pages = match kind {
            Kind::File => pages.min(self.pages.held(kind) - self.dirty),
            Kind::Anon if self.spec.swap => pages,
            Kind::Anon => 0.0,
        };
        if pages <= 0.0 {
            return 0.0;
        }
        let evicted = self.pages.evict(self.spec.lists, Wish { kind, pages, older_than_ms, now_ms });
        if kind == Kind::File {
            self.evicted += evicted;
        }
        let freed = if kind == Kind::Anon {
            self.counters.swap_out += evicted;
            evicted * (1.0 - ZRAM)
        } else {
            evicted
        };
        self.free.evicted(freed);
        evicted
    }
}
