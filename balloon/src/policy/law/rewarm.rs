//! The tests that sank others: what follows a trim must not be taken for thrash, and thrash must be noticed.
//!
//! The guest is an exact LRU list of page cache in pieces of 256 KiB, below a ceiling; its kernel evicts the oldest when
//! it is full, marks what refaults as in use, and tasks wait for pages that had been in use, as PSI counts.

#![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

use super::*;
use crate::policy::{Cause, Decision, Reclaimed, Sample};
use std::collections::{BTreeSet, VecDeque};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1024 * MIB;
const HIGH: u64 = 512 * MIB;
const PIECE: u64 = MIB / 4;
const PAGES: u64 = PIECE / PAGE_BYTES;
/// What kernel and workload hold beside page cache, in pieces.
const BASE: u64 = 400;
/// Time to fetch a piece: 64 pages at 20 us each, with readahead.
const FETCH_US: u64 = 1_250;

struct Cache {
    law: Law,
    sample: Sample,
    now_ms: u64,
    /// The oldest in front.
    list: VecDeque<u64>,
    /// Evicted and not forgotten.
    shadows: BTreeSet<u64>,
    /// Refaulted before.
    in_use: BTreeSet<u64>,
    decisions: Vec<Decision>,
}

impl Cache {
    /// A guest with `pieces` in its cache, whose ceiling is [`HIGH`] of [`SIZE`], past its start.
    fn new(pieces: u64) -> Self {
        let settings = Settings { high_bytes: Some(HIGH), ..Settings::new(SIZE) };
        let law = Law::new(0, SIZE, settings, Tuning::default());
        let mut cache = Self {
            law,
            sample: Sample { total_bytes: SIZE, ..Sample::default() },
            now_ms: 0,
            list: VecDeque::new(),
            shadows: BTreeSet::new(),
            in_use: BTreeSet::new(),
            decisions: Vec::new(),
        };
        let can = Capabilities { psi: true, memory_reclaim: true, ..Capabilities::default() };
        cache.tell(&Observation::Capabilities(can));
        // What is read at first is left alone.
        for second in 0..30 {
            let reads: Vec<u64> = (0..pieces).filter(|piece| piece % 30 == second).collect();
            cache.second(&reads);
        }
        (0..60).for_each(|_| cache.second(&[]));
        cache
    }

    fn ceiling(&self) -> u64 {
        self.law.ceiling.bytes()
    }

    fn tell(&mut self, observation: &Observation) {
        let mut orders = Orders::new();
        self.law.observe(self.now_ms, observation, &mut orders);
        for decision in orders.iter() {
            self.decisions.push(*decision);
            if let Order::Reclaim { number, bytes, .. } = decision.order {
                let pieces = (bytes / PIECE).min(self.list.len() as u64);
                (0..pieces).for_each(|_| self.evict());
                self.sample.steal_proactive += pieces * PAGES;
                let file_pages = pieces * PAGES;
                self.tell(&Observation::Reclaimed(Reclaimed { number, file_pages, ..Reclaimed::default() }));
            }
        }
    }

    fn evict(&mut self) {
        if let Some(piece) = self.list.pop_front() {
            self.shadows.insert(piece);
        }
    }

    fn read(&mut self, piece: u64) {
        if let Some(place) = self.list.iter().position(|known| *known == piece) {
            self.list.remove(place);
        } else if self.shadows.remove(&piece) {
            self.sample.refault_file += PAGES;
            if self.in_use.contains(&piece) {
                self.sample.restore_file += PAGES;
                self.sample.memory_some_us += FETCH_US;
            }
            self.in_use.insert(piece);
        }
        self.list.push_back(piece);
        let room = self.ceiling() / PIECE - BASE;
        while self.list.len() as u64 > room {
            self.evict();
            self.sample.steal_kswapd += PAGES;
        }
    }

