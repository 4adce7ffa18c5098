//! The working-set age as a promise: what is used twice in one stays, what is used every other one goes.
//!
//! The guest is a model of the multi-generational LRU, in pieces of 64 KiB: a pass puts what was used since the last one into
//! the youngest generation and begins a new one; what was used since is not evicted.

#![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

use super::*;
use crate::policy::sample::{GENERATIONS, Generation};
use crate::policy::{Reclaimed, Sample};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 512 * MIB;
const PIECE: u64 = MIB / 16;
const PAGES: u64 = PIECE / PAGE_BYTES;
const AGE_MS: u64 = 300_000;
/// Time to fetch a page.
const FETCH_US: u64 = 100;

#[derive(Clone, Copy)]
struct Piece {
    every_ms: u64,
    next_ms: u64,
    used_ms: u64,
    generation: usize,
    is_there: bool,
    /// Passes see that it is used: it is mapped, and not read by `pread`.
    is_seen: bool,
}

struct Guest {
    law: Law,
    sample: Sample,
    pieces: Vec<Piece>,
    /// When each generation was begun, the oldest first.
    begun: Vec<u64>,
    now_ms: u64,
    pace_ms: u64,
    /// After four working-set ages: uses of what is used often, of what is used seldom, and of what is used often and not
    /// seen; all, and those that found their piece.
    used: [[u64; 2]; 3],
    busy_permille: u64,
}

impl Guest {
    /// 60 MiB of memory, of which 12 MiB are used seldom and `unseen_mib` are not seen.
    fn new(busy_permille: u64, unseen_mib: u64) -> Self {
        let law = Law::new(0, SIZE, Settings::new(SIZE), Tuning::default());
        let set = |every_ms: u64, mib: u64, is_seen: bool| {
            let count = mib * MIB / PIECE;
            (0..count).map(move |number| {
                let next_ms = every_ms * number / count;
                Piece { every_ms, next_ms, used_ms: 0, generation: 1, is_there: true, is_seen }
            })
        };
        let often = set(AGE_MS / 2, 48 - unseen_mib, true).chain(set(AGE_MS / 2, unseen_mib, false));
        let mut guest = Self {
            law,
            sample: Sample { total_bytes: SIZE, ..Sample::default() },
            pieces: often.chain(set(AGE_MS * 2, 12, true)).collect(),
            begun: vec![0, 0],
            now_ms: 0,
            pace_ms: 1000,
            used: [[0; 2]; 3],
            busy_permille,
        };
        let can = Capabilities { psi: true, memory_reclaim: true, ages: true, ..Capabilities::default() };
        guest.tell(&Observation::Capabilities(can));
        guest
    }

    fn youngest(&self) -> usize {
        self.begun.len() - 1
    }

    fn is_used_since(&self, piece: &Piece) -> bool {
        piece.used_ms >= self.begun[self.youngest()]
    }

    fn pass(&mut self) {
        let youngest = self.youngest();
        for number in 0..self.pieces.len() {
            if self.is_used_since(&self.pieces[number]) {
                self.pieces[number].generation = youngest;
            }
        }
        self.begun.push(self.now_ms);
        if self.begun.len() > GENERATIONS {
            self.merge_oldest();
        }
    }

    /// Asked for what is that old, whole generations that are; asked for anything, the oldest, and if it must be the kernel
    /// begins new ones for that.
    fn evict(&mut self, bytes: u64, older_than_ms: Option<u64>) -> u64 {
        let mut evicted = 0;
        for _ in 0..GENERATIONS {
            while self.begun.len() > 2
                && !self.pieces.iter().any(|piece| piece.is_there && piece.generation == 0)
            {
                self.merge_oldest();
            }
            if self.begun.len() < 3 {
                if older_than_ms.is_some() {
                    break;
                }
                self.pass();
            }
            let idle_ms = self.now_ms - self.begun[1];
            if older_than_ms.is_some_and(|wanted| idle_ms < wanted) {
                break;
            }
            for number in 0..self.pieces.len() {
                if evicted * PIECE >= bytes {
                    return evicted;
                }
                // In no order.
                let number = number * 769 % self.pieces.len();
                let piece = self.pieces[number];
                if piece.is_there && piece.generation == 0 {
                    if self.is_used_since(&piece) {
                        self.pieces[number].generation = self.youngest();
                    } else {
                        self.pieces[number].is_there = false;
                        evicted += 1;
                    }
                }
            }
        }
        evicted
    }

