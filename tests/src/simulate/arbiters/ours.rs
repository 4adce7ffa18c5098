//! Ballast's arbitration, the code that the daemon runs over the same tree: this only translates.

use super::{Arbiter, Claim};
use balloon::PAGE_BYTES;
use balloon::policy::Envelope;
use balloon::policy::fleet::{Allotment, Fleet, FleetTuning, Host, Reading};
use balloon::zone::{Id, Limits, Pool, Tree};

/// As [`balloon::control::link::LEASE`].
const LEASE_MS: u64 = 10_000;

/// The daemon's, with a pool of what it takes when nobody says how much: the host's memory less a sixteenth.
#[derive(Debug)]
pub struct Ballast {
    fleet: Fleet,
    books: Option<Books>,
    readings: Vec<Reading>,
    allotments: Vec<Allotment>,
    sequence: u64,
}

#[derive(Debug)]
struct Books {
    tree: Tree,
    /// Of each claim, while its guest is there.
    vms: Vec<Option<Id>>,
}

impl Default for Ballast {
    fn default() -> Self {
        Self {
            fleet: Fleet::new(FleetTuning::default()),
            books: None,
            readings: Vec::new(),
            allotments: Vec::new(),
            sequence: 0,
        }
    }
}

impl Arbiter for Ballast {
    fn arbitrate(&mut self, _: u64, capacity: f64, claims: &mut [Claim]) {
        let Self { fleet, books, readings, allotments, sequence } = self;
        let total_bytes = bytes(capacity);
        let pool = Pool { capacity_bytes: total_bytes - total_bytes / 16, overcommit: true };
        let books = books.get_or_insert_with(|| Books::new(pool, claims.len()));
        books.tree.set_pool(pool).expect("what is promised fits");
        *sequence += 1;
        readings.clear();
        let mut held_bytes = 0;
        for (index, claim) in claims.iter().enumerate() {
            if let Some(vm) = books.settle(index, claim, *sequence) {
                held_bytes += bytes(claim.held);
                readings.push(Reading {
                    vm,
                    ceiling_bytes: bytes(claim.left_by_balloon),
                    cold: claim.offer.cold,
                    yield_bytes_per_s: claim.offer.yield_bytes_per_s,
                    follows: claim.offer.follows,
                    pages_out: false,
                });
            }
        }
        let host =
            Host { total_bytes, available_bytes: total_bytes.saturating_sub(held_bytes), ..Host::default() };
        let _ = fleet.tick(&books.tree, &host, readings, allotments);
        let mut allotments = allotments.iter();
        for (claim, _) in claims.iter_mut().zip(&books.vms).filter(|(_, vm)| vm.is_some()) {
            claim.envelope = allotments.next().map(|allotment| Envelope {
                sequence: *sequence,
                lease_ms: LEASE_MS,
                lambda_permille: allotment.lambda_permille,
                max_bytes: allotment.max_bytes,
                high_bytes: allotment.high_bytes,
                floor_bytes: allotment.floor_bytes,
                grant_bytes: allotment.grant_bytes,
                take_bytes: allotment.take_bytes,
            });
        }
    }
}

impl Books {
    fn new(pool: Pool, claims: usize) -> Self {
        let tree = Tree::new(pool).expect("a host has memory");
        Self { tree, vms: vec![None; claims] }
    }

    /// Takes in what a guest holds, if there is one; books of one that has gone end with it.
    fn settle(&mut self, index: usize, claim: &Claim, sequence: u64) -> Option<Id> {
        let vm = &mut self.vms[index];
        if claim.size <= 0.0 {
            if let Some(vm) = vm.take() {
                self.tree.retire(vm).expect("it was there");
                // What it held is back at once: nothing may be left of it.
                let _ = self.tree.settle(vm, sequence, 0);
            }
            return None;
        }
        let vm = *vm.get_or_insert_with(|| {
            let limits =
                Limits { min: Some(bytes(claim.min)), max: Some(bytes(claim.size)), ..Limits::default() };
            let group = format!("group{}", claim.group);
            self.tree.adopt_vm(&group, &format!("vm{index}"), limits).expect("its name is its own")
        });
        self.tree.settle(vm, sequence, bytes(claim.held)).expect("it is there");
        Some(vm)
    }
}

fn bytes(pages: f64) -> u64 {
    pages.max(0.0) as u64 * PAGE_BYTES
}
