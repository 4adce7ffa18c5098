use super::*;
use proptest::prelude::*;
use proto::Text;

fn encode(messages: &[ToHost]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        message.encode(&mut bytes);
    }
    bytes
}

fn hello(version: u32) -> ToHost {
    ToHost::Hello {
        version,
        boot_id: [0; 16],
        kernel_release: Text::new("6.1"),
        agent_version: Text::new("0"),
    }
}

fn exited() -> ToHost {
    ToHost::Exited { status: ExitStatus::Code(3), oom_killed: false, stdout_bytes: 1, stderr_bytes: 2 }
}

fn receive(link: &mut Link, messages: &[ToHost]) -> Vec<Event> {
    let mut events = Vec::new();
    link.receive(&encode(messages), &mut events);
    events
}

#[test]
fn a_run_from_hello_to_exit() {
    let mut link = Link::new(b"spec");
    assert_eq!(receive(&mut link, &[hello(proto::VERSION)]), []);
    assert_eq!(link.state(), State::Preparing);
    assert_eq!(receive(&mut link, &[ToHost::Started { pid: 5 }]), [Event::Started]);
    let events = receive(&mut link, &[exited()]);
    assert_eq!(
        events,
        [Event::Exited { status: ExitStatus::Code(3), oom_killed: false, stdout_bytes: 1, stderr_bytes: 2 }]
    );
    assert_eq!((link.state(), link.misuse()), (State::Over, 0));
}

#[test]
fn words_out_of_order_are_counted_and_skipped() {
    let mut link = Link::new(b"");
    assert_eq!(receive(&mut link, &[exited(), ToHost::Started { pid: 1 }]), []);
    assert_eq!((link.state(), link.misuse()), (State::Silent, 2));
    receive(&mut link, &[hello(proto::VERSION), hello(proto::VERSION), exited()]);
    assert_eq!((link.state(), link.misuse()), (State::Preparing, 4));
    receive(&mut link, &[ToHost::Started { pid: 1 }, exited(), exited()]);
    assert_eq!((link.state(), link.misuse()), (State::Over, 5));
}

#[test]
fn another_version_is_refused() {
    let mut link = Link::new(b"");
    let events = receive(&mut link, &[hello(proto::VERSION + 1), ToHost::Started { pid: 1 }]);
    assert!(matches!(events[..], [Event::Broken(_)]));
    assert_eq!(link.state(), State::Silent);
}

#[test]
fn a_flood_of_notices_is_cut() {
    let mut link = Link::new(b"");
    receive(&mut link, &[hello(proto::VERSION)]);
    let flood: Vec<_> = (0..1000).map(|_| ToHost::Notice(Text::new("x"))).collect();
    assert_eq!(receive(&mut link, &flood).len(), MAX_NOTICES as usize);
}

#[test]
fn milestones_come_once_and_in_order() {
    let mut link = Link::new(b"");
    let at = |milestone| ToHost::Milestone { milestone, monotonic_us: 1 };
    let said = [at(Milestone::SpecReceived), at(Milestone::SpecReceived), at(Milestone::InitStarted)];
    receive(&mut link, &[hello(proto::VERSION)]);
    assert_eq!(receive(&mut link, &said), [Event::Milestone(Milestone::SpecReceived.name(), 1)]);
    assert_eq!(link.misuse(), 2);
}

#[test]
fn a_workload_may_run_before_its_agent_says_so() {
    let prepared = || ToHost::Milestone { milestone: Milestone::WorkloadPrepared, monotonic_us: 1 };
    let mut link = Link::new(b"");
    receive(&mut link, &[prepared()]);
    assert_eq!(link.state(), State::Silent);
    receive(&mut link, &[hello(proto::VERSION), prepared()]);
    assert_eq!(link.state(), State::Starting);
    receive(&mut link, &[ToHost::Started { pid: 1 }, prepared()]);
    assert_eq!((link.state(), link.misuse()), (State::Running, 2));
}

