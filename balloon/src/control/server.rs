//! A control socket in an event loop: descriptors, credentials and time. Wiring: what clients say is
//! [`Connection`]'s, what it means the [`Service`]'s.
//!
//! Who may ask is the [`Listener`]'s to say. A pass does little for each client, so that devices and clients
//! take turns; whatever is left is taken up in the next.

#![forbid(unsafe_code)]

use super::connection::Connection;
use super::http::{Request, Status};
use super::listener::{Listener, Peer};
use super::service::{Answer, Service, Stream, error};
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

/// Clients served at once. They hold at most 150 KiB each, and answers take microseconds.
pub const CLIENTS: usize = 16;
/// A client that completes no request for so long is dropped, whether it sends nothing, sends slowly or does not
/// read its answers.
pub const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// When all places are taken, a client that has asked nothing for so long makes room for the next.
const EVICTED_AFTER: Duration = Duration::from_secs(1);
/// And if none has been silent, the one that has been there longest, once it was there for so long: clients that
/// never rest cannot keep others out.
const TURN: Duration = Duration::from_secs(3);
/// Requests of one client, and new clients, that a pass takes.
const PASS: usize = 8;

/// Tokens of events that are no client's.
const LISTENER: u32 = 1000;
const TIMER: u32 = 1001;
const MORE: u32 = 1002;
const SERVICE: u32 = 1003;

/// The server of one control socket.
pub struct Server<S, L: Listener = UnixListener> {
    listener: L,
    /// Until when no new clients are accepted, as all places are taken.
    closed_until: Option<Instant>,
    /// A client for whom there was no place.
    next: Option<L::Socket>,
    service: S,
    /// This program's own user.
    user: u32,
    clients: [Option<Client<L::Socket>>; CLIENTS],
    /// Readable while requests wait that were received in an earlier pass.
    more: EventFd,
    timer: TimerFd,
}

struct Client<C> {
    socket: C,
    /// Who connected.
    peer: Peer,
    connection: Connection,
    /// What the connection has become.
    stream: Option<Box<dyn Stream>>,
    interest: EventSet,
    connected: Instant,
    /// When it connected, or was last answered.
    since: Instant,
    /// The answer that its request waits for, and until when.
    promised: Option<(u64, Instant)>,
}

