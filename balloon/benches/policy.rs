//! How fast laws and arbitration decide: samples of one guest, of ten thousand in turn, and a whole tick of a host.

#![allow(missing_docs, reason = "what criterion makes")]
#![expect(clippy::unwrap_used, reason = "a benchmark has no one to tell")]

use balloon::policy::fleet::{Allotment, Cold, Fleet, FleetTuning, Host, Reading};
use balloon::policy::{
    Capabilities, Decision, Generation, HostReading, Law, Observation, Order, Orders, Reclaimed, Sample,
    Settings, Tuning,
};
use balloon::zone::{Limits, Pool, Tree};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1024 * MIB;
const GUESTS: u64 = 10_000;

/// A guest with a stream, refaults and four generations, `second` seconds after its boot.
fn sample(guest: u64, second: u64) -> Sample {
    let generation = |number: u64| Generation {
        age_ms: number * 150_000 + (second * 1000) % 150_000,
        anon_bytes: (20 + guest % 50) * MIB,
        file_bytes: (100 + guest % 100) * MIB,
    };
    Sample {
        sequence: second + 1,
        monotonic_us: (second + 1) * 1_000_000,
        refault_file: second * (guest % 40),
        memory_some_us: second * (guest % 1500),
        cpu_busy_us: second * 300_000,
        total_bytes: 1000 * MIB,
        free_bytes: 100 * MIB,
        available_bytes: 700 * MIB,
        active_file_bytes: 300 * MIB,
        inactive_file_bytes: (200 + second % 60) * MIB,
        active_anon_bytes: 100 * MIB,
        swap_total_bytes: 500 * MIB,
        swap_free_bytes: 500 * MIB,
        ages: [generation(0), generation(1), generation(2), generation(3)],
        ..Sample::default()
    }
}

struct Guest {
    law: Law,
    second: u64,
    number: u64,
    orders: Orders,
}

impl Guest {
    fn new(number: u64) -> Self {
        let mut law = Law::new(0, SIZE, Settings::new(SIZE), Tuning::default());
        let mut orders = Orders::new();
        let can = Capabilities {
            psi: true,
            memory_reclaim: true,
            ages: true,
            swap: true,
            ..Capabilities::default()
        };
        law.observe(0, &Observation::Capabilities(can), &mut orders);
        let host = HostReading {
            resident_bytes: Some(900 * MIB),
            ceiling_bytes: SIZE,
            floor_bytes: 96 * MIB,
            available_permille: 500,
            ..HostReading::default()
        };
        law.observe(0, &Observation::Host(host), &mut orders);
        let mut guest = Self { law, second: 0, number, orders };
        (0..120).for_each(|_| guest.tick());
        guest
    }

    /// A second: its sample, and answers to what it was ordered.
    fn tick(&mut self) {
        self.second += 1;
        let now_ms = self.second * 1000;
        self.orders.clear();
        self.law.observe(now_ms, &Observation::Sample(sample(self.number, self.second)), &mut self.orders);
        let answer = |decision: &Decision| match decision.order {
            Order::Reclaim { number, bytes, .. } => {
                Some(Reclaimed { number, file_pages: bytes / 4096, ..Reclaimed::default() })
            }
            _ => None,
        };
        // An answer may bring about a further order.
        let mut answered = 0;
        loop {
            let next = self.orders.iter().filter_map(answer).nth(answered);
            let Some(answer) = next else { break };
            answered += 1;
            self.law.observe(now_ms, &Observation::Reclaimed(answer), &mut self.orders);
        }
    }
}

/// A host of ten thousand microVMs in a hundred groups, which is short.
fn host() -> (Tree, Vec<Reading>) {
    let mut tree = Tree::new(Pool { capacity_bytes: GUESTS * 300 * MIB, overcommit: true }).unwrap();
    let mut readings = Vec::new();
    for number in 0..GUESTS {
        let limits = Limits { min: Some((number % 7) * 16 * MIB), ..Limits::default() };
        let vm = tree.adopt_vm(&format!("g{}", number % 100), &format!("vm{number}"), limits).unwrap();
        let held = (200 + number % 300) * MIB;
        tree.settle(vm, 1, held).unwrap();
        let cold = [(10_000, held / 2), (150_000, held / 4), (300_000, (number % 5) * held / 40)];
        readings.push(Reading {
            vm,
            ceiling_bytes: SIZE,
            cold: cold.map(|(age_ms, bytes)| Cold { age_ms, bytes }),
            yield_bytes_per_s: 0,
            follows: number % 10 != 0,
            pages_out: true,
        });
    }
    (tree, readings)
}

/// What this thread has had of a processor, so that whatever else the machine does counts little.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which this is.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

fn policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("law");
    group.throughput(Throughput::Elements(1));
    let mut guest = Guest::new(7);
    let trims = (0..600).filter(|_| {
        guest.tick();
        guest.orders.iter().any(|decision| matches!(decision.order, Order::Reclaim { .. }))
    });
    let (trims, status) = (trims.count(), guest.law.status(guest.second * 1000));
    assert!(trims >= 60 && status.implausible_samples == 0, "{trims} orders in ten minutes: {status:?}");
    group.bench_function("a guest's second", |bencher| bencher.iter(|| black_box(&mut guest).tick()));
    group.throughput(Throughput::Elements(GUESTS));
    let mut guests: Vec<Guest> = (0..GUESTS).map(Guest::new).collect();
    group.bench_function("a second of 10,000 guests", |bencher| {
        bencher.iter(|| black_box(&mut guests).iter_mut().for_each(Guest::tick));
    });
    group.finish();

    let mut group = criterion.benchmark_group("fleet");
    group.throughput(Throughput::Elements(GUESTS));
    let (tree, readings) = host();
    let short =
        Host { total_bytes: GUESTS * 320 * MIB, available_bytes: GUESTS * 3 * MIB, ..Host::default() };
    let mut allotments: Vec<Allotment> = Vec::new();
    // As the daemon's, it goes on from tick to tick. What was directed counts for four of them.
    let mut fleet = Fleet::new(FleetTuning::default());
    group.bench_function("a tick of 10,000 guests, directed", |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                (0..5).for_each(|_| {
                    black_box(fleet.tick(&tree, &short, &[], &mut allotments));
                });
                let start = processor_time();
                let verdict = black_box(fleet.tick(&tree, &short, &readings, &mut allotments));
                spent += processor_time() - start;
                assert!(verdict.directed_bytes > 0);
            }
            spent
        });
    });
    let mut fleet = Fleet::new(FleetTuning::default());
    group.bench_function("laws and a tick of 10,000 guests", |bencher| {
        bencher.iter(|| {
            guests.iter_mut().for_each(Guest::tick);
            black_box(fleet.tick(&tree, &short, &readings, &mut allotments))
        });
    });
    group.finish();
}

criterion_group!(benches, policy);
criterion_main!(benches);