#[test]
fn an_agent_may_fail_at_any_time_once() {
    let failed = || ToHost::Failed { kind: FailureKind::Setup, message: Text::new("why") };
    let mut link = Link::new(b"");
    receive(&mut link, &[hello(proto::VERSION)]);
    let mut running = Link::new(b"");
    receive(&mut running, &[hello(proto::VERSION), ToHost::Started { pid: 1 }]);
    assert_eq!(receive(&mut link, &[failed(), failed()]), [Event::Failed(FailureKind::Setup, "why".into())]);
    assert_eq!(receive(&mut running, &[failed()]), [Event::Lost("why".into())]);
}

#[test]
fn samples_are_kept_for_whoever_takes_them_and_not_for_ever() {
    let sample = |sequence| ToHost::Sample(Box::new(Sample { sequence, ..Sample::default() }));
    let mut link = Link::new(b"");
    receive(&mut link, &[hello(proto::VERSION), sample(1)]);
    assert_eq!(link.misuse(), 1, "no workload runs");
    receive(&mut link, &[ToHost::Started { pid: 1 }, ToHost::Capabilities(Capabilities::default())]);
    assert_eq!((link.take_capabilities(), link.take_capabilities()), (Some(Capabilities::default()), None));
    let flood: Vec<_> = (1..=20).map(sample).collect();
    assert_eq!(receive(&mut link, &flood), [Event::Sampled], "told once in a row");
    let kept: Vec<_> = std::iter::from_fn(|| link.take_sample()).map(|(_, sample)| sample.sequence).collect();
    assert_eq!(kept, (13..=20).collect::<Vec<_>>());
}

const ORDER: Order = Order::Trim { zone: None, bytes: None };

fn done(id: u32) -> ToHost {
    ToHost::Done { id, done: Done::Refused(Text::new(&id.to_string())) }
}

fn running() -> Link {
    let mut link = Link::new(b"");
    receive(&mut link, &[hello(proto::VERSION), ToHost::Started { pid: 1 }]);
    link
}

#[test]
fn answers_are_matched_by_number_once() {
    let mut link = running();
    let (first, second) = (link.order(ORDER).unwrap(), link.order(ORDER).unwrap());
    assert_eq!(receive(&mut link, &[done(second), done(second)]), [Event::Answered]);
    assert_eq!((link.answer(first), link.misuse()), (None, 1));
    assert_eq!(link.answer(second), Some(Done::Refused(Text::new(&second.to_string()))));
    assert_eq!(link.answer(second), None);
    // Nobody's, of another kind, and of one that nobody waits for.
    let moved = Done::Moved { there_bytes: 1, elsewhere_bytes: 1 };
    assert_eq!(receive(&mut link, &[done(999), ToHost::Done { id: first, done: moved }]), []);
    assert_eq!(link.misuse(), 3);
    link.forget(first);
    assert_eq!(receive(&mut link, &[done(first)]), []);
    assert_eq!(link.misuse(), 3);
    assert_eq!(receive(&mut link, &[done(first)]), []);
    assert_eq!(link.misuse(), 4);
}

#[test]
fn an_agent_that_does_not_answer_gets_no_more_orders() {
    let mut link = Link::new(b"");
    assert_eq!(link.order(ORDER), Err(OrderError::NotRunning));
    let mut link = running();
    for _ in 0..MAX_ORDERS {
        let id = link.order(ORDER).unwrap();
        link.forget(id);
    }
    assert_eq!(link.order(ORDER), Err(OrderError::Busy));
    receive(&mut link, &[done(1)]);
    assert!(link.order(ORDER).is_ok());
    receive(&mut link, &[exited()]);
    assert_eq!(link.order(ORDER), Err(OrderError::NotRunning));
}

#[test]
fn what_nobody_reads_stays_bounded() {
    let mut link = Link::new(&[7; 100]);
    for _ in 0..1_000_000 {
        link.resize(1, 1);
    }
    assert!(link.outgoing.len() < MAX_OUTGOING + 1024);
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_are_survived(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..16)) {
        let mut link = Link::new(b"");
        let mut events = Vec::new();
        for piece in &pieces {
            link.receive(piece, &mut events);
        }
        prop_assert!(events.len() <= pieces.iter().map(Vec::len).sum());
    }
}
