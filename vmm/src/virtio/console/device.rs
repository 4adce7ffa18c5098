//! The multiport console as a device: moves bytes between virtqueues and two bounded buffers a port. Pure.
//!
//! Back-pressure is the buffers' bound: when the host does not take a port's output, its buffers stay in the
//! queue and the guest's writer waits; when the guest gives no buffers, input waits on the host.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::control::{Change, Control, HEADER_BYTES, Handshake};
use super::ports::{self, KINDS, QUEUES, Role};
use crate::virtio::buffers::{self, Buffer, Buffers};
use crate::virtio::config_space;
use crate::virtio::device::{BrokenQueue, Device, Effects, Memory};
use crate::virtio::queue::{Chain, Outcome, drain};
use std::collections::VecDeque;
use virtio_queue::Queue;

const VIRTIO_ID_CONSOLE: u32 = 3;
const VIRTIO_CONSOLE_F_MULTIPORT: u64 = 1 << 1;
/// Bytes that a port holds for each direction.
pub const BUFFER_BYTES: usize = 64 << 10;
/// Of queues that a port's writer fills.
const QUEUE_SIZE: u16 = 64;
/// Linux fills every receive queue with a page a descriptor, and keeps them: of what comes to the guest so many take as much
/// as a port holds here.
const RECEIVE_SIZE: u16 = 16;
/// Nothing comes to ports that only the guest writes to, but Linux wants a buffer for it.
const UNUSED_SIZE: u16 = 2;
/// In the order of the queues ([`ports::role`]): kernel, control messages, link, input, output, errors.
const QUEUE_SIZES: [u16; QUEUES] = [
    UNUSED_SIZE,
    QUEUE_SIZE,
    RECEIVE_SIZE,
    QUEUE_SIZE,
    RECEIVE_SIZE,
    QUEUE_SIZE,
    RECEIVE_SIZE,
    QUEUE_SIZE,
    UNUSED_SIZE,
    QUEUE_SIZE,
    UNUSED_SIZE,
    QUEUE_SIZE,
];
/// Requests served in one pass of the event loop.
const BUDGET: usize = QUEUE_SIZE as usize;

/// What the driver did that no correct driver does, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misuse {
    /// Descriptor chains that are malformed or have no bytes of the needed direction.
    pub chain: u64,
    /// Control messages without sense.
    pub control: u64,
}

#[derive(Debug, Default)]
struct PortState {
    open: bool,
    to_guest: VecDeque<u8>,
    from_guest: VecDeque<u8>,
    /// Bytes already taken from the chain at the head of the transmit queue.
    taken: usize,
}

/// The console.
#[derive(Debug)]
pub struct Console {
    ports: [PortState; KINDS.len()],
    handshake: Handshake,
    buffers: Buffers,
    misuse: Misuse,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            ports: Default::default(),
            handshake: Handshake::new(KINDS),
            buffers: Buffers::default(),
            misuse: Misuse::default(),
        }
    }
}

impl Console {
    /// What the driver did wrong since the machine started.
    #[must_use]
    pub fn misuse(&self) -> Misuse {
        self.misuse
    }

    /// Bytes that [`Self::send`] would take for `port` now: none before the guest opened it.
    #[must_use]
    pub fn room(&self, port: usize) -> usize {
        match self.ports.get(port) {
            Some(state) if state.open => BUFFER_BYTES.saturating_sub(state.to_guest.len()),
            _ => 0,
        }
    }

    /// Takes as much of `bytes` for the guest as there is room; returns how much. Serve the port's
    /// [receive queue](ports::receive_queue) afterwards.
    pub fn send(&mut self, port: usize, bytes: &[u8]) -> usize {
        let accepted = bytes.len().min(self.room(port));
        if let (Some(state), Some(bytes)) = (self.ports.get_mut(port), bytes.get(..accepted)) {
            state.to_guest.extend(bytes);
        }
        accepted
    }