impl<S: Service, L: Listener> Server<S, L> {
    /// A server of `listener`, which must be listening.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new(listener: L, service: S) -> io::Result<Self> {
        listener.prepare()?;
        Ok(Self {
            listener,
            closed_until: None,
            next: None,
            service,
            user: rustix::process::geteuid().as_raw(),
            clients: [const { None }; CLIENTS],
            more: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            timer: TimerFd::new()?,
        })
    }

    fn accept(&mut self, ops: &mut EventOps) {
        for _ in 0..PASS {
            if self.next.is_none() {
                match self.listener.welcome() {
                    Ok(socket) => self.next = Some(socket),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                    Err(error) => {
                        log::warn!("cannot accept a client of the control socket: {error}");
                        return self.set_accepting(false, ops);
                    }
                }
            }
            // Only for a client that is there another has to go.
            let place = self.clients.iter().position(Option::is_none).or_else(|| self.evict(ops));
            let Some(place) = place else { return self.set_accepting(false, ops) };
            if let Some(socket) = self.next.take() {
                self.welcome(place, socket, ops);
            }
        }
    }

    /// The place of whoever was silent longest, or else is there longest, if long enough.
    fn evict(&mut self, ops: &mut EventOps) -> Option<usize> {
        let now = Instant::now();
        let longest = |since: &dyn Fn(&Client<L::Socket>) -> Option<Instant>, least: Duration| {
            let clients = self.clients.iter().enumerate();
            let ages = clients.filter_map(|(place, client)| {
                let age = now.saturating_duration_since(since(client.as_ref()?)?);
                Some((age, place))
            });
            ages.max().filter(|(age, _)| *age >= least).map(|(_, place)| place)
        };
        let silent = |client: &Client<L::Socket>| (!client.connection.waits()).then_some(client.since);
        let silent = |client: &Client<L::Socket>| silent(client).filter(|_| client.stream.is_none());
        let connected = |client: &Client<L::Socket>| client.stream.is_none().then_some(client.connected);
        let place = longest(&silent, EVICTED_AFTER).or_else(|| longest(&connected, TURN))?;
        self.remove(place, ops);
        Some(place)
    }

    fn welcome(&mut self, place: usize, mut socket: L::Socket, ops: &mut EventOps) {
        let Some(peer) = L::admit(&socket, self.user) else {
            let mut text = Vec::new();
            error(Status::Forbidden, "only the owner of this socket and root may ask")
                .write(false, true, &mut text);
            // A new socket takes so little at once; nothing hangs on it.
            let _ = socket.write(&text);
            return;
        };
        let now = Instant::now();
        let client = Client {
            socket,
            peer,
            connection: Connection::default(),
            stream: None,
            interest: EventSet::IN,
            connected: now,
            since: now,
            promised: None,
        };
        match (ops.add(client.events(place)), self.clients.get_mut(place)) {
            (Ok(()), Some(free)) => *free = Some(client),
            (Ok(()), None) => {}
            (Err(error), _) => log::warn!("cannot wait for a client of the control socket: {error}"),
        }
    }

    fn remove(&mut self, place: usize, ops: &mut EventOps) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::take) else { return };
        if let Err(error) = ops.remove(client.events(place)) {
            log::error!("cannot forget a client of the control socket: {error}");
        }
        drop(client);
        self.set_accepting(true, ops);
    }

    fn set_accepting(&mut self, accepting: bool, ops: &EventOps) {
        if self.closed_until.is_none() == accepting {
            return;
        }
        let interest = if accepting { EventSet::IN } else { EventSet::empty() };
        match ops.modify(Events::with_data(&self.listener, LISTENER, interest)) {
            Ok(()) => self.closed_until = (!accepting).then(|| Instant::now() + EVICTED_AFTER),
            Err(error) => log::error!("cannot wait for clients of the control socket: {error}"),
        }
    }

    /// Does a pass's worth of what the client at `place` wants.
    fn serve(&mut self, place: usize, ready: EventSet, ops: &mut EventOps) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        let goes_on = client.serve(ready, &mut self.service, &self.more);
        self.keep(place, goes_on, ops);
    }

    /// Answers who was promised an answer, if it has come or time is up, and looks after streams.
    fn settle(&mut self, ops: &mut EventOps) {
        let now = Instant::now();
        for place in 0..CLIENTS {
            let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { continue };
            let answer = client.promised.and_then(|(ticket, until)| {
                let answer = self.service.settle(ticket);
                answer.or_else(|| (until <= now).then(|| self.service.give_up(ticket)))
            });
            if let Some(answer) = answer {
                client.promised = None;
                client.since = now;
                client.connection.answer(&answer);
            } else if client.stream.is_none() {
                continue;
            }
            self.serve(place, EventSet::empty(), ops);
        }
    }

    fn keep(&mut self, place: usize, goes_on: bool, ops: &mut EventOps) {
        let Some(client) = self.clients.get_mut(place).and_then(Option::as_mut) else { return };
        if !goes_on {
            return self.remove(place, ops);
        }
        let interest = client.wanted();
        if interest != client.interest {
            client.interest = interest;
            if let Err(error) = ops.modify(client.events(place)) {
                log::error!("cannot wait for a client of the control socket: {error}");
                self.remove(place, ops);
            }
        }
    }

    /// Drops who is idle, opens the door again, and sets the timer to the next time limit.
    fn watch_the_clock(&mut self, ops: &mut EventOps) {
        let now = Instant::now();
        if self.closed_until.is_some_and(|until| until <= now) {
            self.set_accepting(true, ops);
        }
        for place in 0..CLIENTS {
            let client = self.clients.get(place).and_then(Option::as_ref);
            if client.is_some_and(|client| {
                client.limit().is_some_and(|limit| limit <= now) && client.promised.is_none()
            }) {
                self.remove(place, ops);
            }
        }
        if self.closed_until.is_none() && self.next.is_some() {
            self.accept(ops);
        }
        let clients = self.clients.iter().flatten();
        let limits = clients.filter_map(Client::limit);
        let next = limits.chain(self.closed_until).min();
        // Setting the timer also forgets that it has expired; zero would stop it.
        let after = next.map(|next| next.saturating_duration_since(now).max(Duration::from_millis(1)));
        if let Err(error) = self.timer.reset(after.unwrap_or_default(), None) {
            log::error!("cannot set the timer of the control socket: {error}");
        }
    }
}

