//! Finds microVMs in the state directory, keeps a link to each, and looks at the host. Wiring: what is said is
//! [`crate::control::link`]'s, what it means the [`Fleet`]'s.
//!
//! A microVM is found by its socket and known by its process. The link's peer is who listens (unix(7)): `ballast`, which
//! made the socket before it started the VMM. The VMM's own number comes with its hello and must be that of a child.

#![forbid(unsafe_code)]

use super::descriptors;
use super::documents::status;
use super::fleet::Fleet;
use super::host::{self, Held, Process, Watched};
use super::journal::Journal;
use super::kill;
use super::notify;
use super::page_cache::Files;
use super::recorder::Recorder;
use crate::control::link::{self, Decoder, FromVm, RENEWAL, ToVm};
use crate::control::peer::peer;
use crate::zone::scope::state_name;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use vmm_sys_util::timerfd::TimerFd;

const TIMER: u32 = 0;
/// What a microVM may leave unread: four envelopes are a lease, and each has some hundred bytes.
const UNREAD_BYTES: usize = 64 << 10;
/// Longest answer to the request for the link.
const HEAD_BYTES: usize = 4096;

/// All links.
pub struct Links {
    vms: PathBuf,
    fleet: Rc<RefCell<Fleet>>,
    journal: Rc<Journal>,
    files: Files,
    /// Writes each tick down, if that is wanted.
    recorder: Option<Recorder>,
    timer: TimerFd,
    /// By the tokens of their events.
    links: BTreeMap<u32, Link>,
    next_token: u32,
    /// There was no descriptor left for a further link.
    is_full: bool,
    /// How many have not said who they are yet.
    unheard: Rc<Cell<usize>>,
}

/// The link to one microVM.
struct Link {
    name: String,
    socket: UnixStream,
    stage: Stage,
    unsent: Vec<u8>,
    interest: EventSet,
    /// Its process was seen to live since the last tick.
    lives: bool,
}

enum Stage {
    /// The answer to the request for the link is awaited; so much of it has come.
    Asked(Vec<u8>),
    /// It is a link.
    Open { decoder: Decoder<FromVm>, process: Option<Watched> },
}

impl Links {
    /// Links to the microVMs of the state directory `state`.
    ///
    /// # Errors
    /// The directory cannot be found, or the host has no more descriptors.
    pub fn new(state: &Path, fleet: Rc<RefCell<Fleet>>, journal: Rc<Journal>) -> io::Result<Self> {
        let mut timer = TimerFd::new()?;
        timer.reset(RENEWAL, Some(RENEWAL))?;
        let files = Files::new(state_name(&std::fs::canonicalize(state)?.to_string_lossy()));
        let (links, next_token) = (BTreeMap::new(), TIMER);
        Ok(Self {
            vms: state.join("vms"),
            fleet,
            journal,
            files,
            recorder: None,
            timer,
            links,
            next_token,
            is_full: false,
            unheard: Rc::default(),
        })
    }

    /// Has each tick written down.
    #[must_use]
    pub fn recorded(self, recorder: Option<Recorder>) -> Self {
        Self { recorder, ..self }
    }

