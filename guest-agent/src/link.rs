//! The agent's side of the link to its VMM: messages in and out over one port.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use proto::{Decoder, FailureKind, Message, Milestone, Spec, SpecBuffer, Text, ToGuest, ToHost};
use rustix::event::PollFlags;

use crate::clock;
use crate::error::{Doing, Error, chain};
use crate::port::Port;

/// Bytes read from the port at once. Messages are short, apart from the spec.
const READ_BYTES: usize = 4096;

/// More that waits is a host that does not listen: a handful of samples.
const CONGESTED_BYTES: usize = 4096;

/// The link.
#[derive(Debug)]
pub struct Link {
    port: Port,
    decoder: Decoder<ToGuest>,
    incoming: Box<[u8]>,
    /// What of `incoming` is not decoded yet.
    unread: std::ops::Range<usize>,
    outgoing: Vec<u8>,
}

impl Link {
    /// Waits for the port, and for the host to have opened it.
    pub fn open() -> Result<Self, Error> {
        let port = Port::open(proto::LINK_PORT)?;
        port.wait_for_host(proto::LINK_PORT)?;
        Ok(Self {
            port,
            decoder: Decoder::new(),
            incoming: vec![0; READ_BYTES].into(),
            unread: 0..0,
            outgoing: Vec::new(),
        })
    }

    /// Queues a message and sends what the port takes.
    ///
    /// A lost link is not an error of the sender: receiving notices it.
    pub fn send(&mut self, message: &ToHost) {
        message.encode(&mut self.outgoing);
        self.flush();
    }

    /// Tells the user something.
    pub fn notice(&mut self, words: &dyn std::error::Error) {
        self.send(&ToHost::Notice(Text::new(&chain(words))));
    }

    /// Says when something happened: now.
    pub fn milestone(&mut self, milestone: Milestone) {
        self.send(&ToHost::Milestone { milestone, monotonic_us: clock::monotonic_us() });
    }

    /// Sends what the port takes of what is queued.
    pub fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.port.write(&self.outgoing) {
                Ok(n) => drop(self.outgoing.drain(..n.min(self.outgoing.len()))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// The next message that is already there.
    ///
    /// # Errors
    /// What the host sends makes no sense.
    pub fn receive(&mut self) -> Result<Option<ToGuest>, Error> {
        loop {
            let mut input = self.incoming.get(self.unread.clone()).unwrap_or_default();
            let message = self.decoder.next(&mut input).doing_protocol()?;
            self.unread.start = self.unread.end.saturating_sub(input.len());
            if message.is_some() {
                return Ok(message);
            }
            match self.port.read(&mut self.incoming) {
                Ok(n) => self.unread = 0..n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).doing(|| "reading the link to the host"),
            }
        }
    }

    /// Waits for the host's greeting and its spec.
    pub fn receive_spec(&mut self) -> Result<Spec, Error> {
        let mut buffer = SpecBuffer::default();
        let mut greeted = false;
        loop {
            match self.receive()? {
                Some(ToGuest::Hello { version: proto::VERSION }) => greeted = true,
                Some(ToGuest::Hello { version }) => {
                    let ours = proto::VERSION;
                    return Err(Error::new(format!(
                        "the host speaks version {version} of the agent link, this agent {ours}: \
                         both must come from one release of ballast"
                    )));
                }
                Some(ToGuest::Spec { last, chunk }) if greeted => {
                    if let Some(spec) = buffer.push(last, &chunk).doing_protocol()? {
                        return Ok(spec);
                    }
                }
                Some(_) => return Err(Error::new("the host sent a message before its spec")),
                None if self.port.is_hung_up() => return Err(Error::new("the host closed the link")),
                None => self.port.wait(PollFlags::IN).doing(|| "waiting for the host's spec")?,
            }
        }
    }

    /// Whether the host has not taken what was sent before.
    pub fn is_congested(&self) -> bool {
        self.outgoing.len() > CONGESTED_BYTES
    }

    /// Whether the host's side is closed.
    pub fn is_hung_up(&self) -> bool {
        self.port.is_hung_up()
    }

    /// Hands over everything that is queued, and then waits for the host to end the machine, which it does
    /// once it has all it wants. That may take any time: a reader of the workload's output may be slow, and to
    /// power off would reset the devices whose queues still hold it.
    pub fn finish(&mut self) {
        self.flush();
        while !self.outgoing.is_empty() && !self.port.is_hung_up() {
            if self.port.wait(PollFlags::OUT).is_err() {
                return;
            }
            self.flush();
        }
        self.port.wait_for_hang_up();
    }

    /// The last word when the workload could not be started.
    pub fn fail(&mut self, kind: FailureKind, error: &Error) {
        self.send(&ToHost::Failed { kind, message: Text::new(&chain(error)) });
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

trait DoingProtocol<T> {
    fn doing_protocol(self) -> Result<T, Error>;
}

impl<T, E: std::error::Error> DoingProtocol<T> for Result<T, E> {
    fn doing_protocol(self) -> Result<T, Error> {
        self.map_err(|error| Error::new(format!("understanding the host: {}", chain(&error))))
    }
}
