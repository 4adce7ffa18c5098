//! The daemon's link to a microVM, over a real socket.

use super::arbiter::{Arbiter, Link};
use super::memory::Memory;
use super::scripted::Scripted;
use super::server_tests::{GET, Served, hello, read_response};
use balloon::control::link::{self, Decoder, End, Envelope, FromVm, ToVm};
use balloon::control::server::CLIENTS;
use balloon::control::service::Stream;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const LINK: &[u8] =
    b"GET /v1/link HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: ballast-link/1\r\n\r\n";

/// The daemon's end of a link.
struct Linked {
    stream: UnixStream,
    decoder: Decoder<FromVm>,
}

impl Linked {
    /// A link, whose first envelope comes with the request.
    fn open(served: &Served, sequence: u64) -> Self {
        let mut stream = served.connect();
        let mut request = LINK.to_vec();
        link::encode(&envelope(sequence), &mut request);
        stream.write_all(&request).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1);
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self { stream, decoder: Decoder::default() }
    }

    fn hears(&mut self) -> FromVm {
        loop {
            if let Some(document) = self.decoder.take().unwrap() {
                return document;
            }
            let mut buffer = [0; 100];
            let bytes = self.stream.read(&mut buffer).unwrap();
            assert!(bytes > 0, "the link has ended");
            self.decoder.receive(&buffer[..bytes]);
        }
    }

    fn says(&mut self, sequence: u64) {
        let mut bytes = Vec::new();
        link::encode(&envelope(sequence), &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.stream.read(&mut [0; 100]).unwrap() == 0
    }
}

fn envelope(sequence: u64) -> ToVm {
    ToVm::Envelope(Envelope { sequence, ..super::scripted::envelope() })
}

#[test]
fn a_link_answers_each_envelope_with_a_report() {
    let memory = Scripted::new();
    let paged_out = Arc::clone(&memory.paged_out_bytes);
    let served = Served::start(memory);
    let mut linked = Linked::open(&served, 1);
    assert_eq!(linked.hears(), FromVm::Hello(hello()));
    for sequence in 1..100 {
        let FromVm::Report(report) = linked.hears() else { panic!() };
        assert_eq!((report.sequence, report.zones.len()), (sequence, 2));
        assert_eq!(report.zones[0].resident_bytes, Some(222 << 20));
        assert!(report.offer.pages_out);
        // Each envelope's is asked for once, before its report.
        assert_eq!(paged_out.load(Ordering::Relaxed), sequence * 4096);
        linked.says(sequence + 1);
    }
    let mut stream = served.connect();
    stream.write_all(GET).unwrap();
    let text = read_response(&mut stream);
    assert!(text.contains("\"floor_bytes\":4096") && text.contains("\"left_ms\":"), "{text}");
}

#[test]
fn the_newest_link_is_told_the_end_once() {
    let arbiter = Rc::new(RefCell::new(Arbiter::new(hello())));
    let memory: Rc<RefCell<Box<dyn Memory>>> = Rc::new(RefCell::new(Box::new(Scripted::new())));
    let mut links = [Link::open(&arbiter, &memory), Link::open(&arbiter, &memory)];
    let end = End::Exited { code: 3, out_of_memory: false };
    arbiter.borrow_mut().set_end(end);
    let mut told: [Vec<FromVm>; 2] = Default::default();
    for _ in 0..2 {
        for (link, told) in links.iter_mut().zip(&mut told) {
            link.advance();
            let mut decoder = Decoder::<FromVm>::default();
            decoder.receive(link.outgoing());
            let sent = link.outgoing().len();
            link.sent(sent);
            told.extend(std::iter::from_fn(|| decoder.take().unwrap()));
        }
    }
    let hello = FromVm::Hello(hello());
    assert_eq!(told, [vec![hello.clone()], vec![hello, FromVm::End(end)]]);
}

#[test]
fn the_newest_link_counts() {
    let served = Served::start(Scripted::new());
    let mut first = Linked::open(&served, 1);
    assert!(matches!((first.hears(), first.hears()), (FromVm::Hello(_), FromVm::Report(_))));
    let mut second = Linked::open(&served, 1);
    assert!(matches!((second.hears(), second.hears()), (FromVm::Hello(_), FromVm::Report(_))));
    assert!(first.has_ended());
    second.says(2);
    assert!(matches!(second.hears(), FromVm::Report(_)));
}

#[test]
fn who_talks_nonsense_on_a_link_loses_it_and_nobody_else_does() {
    let served = Served::start(Scripted::new());
    let mut linked = Linked::open(&served, 1);
    assert!(matches!((linked.hears(), linked.hears()), (FromVm::Hello(_), FromVm::Report(_))));
    linked.stream.write_all(&[255; 10]).unwrap();
    assert!(linked.has_ended());
    served.answers();
    // Without the upgrade there is none.
    let mut stream = served.connect();
    stream.write_all(b"GET /v1/link HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(read_response(&mut stream).starts_with("HTTP/1.1 426 "));
}

#[test]
fn a_link_outlasts_clients_that_want_its_place() {
    let served = Served::start(Scripted::new());
    let mut linked = Linked::open(&served, 1);
    assert!(matches!((linked.hears(), linked.hears()), (FromVm::Hello(_), FromVm::Report(_))));
    let silent: Vec<UnixStream> = (0..CLIENTS).map(|_| served.connect()).collect();
    served.answers();
    drop(silent);
    linked.says(2);
    assert!(matches!(linked.hears(), FromVm::Report(_)));
}
