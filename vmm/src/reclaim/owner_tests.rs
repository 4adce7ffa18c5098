//! The owner between an agent and a memory that do as the test says.

use super::host::Pressure;
use super::owner::{Owner, Sides};
use super::wanted::Wanted;
use crate::control::agent::{Agent, News};
use crate::control::memory::Memory;
use crate::control::scripted::{MIB, Scripted, envelope};
use crate::link::OrderError;
use balloon::control::api::{CeilingState, GuestStatistics};
use balloon::control::link::{Envelope, GroupPolicy, Inherited, OwnPolicy};
use balloon::control::reclaim::{Origin, ReclaimRequest};
use balloon::control::service::Stream;
use balloon::device::Values;
use balloon::policy::Mode;
use balloon::policy::trace::Replay;
use balloon::zone::Limits;
use proto::{Capabilities, Cause, Done, Order, Piece, Sample, Sizes};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;

#[derive(Default)]
struct Guest {
    news: VecDeque<News>,
    given: Vec<Order>,
    answers: Vec<(u32, Done)>,
    paces: Vec<u32>,
    absent: bool,
}

impl Agent for Guest {
    fn order(&mut self, order: Order) -> Result<u32, OrderError> {
        if self.absent {
            return Err(OrderError::NotRunning);
        }
        self.given.push(order);
        Ok(self.given.len() as u32)
    }

    fn answer(&mut self, id: u32) -> Option<Done> {
        let at = self.answers.iter().position(|(of, _)| *of == id)?;
        Some(self.answers.remove(at).1)
    }

    fn forget(&mut self, _: u32) {}

    fn signal(&mut self, _: u8) -> Result<(), OrderError> {
        Err(OrderError::NotRunning)
    }

    fn begin(&mut self, _: Piece) -> Result<Box<dyn Stream>, OrderError> {
        Err(OrderError::NotRunning)
    }

    fn pace(&mut self, sample_ms: u32) {
        self.paces.push(sample_ms);
    }

    fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }
}

struct Bench {
    owner: Owner,
    guest: Guest,
    memory: Scripted,
    lease: Option<Envelope>,
    max_bytes: u64,
    sequence: u64,
    now_ms: u64,
}

impl Bench {
    fn new(mode: Mode) -> Self {
        Self::with(mode, OwnPolicy::default(), None)
    }

    fn with(mode: Mode, own: OwnPolicy, output: Option<Box<dyn Write>>) -> Self {
        Self {
            owner: Owner::new(0, 512 * MIB, Wanted::new(mode, own), &Limits::default(), output),
            guest: Guest::default(),
            memory: Scripted::new(),
            lease: Some(Envelope { policy: None, ..envelope() }),
            max_bytes: 512 * MIB,
            sequence: 0,
            now_ms: 0,
        }
    }

    fn advance(&mut self) {
        let Self { owner, guest, memory, lease, max_bytes, now_ms, .. } = self;
        let mut sides = Sides {
            agent: guest,
            memory,
            host: Pressure::UNKNOWN,
            max_bytes: *max_bytes,
            high_bytes: None,
            envelope: lease.as_ref(),
        };
        owner.advance(*now_ms, &mut sides);
    }

    /// Changes what is leased.
    fn lease(&mut self, change: impl FnOnce(&mut Envelope)) {
        change(self.lease.as_mut().unwrap());
    }

    /// The daemon says so with its next envelope.
    fn inherits(&mut self, working_set_age_ms: Option<u64>, stall_budget_ppm: Option<u64>) {
        let said = |value| Inherited { group: "ci".into(), value };
        let policy = GroupPolicy {
            working_set_age_ms: working_set_age_ms.map(said),
            stall_budget_ppm: stall_budget_ppm.map(said),
        };
        self.lease = Some(Envelope { policy: Some(policy), ..envelope() });
        self.sampled(Cause::Periodic);
    }

    /// The working-set age and the stall budget that are shown, and where they come from.
    fn in_force(&self) -> [(u64, Origin); 2] {
        let document = self.owner.document(self.now_ms);
        [
            (document.working_set_age_ms, document.working_set_age_from),
            (document.stall_budget_ppm, document.stall_budget_from),
        ]
    }

    fn can(&mut self) {
        let all = Capabilities {
            psi: true,
            memory_reclaim: true,
            reclaim_swappiness: true,
            ..Capabilities::default()
        };
        self.guest.news.push_back(News::Capabilities(all));
    }