impl<C: Read + Write + AsRawFd> Client<C> {
    /// Reads, answers and writes; false if that was all.
    fn serve(&mut self, ready: EventSet, service: &mut impl Service, more: &EventFd) -> bool {
        if ready.intersects(EventSet::IN | EventSet::HANG_UP | EventSet::ERROR) && !self.receive() {
            return false;
        }
        for _ in 0..PASS {
            let Some(request) = self.connection.take_request() else { break };
            let request = Request { client: self.peer.process, ..request };
            self.since = Instant::now();
            match service.serve(&request) {
                Answer::Now(response) => self.connection.answer(&response),
                Answer::Later { ticket, limit } => self.promised = Some((ticket, self.since + limit)),
                Answer::Upgrade(response, mut stream) => {
                    self.connection.answer(&response);
                    stream.receive(&self.connection.take_rest());
                    self.stream = Some(stream);
                }
            }
        }
        if let Some(stream) = &mut self.stream {
            stream.advance();
        }
        if !self.send() {
            return false;
        }
        // Who is gone altogether reads no answer, and the event loop would say so again and again.
        if ready.intersects(EventSet::HANG_UP | EventSet::ERROR) && self.room() == 0 {
            return false;
        }
        // Requests may lie in memory, where no event tells of them.
        if self.connection.is_ready() {
            let _ = more.write(1);
        }
        match &self.stream {
            Some(stream) => !stream.is_over() || !self.outgoing().is_empty(),
            None => !self.connection.is_over(),
        }
    }

    fn room(&self) -> usize {
        self.stream.as_ref().map_or_else(|| self.connection.room(), |stream| stream.room())
    }

    fn outgoing(&self) -> &[u8] {
        outgoing(&self.connection, self.stream.as_deref())
    }

    /// Takes what the client has sent, a pass's worth; false if the connection is broken.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let room = self.room().min(buffer.len());
        let Some(buffer) = buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else { return true };
        match (self.socket.read(buffer), &mut self.stream) {
            (Ok(0), Some(stream)) => stream.end(),
            (Ok(0), None) => self.connection.end(),
            (Ok(bytes), Some(stream)) => stream.receive(buffer.get(..bytes).unwrap_or_default()),
            (Ok(bytes), None) => self.connection.receive(buffer.get(..bytes).unwrap_or_default()),
            (Err(error), _) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            (Err(_), _) => return false,
        }
        true
    }

    /// Writes what the client's socket takes; false if nobody reads.
    fn send(&mut self) -> bool {
        while !self.outgoing().is_empty() {
            let result = self.socket.write(outgoing(&self.connection, self.stream.as_deref()));
            match (result, &mut self.stream) {
                (Ok(bytes), Some(stream)) if self.connection.outgoing().is_empty() => stream.sent(bytes),
                (Ok(bytes), _) => self.connection.sent(bytes),
                (Err(error), _) if error.kind() == ErrorKind::WouldBlock => break,
                (Err(error), _) if error.kind() == ErrorKind::Interrupted => {}
                (Err(_), _) => return false,
            }
        }
        true
    }

    /// When something has to be done about it that it does not ask for: its answer is due, or it idles. Streams are
    /// their service's to end.
    fn limit(&self) -> Option<Instant> {
        let idle = self.stream.is_none().then(|| self.since + IDLE_LIMIT);
        self.promised.map(|(_, until)| until).or(idle)
    }

    fn wanted(&self) -> EventSet {
        let mut wanted = EventSet::empty();
        wanted.set(EventSet::IN, self.room() > 0);
        wanted.set(EventSet::OUT, !self.outgoing().is_empty());
        wanted
    }

    fn events(&self, place: usize) -> Events {
        // Places are few.
        Events::with_data(&self.socket, place as u32, self.interest)
    }
}

impl<S: Service, L: Listener> MutEventSubscriber for Server<S, L> {
    fn init(&mut self, ops: &mut EventOps) {
        let mut add = |events| {
            if let Err(error) = ops.add(events) {
                log::error!("cannot wait for the control socket: {error}");
            }
        };
        add(Events::with_data(&self.listener, LISTENER, EventSet::IN));
        add(Events::with_data(&self.timer, TIMER, EventSet::IN));
        add(Events::with_data(&self.more, MORE, EventSet::IN));
        if let Some(event) = self.service.event() {
            add(Events::with_data(event, SERVICE, EventSet::IN));
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        // Before somebody asks anew: an answer that has come is whose that waited for it.
        self.settle(ops);
        match events.data() {
            LISTENER => self.accept(ops),
            // Looking at the clock is all, below.
            TIMER => {}
            MORE => {
                let _ = self.more.read();
                (0..CLIENTS).for_each(|place| self.serve(place, EventSet::empty(), ops));
            }
            SERVICE => {
                drop(self.service.event().map(EventFd::read));
                self.service.advance();
            }
            place => self.serve(place as usize, events.event_set(), ops),
        }
        self.settle(ops);
        self.watch_the_clock(ops);
    }
}

/// What a client is to read next: the last response comes before the stream's first byte.
fn outgoing<'a>(connection: &'a Connection, stream: Option<&'a dyn Stream>) -> &'a [u8] {
    match (connection.outgoing(), stream) {
        ([], Some(stream)) => stream.outgoing(),
        (bytes, _) => bytes,
    }
}