    fn second(&mut self, reads: &[u64]) {
        reads.iter().for_each(|piece| self.read(*piece));
        self.now_ms += 1000;
        self.sample.monotonic_us += 1_000_000;
        self.sample.sequence += 1;
        self.sample.cpu_busy_us += 200_000;
        let cached = self.list.len() as u64 * PIECE;
        let held = BASE * PIECE + cached;
        self.sample.inactive_file_bytes = cached;
        self.sample.free_bytes = self.ceiling() - held;
        self.sample.available_bytes = self.ceiling() - BASE * PIECE;
        self.tell(&Observation::Host(HostReading {
            resident_bytes: Some(held),
            ceiling_bytes: self.ceiling(),
            floor_bytes: 96 * MIB,
            available_permille: 500,
            balloon: true,
            ..HostReading::default()
        }));
        self.tell(&Observation::Sample(self.sample));
        self.sample.cause = Cause::Periodic;
    }

    /// Idle long enough to be trimmed to a part of its cache.
    fn trimmed(mut self) -> Self {
        let before = self.list.len();
        (0..600).for_each(|_| self.second(&[]));
        assert!(self.list.len() < before * 9 / 10, "{} of {before}", self.list.len());
        self.decisions.clear();
        self
    }

    fn lifts(&self) -> usize {
        let lift = |one: &&Decision| {
            matches!((one.order, one.reason), (Order::Ceiling { .. }, Reason::Pressure { .. }))
        };
        self.decisions.iter().filter(lift).count()
    }
}

#[test]
fn a_cold_start_is_no_thrash() {
    let mut guest = Cache::new(1200).trimmed();
    // A new program reads 200 MiB that nobody had, and reads them again and again, among what was there before.
    for round in 0..60u64 {
        let reads = (0..80).map(|one| 10_000 + (round * 80 + one) % 800).chain([round % 1200]);
        let reads: Vec<u64> = reads.collect();
        guest.second(&reads);
    }
    assert_eq!((guest.lifts(), guest.ceiling()), (0, HIGH), "{:#?}", guest.decisions);
}

#[test]
fn a_rewarming_cache_is_no_thrash() {
    let mut guest = Cache::new(1200).trimmed();
    // All that was there comes back within ten seconds, then is used for good.
    for round in 0..60u64 {
        let reads: Vec<u64> = (0..120).map(|one| (round * 120 + one) % 1200).collect();
        guest.second(&reads);
    }
    assert_eq!((guest.lifts(), guest.ceiling()), (0, HIGH), "{:#?}", guest.decisions);
}

#[test]
fn a_scan_is_no_thrash() {
    let mut guest = Cache::new(1200).trimmed();
    for second in 0..120u64 {
        let reads: Vec<u64> = (0..200).map(|one| 20_000 + second * 200 + one).collect();
        guest.second(&reads);
    }
    assert_eq!((guest.lifts(), guest.ceiling()), (0, HIGH), "{:#?}", guest.decisions);
    assert!(guest.list.len() < 1500, "a stream recycles its own: {}", guest.list.len());
}

#[test]
fn a_set_a_fifth_larger_than_memory_is_thrash_and_then_fits() {
    let mut guest = Cache::new(1200).trimmed();
    let set = (HIGH / PIECE - BASE) * 6 / 5;
    let mut moves = Vec::new();
    let mut before = guest.ceiling();
    for second in 0..900u64 {
        let reads: Vec<u64> = (0..200).map(|one| 30_000 + (second * 200 + one) % set).collect();
        guest.second(&reads);
        if guest.ceiling() != before {
            moves.push((second, guest.ceiling() > before));
            before = guest.ceiling();
        }
    }
    assert!(moves.first().is_some_and(|(second, up)| *second < 60 && *up), "{moves:?}");
    assert!(guest.list.len() as u64 >= set * 9 / 10, "it fits: {} of {set}", guest.list.len());
    let turns = moves.iter().zip(moves.iter().skip(1)).filter(|(one, two)| one.1 != two.1).count();
    assert!(turns <= 2, "{moves:?}");
}