    /// How many microVMs were found and have not said who they are yet, as it changes.
    #[must_use]
    pub fn unheard(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.unheard)
    }

    fn count_unheard(&self) {
        self.unheard.set(self.links.values().filter(|link| !link.is_open()).count());
    }

    /// Looks for microVMs without a link, at the host, and renews all leases.
    fn tick(&mut self, ops: &mut EventOps) {
        self.discover(ops);
        // A link ends with its process, which needs no look if it was seen on it since the last tick.
        let (seen, others): (Vec<_>, Vec<_>) = self
            .links
            .iter_mut()
            .filter_map(|(token, link)| Some((link.process()?, std::mem::take(&mut link.lives), *token)))
            .partition(|(_, lives, _)| *lives);
        let seen: BTreeSet<Process> = seen.into_iter().map(|(process, ..)| process).collect();
        for (_, _, token) in others.into_iter().filter(|(process, ..)| !host::is_alive(*process)) {
            // Its last word may not have been read yet.
            self.attend(token, EventSet::IN, ops);
        }
        let mut lost = Vec::new();
        {
            let mut fleet = self.fleet.borrow_mut();
            fleet.sweep(|process| seen.contains(&process) || host::is_alive(process), host::held);
            fleet.charge_silent(host::held);
            self.files.look_at_all(&mut fleet);
            fleet.arbitrate(host::reading());
            fleet.execute(|condemned| {
                kill::kill(&self.vms, condemned).inspect_err(|error| {
                    log::error!("cannot kill microVM '{}': {error}", condemned.name);
                })
            });
            for (token, link) in self.links.iter_mut().filter(|(_, link)| link.is_open()) {
                match fleet.envelope(&link.name) {
                    Some(envelope) => link::encode(&ToVm::Envelope(envelope), &mut link.unsent),
                    // Its process has ended. If it has not, a link that is made anew says so.
                    None => lost.push(*token),
                }
            }
        }
        for token in lost {
            self.unlink(token, ops);
        }
        for token in self.links.keys().copied().collect::<Vec<_>>() {
            self.attend(token, EventSet::empty(), ops);
        }
        let mut fleet = self.fleet.borrow_mut();
        self.journal.record(&mut fleet);
        let document = fleet.host();
        if let Some(recorder) = &mut self.recorder {
            recorder.record(&fleet, &document);
        }
        notify::alive(&status(&document));
    }

    fn discover(&mut self, ops: &mut EventOps) {
        let entries = match std::fs::read_dir(&self.vms) {
            Ok(entries) => entries,
            // Nobody has started one yet.
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => return log::warn!("cannot read {}: {error}", self.vms.display()),
        };
        let known: BTreeSet<String> = self.links.values().map(|link| link.name.clone()).collect();
        let was_full = std::mem::take(&mut self.is_full);
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if known.contains(&name) {
                continue;
            }
            // There is none yet, nobody listens any longer, or too many wait there: tried again.
            let Ok(socket) = connect(&entry.path().join("control.sock")) else { continue };
            if !descriptors::leaves_enough(&socket) {
                self.is_full = true;
                if !was_full {
                    let links = self.links.len();
                    log::error!(
                        "there are more microVMs than the {links} that this process has open files for: the others get no \
                         memory back and give none. Raise LimitNOFILE= of the service, or `ulimit -n`"
                    );
                }
                break;
            }
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: ballast\r\nConnection: Upgrade\r\nUpgrade: {}\r\n\r\n",
                link::PATH,
                link::PROTOCOL
            );
            let stage = Stage::Asked(Vec::new());
            let unsent = request.into();
            let link = Link { name, socket, stage, unsent, interest: EventSet::IN, lives: false };
            // Tokens are not used again before four thousand million links.
            self.next_token = self.next_token.checked_add(1).unwrap_or(TIMER + 1);
            match ops.add(Events::with_data(&link.socket, self.next_token, link.interest)) {
                Ok(()) => drop(self.links.insert(self.next_token, link)),
                Err(error) => log::warn!("cannot wait for microVM '{}': {error}", link.name),
            }
        }
    }

    /// Reads, acts and writes for one link.
    fn attend(&mut self, token: u32, ready: EventSet, ops: &mut EventOps) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let goes_on = link.attend(ready, &mut self.fleet.borrow_mut());
        match goes_on {
            Ok(true) => {
                let mut wanted = EventSet::IN;
                wanted.set(EventSet::OUT, !link.unsent.is_empty());
                if wanted == link.interest {
                    return;
                }
                link.interest = wanted;
                let Err(error) = ops.modify(Events::with_data(&link.socket, token, wanted)) else { return };
                log::warn!("cannot wait for microVM '{}': {error}", link.name);
            }
            Ok(false) => {}
            Err(error) => log::warn!("the link to microVM '{}' ends: {error}", link.name),
        }
        // Its process says whether it has ended; a link that broke is made anew.
        self.unlink(token, ops);
    }

    fn unlink(&mut self, token: u32, ops: &mut EventOps) {
        let Some(link) = self.links.remove(&token) else { return };
        if let Err(error) = ops.remove(Events::with_data(&link.socket, token, link.interest)) {
            log::error!("cannot forget microVM '{}': {error}", link.name);
        }
        self.fleet.borrow_mut().look_after(&link.name, host::is_alive, host::held);
    }
}