    /// What the guest wrote to `port` and nobody took yet; the front bytes are in the first slice.
    #[must_use]
    pub fn output(&self, port: usize) -> (&[u8], &[u8]) {
        self.ports.get(port).map_or((&[], &[]), |state| state.from_guest.as_slices())
    }

    /// The first `bytes` of [`Self::output`] are dealt with. Serve the port's
    /// [transmit queue](ports::transmit_queue) afterwards.
    pub fn consume(&mut self, port: usize, bytes: usize) {
        if let Some(state) = self.ports.get_mut(port) {
            let bytes = bytes.min(state.from_guest.len());
            state.from_guest.drain(..bytes);
        }
    }

    /// Copies from the guest until the port's buffer is full or the queue empty.
    fn transmit(&mut self, port: usize, pass: Pass<'_>) -> Result<Effects, BrokenQueue> {
        let Self { ports, buffers, misuse, .. } = self;
        let Some(state) = ports.get_mut(port) else { return Ok(Effects::default()) };
        pass.drain(|chain, memory| {
            match take(collected(buffers, chain).readable(), memory, state) {
                Some(Taken::Part) => return Outcome::Keep,
                Some(Taken::All) => {}
                None => count(&mut misuse.chain),
            }
            state.taken = 0;
            Outcome::Used(0)
        })
    }

    /// Copies to the guest until the port's buffer or the queue is empty.
    fn receive(&mut self, port: usize, pass: Pass<'_>) -> Result<Effects, BrokenQueue> {
        let Self { ports, buffers, misuse, .. } = self;
        let Some(state) = ports.get_mut(port) else { return Ok(Effects::default()) };
        pass.drain(|chain, memory| {
            if state.to_guest.is_empty() {
                return Outcome::Keep;
            }
            let written = give(collected(buffers, chain).writable(), memory, state.to_guest.as_slices());
            if written == 0 {
                count(&mut misuse.chain);
            }
            state.to_guest.drain(..written.min(state.to_guest.len()));
            Outcome::Used(u32::try_from(written).unwrap_or(0))
        })
    }

    fn control_transmit(&mut self, pass: Pass<'_>) -> Result<Effects, BrokenQueue> {
        pass.drain(|chain, memory| {
            let mut bytes = [0; HEADER_BYTES];
            let readable = collected(&mut self.buffers, chain).readable();
            let read = buffers::read(memory, readable, 0, &mut bytes).then_some(bytes);
            match read.and_then(|bytes| Control::parse(&bytes)).map(|control| self.handshake.receive(control))
            {
                Some(Change::None) => {}
                Some(Change::Opened(port, open)) => self.set_open(port, open),
                Some(Change::Misuse) | None => count(&mut self.misuse.control),
            }
            Outcome::Used(0)
        })
    }

    fn control_receive(&mut self, pass: Pass<'_>) -> Result<Effects, BrokenQueue> {
        pass.drain(|chain, memory| {
            let Some(message) = self.handshake.front() else { return Outcome::Keep };
            let written = give(collected(&mut self.buffers, chain).writable(), memory, (message, &[]));
            if written < message.len() {
                // A driver whose buffer is too small for a message cannot get it: the message is lost to it.
                count(&mut self.misuse.chain);
            }
            self.handshake.pop();
            Outcome::Used(u32::try_from(written).unwrap_or(0))
        })
    }

    fn set_open(&mut self, port: usize, open: bool) {
        if let Some(state) = self.ports.get_mut(port) {
            state.open = open;
            if !open {
                // The guest's reader is gone and nobody else will read this.
                state.to_guest.clear();
            }
        }
    }

    fn serve_one(&mut self, pass: Pass<'_>) -> Result<Effects, BrokenQueue> {
        match ports::role(pass.index) {
            Some(Role::Receive(port)) => self.receive(port, pass),
            Some(Role::Transmit(port)) => self.transmit(port, pass),
            Some(Role::ControlReceive) => self.control_receive(pass),
            Some(Role::ControlTransmit) => self.control_transmit(pass),
            None => Ok(Effects::default()),
        }
    }
}

