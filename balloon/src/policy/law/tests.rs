//! The law against small guests, one promise each.

#![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

use super::*;
use crate::policy::{Cause, Decision, Reclaimed, Sample};

const MIB: u64 = 1 << 20;
pub(super) const SIZE: u64 = 1024 * MIB;

/// A guest that says what it is told to say, once a second.
pub(super) struct Guest {
    pub(super) law: Law,
    pub(super) sample: Sample,
    pub(super) now_ms: u64,
    pub(super) second_ms: u64,
    floor_bytes: u64,
    min_bytes: u64,
    /// What it computes in a second.
    busy_us: u64,
    /// Whether what it evicts is too scattered to be reported, and whether compaction helps.
    scatters: Option<bool>,
    /// What the host holds of that.
    scattered_bytes: u64,
}

impl Guest {
    pub(super) fn new() -> Self {
        let mut law = Law::new(0, SIZE, Settings::new(SIZE), Tuning::default());
        let capabilities = Capabilities { psi: true, memory_reclaim: true, ..Capabilities::default() };
        law.observe(0, &Observation::Capabilities(capabilities), &mut Orders::new());
        let sample = Sample {
            total_bytes: 1000 * MIB,
            free_bytes: 100 * MIB,
            available_bytes: 500 * MIB,
            inactive_file_bytes: 200 * MIB,
            ..Sample::default()
        };
        Self {
            law,
            sample,
            now_ms: 0,
            second_ms: 1000,
            floor_bytes: 96 * MIB,
            min_bytes: 0,
            busy_us: 200_000,
            scatters: None,
            scattered_bytes: 0,
        }
    }

    pub(super) fn tell(&mut self, observation: &Observation) -> Vec<Decision> {
        let mut orders = Orders::new();
        self.law.observe(self.now_ms, observation, &mut orders);
        orders.iter().copied().collect()
    }

    /// A second goes by. Orders to reclaim are carried out.
    fn second(&mut self) -> Vec<Decision> {
        self.now_ms += self.second_ms;
        self.sample.monotonic_us += 1_000_000;
        self.sample.sequence += 1;
        self.sample.cpu_busy_us += self.busy_us;
        let ceiling_bytes = self.law.ceiling.bytes();
        let host = HostReading {
            resident_bytes: Some(ceiling_bytes - self.sample.free_bytes + self.scattered_bytes),
            ceiling_bytes,
            floor_bytes: self.floor_bytes,
            min_bytes: self.min_bytes,
            available_permille: 500,
            balloon: true,
            ..HostReading::default()
        };
        let mut decisions = self.tell(&Observation::Host(host));
        let sample = Observation::Sample(self.sample);
        decisions.extend(self.tell(&sample));
        self.sample.cause = Cause::Periodic;
        for decision in &decisions {
            if let Order::Reclaim { number, bytes, .. } = decision.order {
                self.sample.inactive_file_bytes -= bytes;
                self.sample.free_bytes += bytes;
                self.scattered_bytes += self.scatters.map_or(0, |_| bytes);
                let file_pages = bytes / PAGE_BYTES;
                let reclaimed = Reclaimed { number, file_pages, ..Reclaimed::default() };
                self.tell(&Observation::Reclaimed(reclaimed));
            }
            let fine = Order::Reporting { order: Tuning::default().fine_order, compact: true };
            if decision.order == fine && self.scatters == Some(true) {
                self.scattered_bytes = 0;
            }
        }
        decisions
    }

    pub(super) fn seconds(&mut self, count: u64) -> Vec<Decision> {
        (0..count).flat_map(|_| self.second()).collect()
    }
}

pub(super) fn reclaimed_bytes(decisions: &[Decision]) -> u64 {
    let bytes = |decision: &Decision| match decision.order {
        Order::Reclaim { bytes, .. } => bytes,
        _ => 0,
    };
    decisions.iter().map(bytes).sum()
}

#[test]
fn a_calm_guest_is_left_alone_at_first_and_trimmed_then() {
    let mut guest = Guest::new();
    assert_eq!(reclaimed_bytes(&guest.seconds(60)), 0);
    let trimmed = reclaimed_bytes(&guest.seconds(600));
    assert!(trimmed > 40 * MIB && trimmed < 100 * MIB, "{trimmed}");
}

#[test]
fn steps_double_while_what_comes_back_tells_that_they_do_little_harm() {
    let trimmed = |refaults_per_s: u64| {
        let mut guest = Guest::new();
        guest.seconds(150);
        let second = |_| {
            guest.sample.refault_file += refaults_per_s;
            reclaimed_bytes(&guest.second())
        };
        (0..60).map(second).sum::<u64>()
    };
    let (unanswered, harmless, harmful) = (trimmed(0), trimmed(2), trimmed(30));
    assert!(harmless > unanswered * 3 / 2, "{harmless} {unanswered}");
    assert!(harmful < unanswered / 2, "{harmful} {unanswered}");
}

