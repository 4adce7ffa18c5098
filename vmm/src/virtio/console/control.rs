//! The control messages of a multiport console (virtio 1.3, 5.3.6.2) and the handshake they make. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use std::collections::VecDeque;

/// Length of `struct virtio_console_control`.
pub const HEADER_BYTES: usize = 8;
/// More than any handshake needs: what a driver asks for beyond it is dropped.
const MAX_PENDING: usize = 64;

/// `event` of a control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Event {
    /// The driver is ready for ports.
    DeviceReady = 0,
    /// The device has a port.
    PortAdd = 1,
    /// The driver set a port up.
    PortReady = 3,
    /// A port is a console.
    ConsolePort = 4,
    /// The other side opened or closed a port.
    PortOpen = 6,
    /// A port's name.
    PortName = 7,
}

/// A control message of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The port it speaks of.
    pub port: u32,
    /// The raw event: a driver may know more than this device.
    pub event: u16,
    /// Event-specific.
    pub value: u16,
}

impl Control {
    /// Reads a message of the driver; nothing if it is cut short.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (port, rest) = bytes.split_first_chunk()?;
        let (event, rest) = rest.split_first_chunk()?;
        let (value, _) = rest.split_first_chunk()?;
        Some(Self {
            port: u32::from_le_bytes(*port),
            event: u16::from_le_bytes(*event),
            value: u16::from_le_bytes(*value),
        })
    }
}

/// What a port is called and whether the kernel makes a console of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortKind {
    /// The name that udev and the agent see.
    pub name: &'static str,
    /// The guest's kernel registers it as `hvc`.
    pub console: bool,
}

/// What a control message changed for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that concerns data.
    None,
    /// The guest opened or closed this port.
    Opened(usize, bool),
    /// The message makes no sense.
    Misuse,
}

/// The device's side of the handshake: takes the driver's messages, queues its own.
#[derive(Debug)]
pub struct Handshake {
    kinds: &'static [PortKind],
    pending: VecDeque<Vec<u8>>,
}

impl Handshake {
    /// A handshake about these ports, before the driver's first word.
    #[must_use]
    pub fn new(kinds: &'static [PortKind]) -> Self {
        Self { kinds, pending: VecDeque::new() }
    }

    /// Takes a message of the driver.
    pub fn receive(&mut self, message: Control) -> Change {
        let index = usize::try_from(message.port).unwrap_or(usize::MAX);
        let Some(event) = [Event::DeviceReady, Event::PortReady, Event::PortOpen]
            .into_iter()
            .find(|event| *event as u16 == message.event)
        else {
            return Change::Misuse;
        };
        if event == Event::DeviceReady {
            if message.value == 1 {
                for port in 0..self.kinds.len() {
                    self.say(port, Event::PortAdd, 1, "");
                }
            }
            return Change::None;
        }
        match (event, self.kinds.get(index).copied()) {
            (_, None) => Change::Misuse,
            (Event::PortOpen, Some(_)) => Change::Opened(index, message.value != 0),
            (_, Some(kind)) if message.value == 1 => {
                if kind.console {
                    self.say(index, Event::ConsolePort, 1, "");
                } else {
                    self.say(index, Event::PortName, 1, kind.name);
                }
                self.say(index, Event::PortOpen, 1, "");
                Change::None
            }
            // The driver could not set the port up; there is nothing to take back.
            _ => Change::None,
        }
    }

    /// The next message for the driver.
    #[must_use]
    pub fn front(&self) -> Option<&[u8]> {
        self.pending.front().map(Vec::as_slice)
    }

    /// The message of [`Self::front`] is delivered.
    pub fn pop(&mut self) {
        self.pending.pop_front();
    }

    fn say(&mut self, port: usize, event: Event, value: u16, name: &str) {
        let Ok(port) = u32::try_from(port) else { return };
        if self.pending.len() < MAX_PENDING {
            let mut message = Vec::with_capacity(HEADER_BYTES.saturating_add(name.len()));
            message.extend(port.to_le_bytes());
            message.extend((event as u16).to_le_bytes());
            message.extend(value.to_le_bytes());
            message.extend(name.as_bytes());
            self.pending.push_back(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: &[PortKind] =
        &[PortKind { name: "console", console: true }, PortKind { name: "data", console: false }];

    fn drain(handshake: &mut Handshake) -> Vec<(u32, u16, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(message) = handshake.front() {
            let control = Control::parse(message).unwrap();
            all.push((control.port, control.event, message[HEADER_BYTES..].to_vec()));
            handshake.pop();
        }
        all
    }

    #[test]
    fn a_driver_learns_of_every_port() {
        let mut handshake = Handshake::new(KINDS);
        let say = |port, event, value| Control { port, event, value };
        assert_eq!(handshake.receive(say(u32::MAX, Event::DeviceReady as u16, 1)), Change::None);
        assert_eq!(drain(&mut handshake), [(0, 1, vec![]), (1, 1, vec![])]);
        assert_eq!(handshake.receive(say(0, Event::PortReady as u16, 1)), Change::None);
        assert_eq!(drain(&mut handshake), [(0, 4, vec![]), (0, 6, vec![])]);
        assert_eq!(handshake.receive(say(1, Event::PortReady as u16, 1)), Change::None);
        assert_eq!(drain(&mut handshake), [(1, 7, b"data".to_vec()), (1, 6, vec![])]);
        assert_eq!(handshake.receive(say(1, Event::PortOpen as u16, 1)), Change::Opened(1, true));
        assert_eq!(handshake.receive(say(1, Event::PortOpen as u16, 0)), Change::Opened(1, false));
    }

    #[test]
    fn a_flood_of_messages_stays_bounded() {
        let mut handshake = Handshake::new(KINDS);
        for _ in 0..10_000 {
            let _ = handshake.receive(Control { port: 1, event: 3, value: 1 });
        }
        assert_eq!(drain(&mut handshake).len(), MAX_PENDING);
    }

    #[test]
    fn unknown_ports_and_events_are_misuse() {
        let mut handshake = Handshake::new(KINDS);
        for (port, event) in [(2, 3), (u32::MAX, 6), (0, 1), (0, 99)] {
            assert_eq!(handshake.receive(Control { port, event, value: 1 }), Change::Misuse);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_message_is_taken(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..16)) {
            if let Some(control) = Control::parse(&bytes) {
                let _ = Handshake::new(KINDS).receive(control);
            }
        }
    }
}
