//! The ports every microVM's console has, and where their queues lie. Pure.

use super::control::PortKind;

/// One of the console's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Port {
    /// The kernel's messages (`hvc0`).
    Kernel = 0,
    /// The agent's frames.
    Link = 1,
    /// The workload's standard input.
    Stdin = 2,
    /// The workload's standard output, or its terminal's.
    Stdout = 3,
    /// The workload's standard error.
    Stderr = 4,
}

/// What the guest is told of each port, in the order of [`Port`].
pub const KINDS: &[PortKind] = &[
    PortKind { name: "ballast.kernel", console: true },
    PortKind { name: proto::LINK_PORT, console: false },
    PortKind { name: proto::STDIN_PORT, console: false },
    PortKind { name: proto::STDOUT_PORT, console: false },
    PortKind { name: proto::STDERR_PORT, console: false },
];

/// Queues of the device: two a port and two for control messages.
pub const QUEUES: usize = 2 * (KINDS.len() + 1);

/// What a queue carries (virtio 1.3, 5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Buffers for data to the guest on this port.
    Receive(usize),
    /// Data from the guest on this port.
    Transmit(usize),
    /// Buffers for control messages to the guest.
    ControlReceive,
    /// Control messages from the guest.
    ControlTransmit,
}

/// The role of queue `index`.
#[must_use]
pub fn role(index: usize) -> Option<Role> {
    let (pair, transmit) = (index / 2, index % 2 == 1);
    Some(match (pair, transmit) {
        (0, false) => Role::Receive(0),
        (0, true) => Role::Transmit(0),
        (1, false) => Role::ControlReceive,
        (1, true) => Role::ControlTransmit,
        (port, _) if port > KINDS.len() => return None,
        (port, false) => Role::Receive(port - 1),
        (port, true) => Role::Transmit(port - 1),
    })
}

/// The queue with data to the guest on `port`.
#[must_use]
pub fn receive_queue(port: usize) -> usize {
    if port == 0 { 0 } else { 2 * (port + 1) }
}

/// The queue with data from the guest on `port`.
#[must_use]
pub fn transmit_queue(port: usize) -> usize {
    receive_queue(port) + 1
}

/// The queue with control messages to the guest.
pub const CONTROL_RECEIVE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_lie_where_the_specification_says() {
        let roles: Vec<_> = (0..8).map(|index| role(index).unwrap()).collect();
        use Role::*;
        assert_eq!(
            roles,
            [
                Receive(0),
                Transmit(0),
                ControlReceive,
                ControlTransmit,
                Receive(1),
                Transmit(1),
                Receive(2),
                Transmit(2)
            ]
        );
        assert_eq!(role(QUEUES), None);
        for port in 0..KINDS.len() {
            assert_eq!(role(receive_queue(port)), Some(Receive(port)));
            assert_eq!(role(transmit_queue(port)), Some(Transmit(port)));
        }
    }
}