#[test]
fn pressure_lifts_the_ceiling_in_one_step_and_holds() {
    let mut guest = Guest::new();
    guest.seconds(120);
    let settings = Settings { high_bytes: Some(400 * MIB), ..Settings::new(SIZE) };
    guest.tell(&Observation::Settings(settings));
    guest.seconds(120);
    assert_eq!(guest.law.ceiling.bytes(), 400 * MIB);
    guest.sample.cause = Cause::Pressure;
    guest.sample.steal_kswapd += 1;
    let decisions = guest.second();
    let lifted = Order::Ceiling { bytes: 528 * MIB };
    assert!(decisions.iter().any(|decision| decision.order == lifted), "{decisions:?}");
    assert_eq!(reclaimed_bytes(&guest.seconds(9)), 0);
    guest.sample.cause = Cause::Pressure;
    let decisions = guest.second();
    assert!(
        decisions.iter().any(|decision| decision.order == Order::Ceiling { bytes: SIZE }),
        "again: all the way"
    );
}

#[test]
fn a_silent_guest_is_not_trimmed_and_its_ceiling_climbs() {
    let mut guest = Guest::new();
    guest.tell(&Observation::Settings(Settings { high_bytes: Some(400 * MIB), ..Settings::new(SIZE) }));
    guest.seconds(200);
    assert_eq!(guest.law.ceiling.bytes(), 400 * MIB);
    for _ in 0..60 {
        guest.now_ms += 1000;
        assert_eq!(reclaimed_bytes(&guest.tell(&Observation::Tick)), 0);
    }
    assert_eq!(guest.law.status(guest.now_ms).state, State::Safe);
    let climbed = guest.law.ceiling.bytes();
    assert!(climbed > 500 * MIB && climbed < 650 * MIB, "{climbed}");
}

#[test]
fn a_stream_is_recycled_once_a_sample() {
    let mut guest = Guest::new();
    guest.seconds(120);
    guest.sample.inactive_file_bytes += 100 * MIB;
    guest.sample.free_bytes -= 100 * MIB;
    let taken = reclaimed_bytes(&guest.second());
    assert!(taken > 85 * MIB && taken < 95 * MIB, "{taken}");
    assert!(reclaimed_bytes(&guest.seconds(5)) < MIB, "no more than a step");
}

#[test]
fn forgotten_evictions_blind_only_while_tasks_wait_for_the_disk() {
    let mut guest = Guest::new();
    guest.seconds(120);
    guest.sample.nodereclaim += 10;
    assert!(reclaimed_bytes(&guest.seconds(20)) > 0, "nobody reads");
    assert_eq!(guest.law.status(guest.now_ms).state, State::Trimming);
    // A tenth of a second in thirty is more than the budget of a thousandth.
    guest.sample.io_some_us += 100_000;
    guest.second();
    guest.sample.nodereclaim += 10;
    assert_eq!(reclaimed_bytes(&guest.seconds(29)), 0);
    assert_eq!(guest.law.status(guest.now_ms).state, State::Blind);
    assert!(reclaimed_bytes(&guest.seconds(20)) > 0, "the window is over");
}

/// As [`Guest::new`], and what is evicted lies scattered.
fn scattering(helps: bool, busy_us: u64, working_set_age_ms: u64) -> Guest {
    let mut guest = Guest { scatters: Some(helps), busy_us, ..Guest::new() };
    guest.tell(&Observation::Settings(Settings { working_set_age_ms, ..Settings::new(SIZE) }));
    let capabilities = Capabilities {
        psi: true,
        memory_reclaim: true,
        reporting_order: true,
        compaction: true,
        ..Capabilities::default()
    };
    guest.tell(&Observation::Capabilities(capabilities));
    guest
}

#[test]
fn what_lies_scattered_is_compacted_before_trimming_is_called_vain() {
    for (busy_us, age_s) in [(5_000, 300), (200_000, 300), (5_000, 30), (200_000, 30), (200_000, 1800)] {
        // Steps are rarer for longer ages.
        let times = u64::max(age_s, 300).div_euclid(300);
        let mut guest = scattering(true, busy_us, age_s * 1000);
        let decisions = guest.seconds(900 * times);
        assert!(guest.scattered_bytes < 40 * MIB, "{busy_us} {age_s}: {}", guest.scattered_bytes);
        let rests = |decision: &Decision| decision.order == Order::Enter { state: State::NoGain };
        assert!(!decisions.iter().any(rests), "{busy_us} {age_s}: {decisions:?}");
        assert!(reclaimed_bytes(&decisions) > 60 * MIB, "{busy_us} {age_s}: {decisions:?}");

        let mut guest = scattering(false, busy_us, age_s * 1000);
        let decisions = guest.seconds(600 * times);
        let at = |order: &dyn Fn(&Order) -> bool| decisions.iter().position(|it| order(&it.order));
        let fine = at(&|order| matches!(order, Order::Reporting { compact: true, .. }));
        let rest = at(&|order| *order == Order::Enter { state: State::NoGain });
        assert!(fine.is_some() && fine < rest, "{busy_us} {age_s}: {fine:?} {rest:?} {decisions:?}");
        assert!(reclaimed_bytes(&decisions) < 80 * MIB, "{busy_us} {age_s}: {decisions:?}");
    }
}

