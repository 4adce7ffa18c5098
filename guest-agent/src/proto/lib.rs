//! What the agent in the guest and the VMM on the host say to each other.
//!
//! The library owns the byte format of the agent link (virtio-console port [`LINK_PORT`]) and nothing else:
//! no file descriptors, no clocks, no threads. The agent and the VMM both feed it bytes and act on what it
//! yields. Each side takes the other for hostile: every length is bounded before memory is taken for it, and
//! no input makes a function here panic.
//!
//! # Order of messages
//!
//! Neither side waits for the other before it speaks:
//!
//! ```text
//! host  -> guest   Hello, Spec*            then Resize, Signal, InputEnd, OutputGone, Order, Pace in any order
//! guest -> host    Hello, Milestone*       then Started, then Done for each Order, then Exited
//!                                          or Failed, if the workload could not be started
//! ```
//!
//! While the workload runs the host may begin commands beside it: `Begin`, then `Command` messages in both directions
//! until the guest's `Failed` or `Exited` in one of them, or the host's `Close`.
//!
//! `Notice`, `Milestone` and `InputGone` may stand anywhere after the guest's `Hello`; `Capabilities` and, where the
//! spec wants them, `Sample`s after `Started`. `Exited` and `Failed` are the last words of the guest: an `Order` that
//! has no `Done` then gets none. The streams of the workload go over ports of their own, so what is said here about
//! them carries byte counts and holds whichever queue the host looks at first.
//!
//! # What the host does
//!
//! - It opens its side of all four ports (`VIRTIO_CONSOLE_PORT_OPEN`), and puts no byte into a port before
//!   the guest opened it: the guest's driver would drop it. It closes the link only to end the run.
//! - It sends `InputEnd` once the input ended, at once if there is none. With a terminal that nobody types
//!   into it sends none: the end of the input would be typed into it.
//! - After `Exited` it takes as many bytes from the output ports as were announced, and then ends the machine.
//!   The guest powers itself off 10 s later; what is in the queues then is still to be taken from there.

#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod command;
mod frame;
mod order;
mod sample;
mod spec;
mod status;
mod text;
mod to_guest;
mod to_host;
mod ulimit;
mod wire;

pub use command::{CommandSpec, FromCommand, MAX_COMMANDS, MAX_PIECE, Piece, ToCommand, WINDOW};
pub use frame::{DecodeError, Decoder, MAX_FRAME, Message};
pub use order::{Done, MAX_ORDERS, ORDER_LIMIT_S, Order, ReclaimKind, Reclaimed, Stopped, Trimmed};
pub use sample::{Age, Capabilities, Cause, Counters, MAX_AGES, Sample, Sizes};
pub use spec::{
    MAX_LAYERS, MAX_SERIAL, MAX_SPEC, MAX_STRING, MAX_STRINGS, MAX_VOLUMES, Spec, SpecBuffer, SpecError,
    UNDESCRIBED_ROOT, Volume, WindowSize, encode_chunks,
};
pub use status::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_SETUP, ExitStatus, FailureKind};
pub use text::{MAX_TEXT, Text};
pub use to_guest::{Chunk, MAX_CHUNK, OutputStream, ToGuest};
pub use to_host::{Milestone, ToHost};
pub use ulimit::{Resource, Ulimit};
pub use wire::{Fault, FieldError};

/// Version of everything in this library. The two sides of a VM are packed together, so they must be equal:
/// any change of the format raises it.
pub const VERSION: u32 = 5;

/// Name of the virtio-console port that carries the frames.
pub const LINK_PORT: &str = "ballast.agent";
/// Name of the port that carries the workload's standard input, host to guest.
pub const STDIN_PORT: &str = "ballast.stdin";
/// Name of the port that carries the workload's standard output, or all of its terminal's output.
pub const STDOUT_PORT: &str = "ballast.stdout";
/// Name of the port that carries the workload's standard error; silent with a terminal.
pub const STDERR_PORT: &str = "ballast.stderr";
