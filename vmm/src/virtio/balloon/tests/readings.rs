//! Readings of how much of guest memory is resident, and when there is need for one.

use super::*;
use balloon::resident::Moves;

thread_local! {
    static MOVES: Cell<Option<Moves>> = const { Cell::new(None) };
}

/// What a test says of the moves of memory.
#[derive(Debug)]
struct Told;

impl CountMoves for Told {
    fn now(&self) -> Option<Moves> {
        MOVES.get()
    }

    fn is_exact(&self) -> bool {
        true
    }
}

#[test]
fn residency_is_read_beside_the_books() {
    let mut subject = Subject::new(OFFERED);
    subject.fill(512);
    subject.drivers[3].offer(0, &[writable(600 << 12, 0x10000)]);
    let _ = subject.serve(3);
    subject.fill(601);
    while !subject.balloon.survey().unwrap() {}
    let report = subject.balloon.report();
    assert!(report.residency.unwrap().resident >= 2 * 4096);
    assert_eq!((report.reported, report.taken_back_total), (15 * 4096, 4096));
}

#[test]
fn a_reading_is_made_anew_when_memory_may_have_moved() {
    let faults = |faults| MOVES.set(Some(Moves { faults, resident_pages: 1 }));
    faults(1);
    let mut subject = Subject::new(OFFERED);
    subject.balloon.moves = Box::new(Told);
    let resident = |subject: &Subject| subject.balloon.report().residency.unwrap().resident;
    let age_ms = |subject: &Subject| subject.balloon.report().residency_age_ms.unwrap();
    while !subject.balloon.survey_by_timer().unwrap() {}
    let before = resident(&subject);

    // Nothing is seen to move: the last reading is as good as new, for clients and for the timer, whatever there is.
    subject.fill(512);
    NOW_MS.set(2000);
    assert!(subject.balloon.survey_for_client().is_none());
    assert_eq!((resident(&subject), age_ms(&subject)), (before, 0));
    NOW_MS.set(10_000);
    assert!(subject.balloon.survey_by_timer().unwrap());
    assert_eq!((resident(&subject), age_ms(&subject)), (before, 0));

    // Something moves.
    faults(2);
    NOW_MS.set(12_000);
    assert!(subject.balloon.survey_for_client().unwrap().unwrap());
    assert_eq!(resident(&subject), before + 4096);
    // The driver does something, whatever the sums of it are.
    NOW_MS.set(14_000);
    assert!(subject.balloon.survey_for_client().is_none());
    subject.drivers[3].offer(0, &[writable(600 << 12, 0x1000)]);
    let _ = subject.serve(3);
    assert!(subject.balloon.survey_for_client().is_none(), "it was read just now");
    NOW_MS.set(16_000);
    assert!(subject.balloon.survey_for_client().is_some());
    // Nobody knows.
    MOVES.set(None);
    NOW_MS.set(18_000);
    assert!(subject.balloon.survey_for_client().is_some());
    // A while has passed.
    faults(3);
    NOW_MS.set(20_000);
    assert!(subject.balloon.survey_for_client().is_some());
    let before = resident(&subject);
    NOW_MS.set(79_999);
    assert!(subject.balloon.survey_for_client().is_none());
    subject.fill(513);
    NOW_MS.set(81_000);
    assert!(subject.balloon.survey_by_timer().unwrap());
    assert_eq!(resident(&subject), before + 4096);
}

/// A guest so large that nobody reads it for one client is read without any.
#[test]
fn the_first_reading_begins_with_the_machine() {
    const LARGE: usize = 2 << 30;
    let memory: Memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), LARGE)]).unwrap());
    let balloon = Balloon::with_kernel(Host::probe(), &memory, BLOCK, monotonic_ms).unwrap();
    let transport = Arc::new(Transport::new(balloon, memory).unwrap());
    let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let mut events = EventManager::<BalloonEvents>::new().unwrap();
    events.add_subscriber(BalloonEvents::new(Arc::clone(&transport), event).unwrap());
    for _ in 0..LARGE as u64 / 4096 / SURVEY_PAGES {
        assert_eq!(transport.memory_report().residency, None);
        assert_eq!(events.run_with_timeout(5000).unwrap(), 1, "nothing is read");
    }
    assert!(transport.memory_report().residency.is_some());
}

#[test]
fn books_are_recounted_after_each_reading() {
    let mut subject = Subject::new(OFFERED);
    let imbalance = |_: &Books| Err(Imbalance::Both);
    while !subject.balloon.survey().unwrap() {}
    assert_eq!(subject.balloon.audit.imbalances(), 0);
    subject.balloon.audit = Audit::finding(imbalance);
    for readings in 1..4 {
        while !subject.balloon.survey().unwrap() {}
        assert_eq!(subject.balloon.audit.imbalances(), readings);
    }
    let memory = subject.memory().clone();
    let transport = Transport::new(subject.balloon, memory).unwrap();
    assert_eq!(transport.look().book_imbalances, 3);
}