fn reporting(decisions: Vec<Decision>) -> Vec<(u8, bool)> {
    let order = |decision: &Decision| match decision.order {
        Order::Reporting { order, compact } => Some((order, compact)),
        _ => None,
    };
    decisions.iter().filter_map(order).collect()
}

#[test]
fn what_booting_left_free_is_reported_in_small_blocks_for_some_seconds() {
    let mut guest = Guest::new();
    assert_eq!(reporting(guest.seconds(3)), [], "it cannot");
    let capabilities = Capabilities { psi: true, reporting_order: true, ..Capabilities::default() };
    assert_eq!(reporting(guest.tell(&Observation::Capabilities(capabilities))), [(4, false)]);
    assert_eq!(reporting(guest.seconds(9)), []);
    assert_eq!(reporting(guest.seconds(20)), [(9, false)], "and coarsely from then on");
}

#[test]
fn trimming_leaves_what_booting_took_and_what_is_promised_not_what_kernels_keep_free() {
    for (min_mib, left_mib) in [(0, 96 - 8), (120, 120)] {
        let mut guest = Guest::new();
        (guest.floor_bytes, guest.min_bytes, guest.busy_us) = (160 * MIB, min_mib * MIB, 0);
        (guest.sample.free_bytes, guest.sample.inactive_file_bytes) = (950 * MIB, 0);
        guest.seconds(2);
        (guest.sample.free_bytes, guest.sample.inactive_file_bytes) = (550 * MIB, 400 * MIB);
        guest.seconds(1200);
        let left = SIZE - guest.sample.free_bytes;
        assert!(left >= left_mib * MIB && left < (left_mib + 1) * MIB, "{left}");
    }
}

fn envelope(sequence: u64, take_bytes: u64) -> Observation {
    Observation::Envelope(Envelope {
        sequence,
        lease_ms: 10_000,
        lambda_permille: CALM,
        max_bytes: SIZE,
        high_bytes: None,
        floor_bytes: 0,
        grant_bytes: 0,
        take_bytes,
    })
}

#[test]
fn what_is_directed_is_reported_as_it_is_freed() {
    let mut guest = Guest::new();
    let capabilities = Capabilities { psi: true, reporting_order: true, ..Capabilities::default() };
    let _ = guest.tell(&Observation::Capabilities(capabilities));
    let _ = guest.seconds(2);
    assert_eq!(
        reporting(guest.tell(&envelope(1, 90 * MIB))),
        [(0, false)],
        "at once, finer than at the start"
    );
    assert_eq!(reporting(guest.seconds(8)), []);
    assert_eq!(reporting(guest.tell(&envelope(2, 90 * MIB))), [], "it is");
    assert_eq!(reporting(guest.seconds(8)), []);
    assert_eq!(reporting(guest.seconds(4)), [(9, false)]);
}

/// One that has carried out an order to give 90 MiB back, of which the host has got nothing, and what follows of it.
fn scattered(settings: Settings) -> (Guest, Vec<Decision>) {
    let mut guest = Guest::new();
    guest.scatters = Some(false);
    let _ = guest.tell(&Observation::Settings(settings));
    guest.seconds(2);
    assert_eq!(reclaimed_bytes(&guest.tell(&envelope(1, 90 * MIB))), 90 * MIB);
    let file_pages = 90 * MIB / PAGE_BYTES;
    let _ = guest.tell(&Observation::Reclaimed(Reclaimed { number: 1, file_pages, ..Reclaimed::default() }));
    guest.sample.inactive_file_bytes -= 90 * MIB;
    guest.sample.free_bytes += 90 * MIB;
    guest.scattered_bytes += 90 * MIB;
    let decisions = guest.second();
    (guest, decisions)
}

fn ceilings(decisions: &[Decision]) -> Vec<u64> {
    let bytes = |decision: &Decision| match decision.order {
        Order::Ceiling { bytes } => Some(bytes),
        _ => None,
    };
    decisions.iter().filter_map(bytes).collect()
}