    /// A guest that is full of page cache, a second later.
    fn sampled(&mut self, cause: Cause) {
        self.now_ms += 1000;
        self.sequence += 1;
        let sizes = Sizes {
            total: 500 * MIB,
            free: 50 * MIB,
            available: 440 * MIB,
            inactive_file: 400 * MIB,
            ..Sizes::default()
        };
        let mut sample = Sample {
            sequence: self.sequence,
            monotonic_us: self.now_ms * 1000,
            cause,
            sizes,
            ..Sample::default()
        };
        sample.counters.cpu_busy_us = self.now_ms * 500;
        self.guest.news.push_back(News::Sample([1; 16], Box::new(sample)));
        self.advance();
    }

    fn reclaims(&self) -> usize {
        self.guest.given.iter().filter(|order| matches!(order, Order::Reclaim { .. })).count()
    }
}

#[test]
fn a_guest_full_of_cold_cache_is_trimmed_and_one_that_must_not_be_is_not() {
    let trims = |mode| {
        let mut bench = Bench::new(mode);
        bench.can();
        (0..120).for_each(|_| bench.sampled(Cause::Periodic));
        bench.reclaims()
    };
    assert!(trims(Mode::Auto) > 0);
    assert_eq!(trims(Mode::Off), 0);
}

#[test]
fn the_balloon_alone_goes_by_its_driver_whatever_the_agent_tells() {
    let ceiling = |mode| {
        let mut bench = Bench::new(mode);
        bench.can();
        let values = Values {
            free_bytes: Some(50 * MIB),
            available_bytes: Some(440 * MIB),
            disk_caches_bytes: Some(400 * MIB),
            major_faults: Some(0),
            ..Values::default()
        };
        bench.memory.statistics = Some(GuestStatistics { age_ms: 0, stale: false, values });
        (0..300).for_each(|_| bench.sampled(Cause::Periodic));
        assert_eq!(bench.reclaims() > 0, mode == Mode::Auto);
        bench.memory.document.ceiling.bytes
    };
    assert!(ceiling(Mode::Balloon) < 400 * MIB);
    assert_eq!(ceiling(Mode::Auto), 512 * MIB);
}

#[test]
fn what_was_decided_can_be_told_with_its_numbers() {
    let mut bench = Bench::new(Mode::Auto);
    bench.can();
    (0..90).for_each(|_| bench.sampled(Cause::Periodic));
    let document = bench.owner.document(bench.now_ms);
    assert_eq!((document.samples_total, document.sample_age_ms), (90, Some(0)));
    let told = bench.owner.decisions(bench.now_ms);
    let reclaim = told.decisions.iter().find(|decision| decision.order.starts_with("evict ")).unwrap();
    assert!(!reclaim.reason.is_empty() && reclaim.decision["reason"].is_object(), "{reclaim:?}");
    (0..2000).for_each(|_| bench.sampled(Cause::OutOfMemory));
    assert!(bench.owner.decisions(bench.now_ms).decisions.len() <= 128);
}

#[test]
fn a_ceiling_by_hand_is_nobody_elses() {
    let mut bench = Bench::new(Mode::Auto);
    bench.can();
    bench.memory.document.ceiling = CeilingState { bytes: 300 * MIB, auto: false };
    (0..120).for_each(|_| bench.sampled(Cause::Periodic));
    assert_eq!(bench.reclaims(), 0);
    assert_eq!(bench.memory.document.ceiling.bytes, 300 * MIB);
}

#[test]
fn a_ceiling_by_hand_stays_within_the_lease() {
    for mode in [Mode::Auto, Mode::Off] {
        let mut bench = Bench::new(mode);
        bench.can();
        let by_hand = |mib| CeilingState { bytes: mib * MIB, auto: false };
        let undone = CeilingState { bytes: 512 * MIB, auto: true };
        for (min_mib, max_mib, set, kept_mib) in [
            (0, 200, undone, 200),
            (0, 200, by_hand(300), 200),
            (0, 200, by_hand(150), 150),
            (160, 200, by_hand(150), 160),
            (0, 1024, by_hand(300), 300),
            (0, 200, by_hand(300), 200),
            (0, 200, undone, 200),
        ] {
            bench.lease(|lease| (lease.floor_bytes, lease.max_bytes) = (min_mib * MIB, max_mib * MIB));
            bench.memory.document.ceiling = set;
            bench.sampled(Cause::Periodic);
            let kept = bench.memory.document.ceiling.bytes;
            assert_eq!(kept, kept_mib * MIB, "{mode:?}: {set:?} of {min_mib} to {max_mib}");
        }
    }
}