/// One pass over one queue.
struct Pass<'a> {
    index: usize,
    queue: &'a mut Queue,
    memory: &'a Memory,
}

impl<'a> Pass<'a> {
    fn drain(self, mut serve: impl FnMut(Chain<'a>, &Memory) -> Outcome) -> Result<Effects, BrokenQueue> {
        drain(self.index, self.queue, self.memory, BUDGET, |chain| serve(chain, self.memory))
    }
}

fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

enum Taken {
    All,
    Part,
}

/// The buffers of a chain: none of a malformed one, and no queue is longer than `QUEUE_SIZE`.
fn collected<'a>(buffers: &'a mut Buffers, chain: Chain<'_>) -> &'a Buffers {
    // Whoever looks into it finds nothing, and counts that.
    let _ = buffers.collect(chain, usize::from(QUEUE_SIZE));
    buffers
}

/// Moves what fits from a chain's buffers into the port's output; nothing if there is nothing in them, or not in memory.
fn take(readable: &[Buffer], memory: &Memory, state: &mut PortState) -> Option<Taken> {
    let total = usize::try_from(buffers::total(readable)).ok().filter(|&total| total > 0)?;
    let left = total.checked_sub(state.taken)?;
    let room = BUFFER_BYTES.saturating_sub(state.from_guest.len());
    let wanted = left.min(room);
    let before = state.from_guest.len();
    state.from_guest.resize(before.saturating_add(wanted), 0);
    let target = state.from_guest.make_contiguous().get_mut(before..)?;
    if !buffers::read(memory, readable, u32::try_from(state.taken).ok()?, target) {
        state.from_guest.truncate(before);
        return None;
    }
    state.taken = state.taken.saturating_add(wanted);
    Some(if wanted == left { Taken::All } else { Taken::Part })
}

/// Writes as much of the two slices as fits into a chain's buffers; returns how much: nothing if they are not in memory.
fn give(writable: &[Buffer], memory: &Memory, (first, second): (&[u8], &[u8])) -> usize {
    let room = usize::try_from(buffers::total(writable)).unwrap_or(usize::MAX);
    let (first, _) = first.split_at(first.len().min(room));
    let (second, _) = second.split_at(second.len().min(room.saturating_sub(first.len())));
    // A port holds far less than 4 GiB.
    let offset = u32::try_from(first.len()).unwrap_or(u32::MAX);
    let written =
        buffers::write(memory, writable, 0, first) && buffers::write(memory, writable, offset, second);
    if written { first.len().saturating_add(second.len()) } else { 0 }
}

impl Device for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        VIRTIO_CONSOLE_F_MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // cols and rows (u16 each, only with F_SIZE), max_nr_ports (u32), emerg_wr (u32, only with its feature).
        let mut config = [0; 12];
        if let Some(field) = config.get_mut(4..8) {
            field.copy_from_slice(&u32::try_from(KINDS.len()).unwrap_or(1).to_le_bytes());
        }
        config_space::read(&config, offset, data);
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {
        *self = Self { misuse: self.misuse, ..Self::default() };
    }

    fn serve(&mut self, index: usize, queues: &mut [Queue], memory: &Memory) -> Result<Effects, BrokenQueue> {
        let mut serve = |index: usize| match queues.get_mut(index) {
            Some(queue) => self.serve_one(Pass { index, queue, memory }),
            None => Ok(Effects::default()),
        };
        let effects = serve(index)?;
        // A control message of the driver is answered at once.
        if ports::role(index) == Some(Role::ControlTransmit) {
            return Ok(effects.and(serve(ports::CONTROL_RECEIVE)?));
        }
        Ok(effects)
    }
}