#[test]
fn what_is_directed_and_not_reported_the_balloon_fetches_and_gives_back() {
    // Of 1024 MiB 190 are free, and 6 % of all are left so.
    let left = SIZE - 190 * MIB + SIZE * 60 / 1000;
    let (mut guest, decisions) = scattered(Settings::new(SIZE));
    assert_eq!(ceilings(&decisions), [left]);
    let reading = HostReading { ceiling_bytes: left, ..guest.law.host };
    assert_eq!(ceilings(&guest.tell(&Observation::Host(reading))), [SIZE], "as soon as it is there");
    assert_eq!(ceilings(&guest.seconds(10)), [0; 0], "once for what is freed once");
    // A driver that does not get so far is not waited for.
    let (mut guest, _) = scattered(Settings::new(SIZE));
    assert_eq!((ceilings(&guest.seconds(3)), ceilings(&guest.second())), (vec![], vec![SIZE]));
    // Whoever suffers meanwhile keeps what it has, and is not held for it if it only waited.
    for (cause, is_held) in [(Cause::OutOfMemory, true), (Cause::Stall, false)] {
        let (mut guest, _) = scattered(Settings::new(SIZE));
        guest.sample.cause = cause;
        assert_eq!(ceilings(&guest.second()), [SIZE], "{cause:?}");
        assert_eq!(guest.law.hold.is_remembered(guest.now_ms, 1), is_held, "{cause:?}");
    }
    // A user's word and a silent agent end it, too.
    let (mut guest, _) = scattered(Settings::new(SIZE));
    let by_hand = Settings { ceiling_bytes: Some(SIZE / 2), ..Settings::new(SIZE) };
    assert_eq!(ceilings(&guest.tell(&Observation::Settings(by_hand))), [SIZE / 2]);
    let trim = Settings { mode: Mode::Trim, ..Settings::new(SIZE) };
    assert_eq!(ceilings(&scattered(trim).1), [0; 0]);
}

#[test]
fn what_a_guest_took_since_its_last_sample_is_not_fetched() {
    let mut guest = Guest::new();
    guest.seconds(2);
    let _ = guest.tell(&envelope(1, 90 * MIB));
    let _ = guest.tell(&Observation::Reclaimed(Reclaimed { number: 1, ..Reclaimed::default() }));
    // Of the 100 MiB that were free it uses all, which the host tells first.
    let reading = HostReading { resident_bytes: Some(SIZE), ..guest.law.host };
    assert_eq!(ceilings(&guest.tell(&Observation::Host(reading))), [0; 0]);
    guest.sample.free_bytes = 0;
    assert_eq!(ceilings(&guest.second()), [0; 0]);
}

#[test]
fn one_that_is_idle_tells_at_once_what_it_was_made_to_free() {
    let pace = |decisions: &[Decision]| {
        let ms = |decision: &Decision| match decision.order {
            Order::Pace { sample_ms } => Some(sample_ms),
            _ => None,
        };
        decisions.iter().filter_map(ms).collect::<Vec<_>>()
    };
    let mut guest = Guest::new();
    guest.busy_us = 0;
    assert_eq!(pace(&guest.seconds(60)), [10_000]);
    assert_eq!(pace(&guest.tell(&envelope(1, 90 * MIB))), [1000]);
    assert_eq!(pace(&guest.seconds(10)), [10_000]);
}

#[test]
fn what_is_compressed_instead_of_given_back_is_ordered_again() {
    let mut guest = Guest::new();
    guest.seconds(2);
    let ordered = guest.tell(&envelope(1, 90 * MIB));
    assert_eq!(reclaimed_bytes(&ordered), 90 * MIB);
    let answer = |number, file_mib: u64, anon_mib: u64| {
        let pages = |mib: u64| mib * MIB / PAGE_BYTES;
        let (file_pages, anon_pages) = (pages(file_mib), pages(anon_mib));
        Observation::Reclaimed(Reclaimed { number, file_pages, anon_pages, ..Reclaimed::default() })
    };
    let again = reclaimed_bytes(&guest.tell(&answer(1, 60, 30)));
    assert!(again.abs_diff(10 * MIB) < MIB / 8, "{again}");
    assert_eq!(reclaimed_bytes(&guest.tell(&answer(2, 10, 0))), 0);
}

#[test]
fn what_is_promised_stays_while_an_order_is_on_its_way() {
    let mut guest = Guest::new();
    guest.min_bytes = 700 * MIB;
    guest.seconds(2);
    // Of 1024 MiB 100 are free.
    assert_eq!(reclaimed_bytes(&guest.tell(&envelope(1, 300 * MIB))), 224 * MIB);
    assert_eq!(reclaimed_bytes(&guest.tell(&envelope(2, 300 * MIB))), 0);
}
