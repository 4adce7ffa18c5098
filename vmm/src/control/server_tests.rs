//! The server on a real socket, in a real event loop, among clients that mean no good.

use super::scripted::{Scripted, vm};
use super::service::MicroVm;
use balloon::control::link::Hello;
use balloon::control::server::{CLIENTS, Server};
use balloon::zone::Limits;
use event_manager::{EventManager, SubscriberOps};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

pub(super) const GET: &[u8] = b"GET /v1/vm HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_STATISTICS: &[u8] = b"GET /v1/statistics HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server on a thread of its own.
pub(super) struct Served {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
    _directory: tempfile::TempDir,
}

impl Served {
    /// Its guest has an hour to answer.
    pub(super) fn start(memory: Scripted) -> Self {
        Self::start_with(memory, Duration::from_secs(3600))
    }

    fn start_with(memory: Scripted, guest_limit: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = balloon::control::listener::bind(&path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut events = EventManager::new().unwrap();
            let service = MicroVm::new(vm(), hello(), Box::new(memory), guest_limit).unwrap();
            events.add_subscriber(Server::new(listener, service).unwrap());
            let mut passes = 0;
            while !stopped.load(Ordering::Relaxed) {
                passes += usize::from(events.run_with_timeout(20).unwrap() > 0);
            }
            passes
        };
        Self { path, stop, thread: Some(thread::spawn(run)), _directory: directory }
    }

    pub(super) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    /// Passes of the event loop that did something.
    fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }

    pub(super) fn answers(&self) {
        let mut stream = self.connect();
        stream.write_all(GET).unwrap();
        assert!(read_response(&mut stream).starts_with("HTTP/1.1 200"));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub(super) fn hello() -> Hello {
    Hello {
        name: "web".into(),
        pid: std::process::id(),
        group: "ci/linux".into(),
        limits: Limits::default(),
        memory_bytes: 512 << 20,
        zones: vec!["ram".into(), "cache".into()],
        inherits: true,
    }
}

/// Reads one response.
pub(super) fn read_response(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
        // Every document ends in a line feed of its own.
        if text.ends_with(b"}\n") {
            return String::from_utf8(text).unwrap();
        }
    }
}

#[test]
fn requests_byte_by_byte_and_in_bulk_are_answered() {
    let served = Served::start(Scripted::new());
    let mut slow = served.connect();
    for byte in GET {
        slow.write_all(&[*byte]).unwrap();
    }
    assert!(read_response(&mut slow).contains("\"name\":\"web\""));
    let mut bulk = served.connect();
    bulk.write_all(&GET.repeat(100)).unwrap();
    for _ in 0..100 {
        read_response(&mut bulk);
    }
}

#[test]
fn a_half_closed_client_gets_its_answers_and_the_end() {
    let served = Served::start(Scripted::new());
    let mut stream = served.connect();
    stream.write_all(&GET.repeat(50)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 50);
}

