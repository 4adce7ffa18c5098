//! MicroVMs that are none: sockets where theirs would be, each with a process, that speak the daemon's protocol as a VMM does.
//! As many as a host has room for; one thread serves all.

use crate::ballast::Ballast;
use balloon::control::link::{Decoder, Envelope, FromVm, Hello, Offer, Report, ToVm, Usage, ZoneUse, encode};
use balloon::zone::Limits;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// What a VMM answers to the request for a link.
pub const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ballast-link/1\r\n\r\n";
const MEMORY: u64 = 256 << 20;
/// What each says that it holds: less than its process does, which the daemon would not believe.
const RESIDENT: u64 = 512 << 10;

/// A child of this process, as a VMM is one of who listens for it.
pub struct Sleeper(Child);

impl Sleeper {
    /// Starts it.
    #[must_use]
    pub fn start() -> Self {
        Self(Command::new("sleep").arg("86400").stdin(Stdio::null()).spawn().unwrap())
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Many peers; gone when dropped.
pub struct Crowd {
    told: Arc<Told>,
    server: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    greeted: AtomicUsize,
    envelopes: AtomicUsize,
    /// The last one of each, by name.
    last: Mutex<BTreeMap<String, Envelope>>,
    is_over: AtomicBool,
}

struct Peer {
    name: String,
    /// As it was told last.
    group: String,
    process: Sleeper,
    listener: UnixListener,
    link: Option<Link>,
}

struct Link {
    stream: UnixStream,
    /// Of the request, until it has come whole.
    head: Option<Vec<u8>>,
    decoder: Decoder<ToVm>,
    was_told: bool,
}

impl Crowd {
    /// `count` of them, where a daemon that serves `ballast`'s state directory finds them.
    #[must_use]
    pub fn start(ballast: &Ballast, count: usize) -> Self {
        Self::start_in(ballast, "", count)
    }

    /// The same in the group of that path.
    #[must_use]
    pub fn start_in(ballast: &Ballast, group: &str, count: usize) -> Self {
        let epoll = Epoll::new().unwrap();
        let peers: Vec<Peer> = (0..count)
            .map(|number| {
                let peer = Peer::listen(ballast, group, format!("vm{number}"));
                wait_for(&epoll, &peer.listener, 2 * number as u64);
                peer
            })
            .collect();
        let told = Arc::new(Told::default());
        let for_server = told.clone();
        let server = std::thread::spawn(move || serve(&epoll, peers, &for_server));
        Self { told, server: Some(server) }
    }

    /// How many the daemon has sent an envelope on the link that it has to them now, or last had.
    #[must_use]
    pub fn greeted(&self) -> usize {
        self.told.greeted.load(Ordering::Relaxed)
    }

    /// How many envelopes have come in all.
    #[must_use]
    pub fn envelopes(&self) -> usize {
        self.told.envelopes.load(Ordering::Relaxed)
    }

    /// The last envelope that has come to the one of this name.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<Envelope> {
        self.told.last.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Counts who is greeted anew, by another daemon.
    pub fn forget(&self) {
        self.told.greeted.store(0, Ordering::Relaxed);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.told.is_over.store(true, Ordering::Relaxed);
        // A panic of its has been told.
        let _ = self.server.take().map(JoinHandle::join);
    }
}

fn wait_for(epoll: &Epoll, file: &impl AsRawFd, token: u64) {
    let event = EpollEvent::new(EventSet::IN, token);
    epoll.ctl(ControlOperation::Add, file.as_raw_fd(), event).unwrap();
}

fn serve(epoll: &Epoll, mut peers: Vec<Peer>, told: &Told) {
    let mut events = vec![EpollEvent::default(); 256];
    while !told.is_over.load(Ordering::Relaxed) {
        let ready = epoll.wait(100, &mut events).unwrap();
        for event in &events[..ready] {
            let number = event.data() as usize / 2;
            let peer = &mut peers[number];
            if event.data().is_multiple_of(2) {
                let (stream, _) = peer.listener.accept().unwrap();
                stream.set_nonblocking(true).unwrap();
                wait_for(epoll, &stream, event.data() + 1);
                let (head, decoder) = (Some(Vec::new()), Decoder::default());
                peer.link = Some(Link { stream, head, decoder, was_told: false });
            } else if !peer.attend(told) {
                // To close it takes it from the epoll, too.
                peer.link = None;
            }
        }
    }
}

impl Peer {
    fn listen(ballast: &Ballast, group: &str, name: String) -> Self {
        let directory = ballast.path("state/vms").join(&name);
        fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("control.sock")).unwrap();
        Self { name, group: group.into(), process: Sleeper::start(), listener, link: None }
    }

    /// Reads what has come and answers. False when the link has ended.
    fn attend(&mut self, told: &Told) -> bool {
        let Self { name, group, process, link, .. } = self;
        let Some(link) = link else { return true };
        let mut buffer = [0; 4096];
        let read = match link.stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => &buffer[..read],
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let mut answer = Vec::new();
        if let Some(head) = &mut link.head {
            head.extend_from_slice(read);
            if !head.ends_with(b"\r\n\r\n") {
                return true;
            }
            link.head = None;
            answer.extend_from_slice(SWITCHED);
            encode(&FromVm::Hello(hello(name, group, process.id())), &mut answer);
        } else {
            link.decoder.receive(read);
        }
        while let Ok(Some(ToVm::Envelope(envelope))) = link.decoder.take() {
            told.envelopes.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(&mut link.was_told, true) {
                told.greeted.fetch_add(1, Ordering::Relaxed);
            }
            encode(&FromVm::Report(report(envelope.sequence)), &mut answer);
            group.clone_from(&envelope.group);
            told.last.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), envelope);
        }
        answer.is_empty() || link.stream.write_all(&answer).is_ok()
    }
}

fn limits() -> Limits {
    Limits { max: Some(MEMORY), ..Limits::default() }
}

fn hello(name: &str, group: &str, pid: u32) -> Hello {
    let zones = vec!["ram".into()];
    let (name, group) = (name.into(), group.into());
    Hello { name, pid, group, limits: limits(), memory_bytes: MEMORY, zones, inherits: true }
}

fn report(sequence: u64) -> Report {
    Report {
        sequence,
        ceiling_bytes: MEMORY,
        manual: false,
        floor_bytes: 0,
        limits: limits(),
        zones: vec![ZoneUse { name: "ram".into(), resident_bytes: Some(RESIDENT) }],
        offer: Offer { follows: true, ..Offer::default() },
        usage: Usage::default(),
    }
}