/// A link must end.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it offers none: {0}")]
    NoLink(String),
    #[error(transparent)]
    Protocol(#[from] link::Error),
    #[error("it calls itself '{0}'")]
    Name(String),
    #[error("process {0}, which it claims to be, is none of its starter's")]
    Process(u32),
    #[error("process {0}, which it claims to be, is another microVM")]
    Another(u32),
    #[error("{0}")]
    Zone(#[from] crate::zone::Error),
    #[error("it does not read")]
    Deaf,
    #[error("it speaks before it has said who it is, or says it twice")]
    Order,
}

impl Link {
    /// Whose it is, once he has said so.
    fn process(&self) -> Option<Process> {
        match &self.stage {
            Stage::Open { process, .. } => process.as_ref().map(Watched::process),
            Stage::Asked(_) => None,
        }
    }

    fn is_open(&self) -> bool {
        self.process().is_some()
    }

    /// False when the microVM has closed the link.
    fn attend(&mut self, ready: EventSet, fleet: &mut Fleet) -> Result<bool, Fault> {
        if ready.intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR) && !self.receive(fleet)? {
            return Ok(false);
        }
        if self.unsent.len() > UNREAD_BYTES {
            return Err(Fault::Deaf);
        }
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(bytes) => drop(self.unsent.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn receive(&mut self, fleet: &mut Fleet) -> Result<bool, Fault> {
        let mut buffer = [0; 16 << 10];
        let read = match self.socket.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(true);
            }
            Err(_) => return Ok(false),
        };
        match &mut self.stage {
            Stage::Open { decoder, .. } => decoder.receive(read),
            Stage::Asked(head) => {
                head.extend_from_slice(read);
                let Some(rest) = switched(head)? else { return Ok(true) };
                let mut decoder = Decoder::default();
                decoder.receive(&rest);
                self.stage = Stage::Open { decoder, process: None };
            }
        }
        while let Stage::Open { decoder, process } = &mut self.stage {
            match (decoder.take()?, &*process) {
                (None, _) => break,
                (Some(FromVm::Hello(hello)), None) => {
                    if hello.name != self.name {
                        return Err(Fault::Name(hello.name));
                    }
                    let starter = peer(&self.socket).and_then(|peer| u32::try_from(peer.pid).ok());
                    let vmm = host::status(hello.pid).filter(|vmm| starter == Some(vmm.parent));
                    let vmm = vmm.ok_or(Fault::Process(hello.pid))?.process;
                    if fleet.is_another(&hello.name, vmm) {
                        return Err(Fault::Another(hello.pid));
                    }
                    fleet.greet(&hello, vmm)?;
                    *process = Some(Watched::new(vmm));
                    if let Some(envelope) = fleet.envelope(&self.name) {
                        link::encode(&ToVm::Envelope(envelope), &mut self.unsent);
                    }
                }
                (Some(FromVm::Report(report)), Some(process)) => {
                    let lives = &mut self.lives;
                    let beyond = fleet.observe(&self.name, &report, || {
                        let held = process.held();
                        *lives = held.is_some_and(|held| held != Held::default());
                        held
                    })?;
                    if beyond > 0 {
                        log::info!(
                            "microVM '{}' claims {beyond} bytes more than its process holds",
                            self.name
                        );
                    }
                }
                (Some(FromVm::End(end)), Some(_)) => fleet.says_end(&self.name, end),
                _ => return Err(Fault::Order),
            }
        }
        Ok(true)
    }
}

impl MutEventSubscriber for Links {
    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::with_data(&self.timer, TIMER, EventSet::IN)) {
            log::error!("cannot wait for the timer: {error}");
        }
        self.tick(ops);
        self.count_unheard();
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            TIMER => {
                let _ = self.timer.wait();
                self.tick(ops);
            }
            token => {
                self.attend(token, events.event_set(), ops);
                self.journal.record(&mut self.fleet.borrow_mut());
            }
        }
        self.count_unheard();
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
    Ok(fd.into())
}

/// What follows the answer that makes the connection a link; nothing while the answer is not whole.
fn switched(head: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES => Ok(None),
        Ok(httparse::Status::Complete(length)) if response.code == Some(101) => {
            Ok(Some(head.get(length..).unwrap_or_default().to_vec()))
        }
        Ok(httparse::Status::Complete(_)) => {
            Err(Fault::NoLink(format!("it answers {}", response.code.unwrap_or_default())))
        }
        _ => Err(Fault::NoLink("its answer cannot be understood".into())),
    }
}