    fn merge_oldest(&mut self) {
        self.begun.remove(0);
        self.pieces.iter_mut().for_each(|piece| piece.generation = piece.generation.saturating_sub(1));
    }

    fn tell(&mut self, observation: &Observation) {
        let mut orders = Orders::new();
        self.law.observe(self.now_ms, observation, &mut orders);
        for decision in orders.iter() {
            match decision.order {
                Order::Age => self.pass(),
                Order::Pace { sample_ms } => self.pace_ms = sample_ms,
                Order::Reclaim { number, bytes, older_than_ms, .. } => {
                    let file_pages = self.evict(bytes, older_than_ms) * PAGES;
                    self.tell(&Observation::Reclaimed(Reclaimed {
                        number,
                        file_pages,
                        ..Reclaimed::default()
                    }));
                }
                _ => {}
            }
        }
    }

    fn second(&mut self) {
        self.now_ms += 1000;
        let youngest = self.youngest();
        for piece in self.pieces.iter_mut().filter(|piece| piece.next_ms <= self.now_ms) {
            piece.next_ms += piece.every_ms;
            if piece.is_seen || !piece.is_there {
                piece.used_ms = self.now_ms;
            }
            if self.now_ms > 4 * AGE_MS {
                let kind = match (piece.every_ms > AGE_MS, piece.is_seen) {
                    (false, true) => 0,
                    (true, _) => 1,
                    (false, false) => 2,
                };
                let used = &mut self.used[kind];
                used[0] += 1;
                used[1] += u64::from(piece.is_there);
            }
            if !piece.is_there {
                (piece.is_there, piece.generation) = (true, youngest);
                self.sample.refault_file += PAGES;
                self.sample.memory_some_us += PAGES * FETCH_US;
            }
        }
        self.sample.monotonic_us += 1_000_000;
        self.sample.cpu_busy_us += self.busy_permille * 1000;
        let held = self.pieces.iter().filter(|piece| piece.is_there).count() as u64 * PIECE;
        self.tell(&Observation::Host(HostReading {
            resident_bytes: Some(64 * MIB + held),
            ceiling_bytes: SIZE,
            floor_bytes: 48 * MIB,
            available_permille: 500,
            ..HostReading::default()
        }));
        if self.now_ms.is_multiple_of(self.pace_ms) {
            self.sample.sequence += 1;
            self.sample.inactive_file_bytes = held;
            self.sample.free_bytes = SIZE - 64 * MIB - held;
            self.sample.available_bytes = SIZE - 64 * MIB;
            self.sample.ages = std::array::from_fn(|index| self.generation(index));
            self.tell(&Observation::Sample(self.sample));
        }
    }

    /// The youngest first.
    fn generation(&self, index: usize) -> Generation {
        let Some(number) = self.youngest().checked_sub(index) else { return Generation::default() };
        let pieces = self.pieces.iter().filter(|piece| piece.is_there && piece.generation == number);
        Generation {
            age_ms: self.now_ms - self.begun[number],
            anon_bytes: 0,
            file_bytes: pieces.count() as u64 * PIECE,
        }
    }

    /// Thousandths of the uses that found their piece, from the fifth working-set age to the eighth.
    fn there_permille(mut self) -> [u64; 3] {
        (0..8 * AGE_MS / 1000).for_each(|_| self.second());
        self.used.map(|[used, there]| there * 1000 / used.max(1))
    }
}

#[test]
fn what_is_used_twice_in_an_age_stays_and_what_is_used_every_other_one_goes() {
    for busy_permille in [2, 200] {
        let [often, seldom, _] = Guest::new(busy_permille, 0).there_permille();
        assert!(often >= 950 && seldom <= 50, "{busy_permille}: {often} {seldom}");
    }
}

/// A kernel that does nothing else for such pages: the stall budget has them stay.
#[test]
fn of_what_is_used_twice_in_an_age_and_not_seen_to_be_most_stays() {
    let [often, _, unseen] = Guest::new(200, 16).there_permille();
    assert!(often >= 950 && unseen >= 750, "{often} {unseen}");
    assert!(unseen < 950, "the documentation says that it is less than of what is seen: {unseen}");
}