#[test]
fn a_client_that_never_reads_is_not_listened_to_and_disturbs_nobody() {
    let served = Served::start(Scripted::new());
    let mut deaf = served.connect();
    deaf.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut idle = 0;
    // Until both sockets' buffers and the server's are full.
    while idle < 20 {
        match deaf.write(&GET.repeat(100)) {
            Ok(bytes) => (sent, idle) = (sent + bytes, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                idle += 1;
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < 4 << 20, "{sent} bytes were taken");
    served.answers();
    // It reads again, and loses nothing.
    deaf.set_nonblocking(false).unwrap();
    for _ in 0..1000 {
        read_response(&mut deaf);
    }
}

#[test]
fn silent_clients_make_room() {
    let served = Served::start(Scripted::new());
    // Of a crowd, too, before the time limit: not each makes its second of room by itself.
    for crowd in [CLIENTS, 5 * CLIENTS] {
        let silent: Vec<UnixStream> = (0..crowd).map(|_| served.connect()).collect();
        served.answers();
        drop(silent);
    }
}

#[test]
fn clients_that_never_rest_keep_nobody_out() {
    let served = Served::start(Scripted::new());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for mut stream in (0..CLIENTS).map(|_| served.connect()) {
            let over = &over;
            scope.spawn(move || {
                // Until it loses its place, or the test fails.
                let mut buffer = [0; 1000];
                let start = std::time::Instant::now();
                while start.elapsed() < Duration::from_secs(60)
                    && !over.load(Ordering::Relaxed)
                    && stream.write_all(GET).is_ok()
                    && stream.read(&mut buffer).is_ok_and(|bytes| bytes > 0)
                {
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
        served.answers();
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn thousands_of_clients_come_and_go() {
    let served = Served::start(Scripted::new());
    for round in 0..3000 {
        let mut stream = served.connect();
        match round % 3 {
            // Gone before its request is read; gone before its answer; gone with a piece of a request.
            0 => {}
            1 => stream.write_all(GET).unwrap(),
            _ => stream.write_all(&GET[..round % GET.len()]).unwrap(),
        }
    }
    served.answers();
}

#[test]
fn who_is_gone_is_forgotten() {
    let served = Served::start_with(Scripted::silent(), Duration::from_millis(100));
    for _ in 0..CLIENTS {
        served.connect().write_all(GET_STATISTICS).unwrap();
    }
    thread::sleep(Duration::from_millis(500));
    // A loop that spins on a closed socket would make many thousands.
    let passes = served.end();
    assert!(passes < 200, "{passes} passes");
}

#[test]
fn huge_heads_and_contents_are_refused() {
    let served = Served::start(Scripted::new());
    let huge = "x".repeat(70_000);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: {huge}\r\n\r\n"), "431"),
        (format!("GET /{huge} HTTP/1.1\r\nHost: a\r\n\r\n"), "431"),
        (format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n{huge}"), "413"),
        ("PUT / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "411"),
    ] {
        let mut stream = served.connect();
        // The server may close before it has read all.
        let _ = stream.write_all(request.as_bytes());
        assert!(read_response(&mut stream).starts_with(&format!("HTTP/1.1 {status}")));
    }
}

/// A guest that was asked, and who plays it.
fn asked() -> (Served, UnixStream, Arc<AtomicBool>, EventFd) {
    let memory = Scripted { statistics: Some(Scripted::full_statistics()), ..Scripted::silent() };
    let (pending, event) = (Arc::clone(&memory.pending), memory.event.try_clone().unwrap());
    let served = Served::start(memory);
    let mut stream = served.connect();
    stream.write_all(&[GET_STATISTICS, GET].concat()).unwrap();
    while !pending.load(Ordering::Relaxed) {
        thread::yield_now();
    }
    (served, stream, pending, event)
}

#[test]
fn statistics_come_when_the_guest_answers() {
    let (_served, mut stream, pending, event) = asked();
    pending.store(false, Ordering::Relaxed);
    event.write(1).unwrap();
    let text = read_response(&mut stream);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"stale\":false"), "{text}");
    assert!(read_response(&mut stream).contains("\"name\":\"web\""), "then the request behind has its turn");
}

#[test]
fn an_answer_is_whose_that_waited_even_if_others_ask_at_once() {
    let (served, mut stream, pending, _event) = asked();
    let mut other = served.connect();
    other.write_all(GET).unwrap();
    read_response(&mut other);
    // The pass that answered it comes to its end.
    thread::sleep(Duration::from_millis(100));
    pending.store(false, Ordering::Relaxed);
    // Its event comes before the guest's, which here never does.
    other.write_all(GET_STATISTICS).unwrap();
    let text = read_response(&mut stream);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"stale\":false"), "{text}");
}

#[test]
fn a_silent_guest_is_not_waited_for_longer_than_it_may_take() {
    const SOON: Duration = Duration::from_millis(50);
    let served = Served::start_with(Scripted::silent(), SOON);
    let mut stream = served.connect();
    stream.write_all(&[GET_STATISTICS, GET].concat()).unwrap();
    assert!(read_response(&mut stream).starts_with("HTTP/1.1 504"));
    assert!(read_response(&mut stream).starts_with("HTTP/1.1 200"));

    let memory = Scripted { statistics: Some(Scripted::full_statistics()), ..Scripted::silent() };
    let served = Served::start_with(memory, SOON);
    let mut stream = served.connect();
    stream.write_all(GET_STATISTICS).unwrap();
    let text = read_response(&mut stream);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"stale\":true"), "{text}");
}