#[test]
fn the_ceiling_follows_a_new_max_at_once() {
    for mode in [Mode::Auto, Mode::Off] {
        let mut bench = Bench::new(mode);
        bench.lease(|lease| (lease.floor_bytes, lease.max_bytes) = (0, 1024 * MIB));
        bench.advance();
        for mib in [256, 400, 300, 512] {
            bench.max_bytes = mib * MIB;
            bench.memory.set_max(mib * MIB).unwrap();
            bench.advance();
            assert_eq!(bench.memory.document.ceiling.bytes, mib * MIB, "{mode:?}");
        }
    }
}

#[test]
fn an_agent_that_is_gone_ends_no_law() {
    let mut bench = Bench::new(Mode::Auto);
    bench.can();
    (0..90).for_each(|_| bench.sampled(Cause::Periodic));
    bench.guest.absent = true;
    (0..600).for_each(|_| {
        bench.now_ms += 1000;
        bench.advance();
    });
    let reclaims = bench.reclaims();
    bench.owner.set(ReclaimRequest { working_set_age_ms: Some(Some(60_000)), stall_budget_ppm: None });
    bench.advance();
    assert_eq!(bench.owner.document(bench.now_ms).working_set_age_ms, 60_000);
    assert_eq!(bench.reclaims(), reclaims);
}

#[test]
fn what_a_group_says_holds_until_it_says_otherwise() {
    let mut bench =
        Bench::with(Mode::Auto, OwnPolicy { stall_budget_ppm: Some(20), ..OwnPolicy::default() }, None);
    let (ci, own, default) = (Origin::Group("ci".into()), Origin::Own, Origin::Default);
    assert_eq!(bench.in_force(), [(300_000, default.clone()), (20, own.clone())]);
    bench.inherits(Some(60_000), Some(3000));
    assert_eq!(bench.in_force(), [(60_000, ci.clone()), (20, own.clone())]);
    bench.owner.set(ReclaimRequest { working_set_age_ms: Some(Some(7000)), stall_budget_ppm: Some(None) });
    assert_eq!(bench.in_force(), [(7000, own), (3000, ci.clone())]);
    bench.owner.set(ReclaimRequest { working_set_age_ms: Some(None), stall_budget_ppm: None });
    assert_eq!(bench.in_force(), [(60_000, ci.clone()), (3000, ci.clone())]);
    // Its daemon is away, and then another one says nothing of it.
    bench.lease = None;
    (0..30).for_each(|_| bench.sampled(Cause::Periodic));
    bench.lease = Some(Envelope { policy: None, ..envelope() });
    bench.sampled(Cause::Periodic);
    assert_eq!(bench.in_force(), [(60_000, ci.clone()), (3000, ci)]);
    bench.inherits(None, None);
    assert_eq!(bench.in_force(), [(300_000, default.clone()), (1000, default)]);
}

/// Where a recording goes.
#[derive(Clone, Default)]
struct Written(Rc<RefCell<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_inherited_is_recorded_as_settings_and_replays() {
    let written = Written::default();
    let mut bench = Bench::with(Mode::Auto, OwnPolicy::default(), Some(Box::new(written.clone())));
    bench.can();
    (0..90).for_each(|_| bench.sampled(Cause::Periodic));
    bench.inherits(Some(60_000), Some(3000));
    bench.inherits(Some(120_000), None);
    bench.lease = None;
    (0..90).for_each(|_| bench.sampled(Cause::Periodic));
    bench.inherits(None, None);
    let text = String::from_utf8(written.0.borrow().clone()).unwrap();
    let mut replay = Replay::new();
    text.lines().for_each(|line| replay.line(line.as_bytes()).unwrap());
    let told: Vec<_> = text.lines().filter(|line| line.contains(r#""saw":{"settings""#)).collect();
    let ages = [(60_000, 3000), (120_000, 1000), (300_000, 1000)];
    assert_eq!(told.len(), ages.len(), "{told:#?}");
    for (line, (age_ms, budget_ppm)) in told.iter().zip(ages) {
        let words = format!(r#""working_set_age_ms":{age_ms},"stall_budget_ppm":{budget_ppm},"max_bytes""#);
        assert!(line.contains(&words), "{line}");
    }
}
