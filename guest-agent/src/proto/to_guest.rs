//! What the host says to the agent.

use crate::MAX_FRAME;
use crate::command::{Piece, ToCommand};
use crate::frame::{Message, encode_frame};
use crate::order::Order;
use crate::spec::WindowSize;
use crate::wire::{Fault, FieldError, Reader, Writer, bad};

/// Longest piece of an encoded spec in one message, in bytes.
pub const MAX_CHUNK: usize = MAX_FRAME - 2;

/// A piece of an encoded spec, at most [`MAX_CHUNK`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk(Vec<u8>);

impl Chunk {
    /// `None` if the piece is too long.
    #[must_use]
    pub fn new(piece: &[u8]) -> Option<Self> {
        (piece.len() <= MAX_CHUNK).then(|| Self(piece.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One of the workload's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output; with a terminal, all of its output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A message of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGuest {
    /// The first message: the host's [`VERSION`](crate::VERSION).
    Hello {
        /// Must equal the agent's; the agent ends the run if it does not.
        version: u32,
    },
    /// A piece of the encoded [`Spec`](crate::Spec), in order.
    Spec {
        /// Whether it is the last piece. The workload starts then.
        last: bool,
        /// The piece.
        chunk: Chunk,
    },
    /// The user's terminal has a new size. Without a terminal it is ignored.
    Resize(WindowSize),
    /// A signal for the workload's main process.
    Signal {
        /// Its Linux number, 1 to 64.
        number: u8,
    },
    /// Standard input ends after this many bytes in total. More is never read from the port.
    InputEnd {
        /// All bytes that the host ever put into the port.
        bytes: u64,
    },
    /// Nobody on the host reads this output any more: the workload is to get SIGPIPE for it.
    OutputGone(OutputStream),
    /// Something to do, which [`ToHost::Done`](crate::ToHost::Done) answers. Only while the workload runs.
    Order {
        /// The order's number, which its answer repeats.
        id: u32,
        /// What to do.
        order: Order,
    },
    /// How often to sample, beside what is told at once.
    Pace {
        /// Milliseconds from one sample to the next.
        sample_ms: u32,
    },
    /// Begins a command beside the workload.
    Begin {
        /// The command's number, like no other's before.
        id: u32,
        /// An encoded [`CommandSpec`](crate::CommandSpec).
        spec: Piece,
    },
    /// Something for a command.
    Command {
        /// Its number.
        id: u32,
        /// What.
        message: ToCommand,
    },
    /// Nobody waits for a command any more: it is to be killed.
    Close {
        /// Its number.
        id: u32,
    },
}

const HELLO: u8 = 1;
const SPEC: u8 = 2;
const RESIZE: u8 = 3;
const SIGNAL: u8 = 4;
const INPUT_END: u8 = 5;
const OUTPUT_GONE: u8 = 6;
const ORDER: u8 = 7;
const PACE: u8 = 8;
const BEGIN: u8 = 40;
const COMMAND: u8 = 41;
const CLOSE: u8 = 42;

impl Message for ToGuest {
    fn decode(kind: u8, fields: &[u8]) -> Result<Option<Self>, FieldError> {
        let mut reader = Reader::new(fields);
        let message = match kind {
            HELLO => Self::Hello { version: reader.u32("version")? },
            SPEC => {
                let last = reader.bool("last")?;
                let chunk = Chunk::new(reader.rest()).ok_or(bad("chunk", Fault::OverLimit(MAX_CHUNK)))?;
                Self::Spec { last, chunk }
            }
            RESIZE => Self::Resize(WindowSize::read(&mut reader)?),
            SIGNAL => match reader.u8("number")? {
                number @ 1..=64 => Self::Signal { number },
                _ => return Err(bad("number", Fault::Invalid)),
            },
            INPUT_END => Self::InputEnd { bytes: reader.u64("bytes")? },
            OUTPUT_GONE => Self::OutputGone(match reader.u8("stream")? {
                1 => OutputStream::Stdout,
                2 => OutputStream::Stderr,
                _ => return Err(bad("stream", Fault::Invalid)),
            }),
            ORDER => Self::Order { id: reader.u32("id")?, order: Order::read(&mut reader)? },
            PACE => Self::Pace { sample_ms: reader.u32("sample_ms")? },
            BEGIN => {
                let id = reader.u32("id")?;
                Self::Begin { id, spec: Piece::read(&mut reader, "spec")? }
            }
            COMMAND => {
                let id = reader.u32("id")?;
                Self::Command { id, message: ToCommand::read_wrapped(&mut reader)? }
            }
            CLOSE => Self::Close { id: reader.u32("id")? },
            _ => return Ok(None),
        };
        reader.end("message")?;
        Ok(Some(message))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Hello { .. } => HELLO,
            Self::Spec { .. } => SPEC,
            Self::Resize(_) => RESIZE,
            Self::Signal { .. } => SIGNAL,
            Self::InputEnd { .. } => INPUT_END,
            Self::OutputGone(_) => OUTPUT_GONE,
            Self::Order { .. } => ORDER,
            Self::Pace { .. } => PACE,
            Self::Begin { .. } => BEGIN,
            Self::Command { .. } => COMMAND,
            Self::Close { .. } => CLOSE,
        };
        encode_frame(out, kind, |out| {
            let mut writer = Writer::new(out);
            match self {
                Self::Hello { version } => writer.u32(*version),
                Self::Spec { last, chunk } => {
                    writer.bool(*last);
                    writer.raw(chunk.as_bytes());
                }
                Self::Resize(size) => size.write(&mut writer),
                Self::Signal { number } => writer.u8(*number),
                Self::InputEnd { bytes } => writer.u64(*bytes),
                Self::OutputGone(OutputStream::Stdout) => writer.u8(1),
                Self::OutputGone(OutputStream::Stderr) => writer.u8(2),
                Self::Order { id, order } => {
                    writer.u32(*id);
                    order.write(&mut writer);
                }
                Self::Pace { sample_ms } => writer.u32(*sample_ms),
                Self::Begin { id, spec } => {
                    writer.u32(*id);
                    writer.raw(spec.as_bytes());
                }
                Self::Command { id, message } => {
                    writer.u32(*id);
                    message.write_wrapped(&mut writer);
                }
                Self::Close { id } => writer.u32(*id),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decoder;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = ToGuest> {
        let size = (any::<u16>(), any::<u16>()).prop_map(|(rows, cols)| WindowSize { rows, cols });
        prop_oneof![
            any::<u32>().prop_map(|version| ToGuest::Hello { version }),
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..2000))
                .prop_map(|(last, piece)| ToGuest::Spec { last, chunk: Chunk::new(&piece).unwrap() }),
            size.prop_map(ToGuest::Resize),
            (1u8..=64).prop_map(|number| ToGuest::Signal { number }),
            any::<u64>().prop_map(|bytes| ToGuest::InputEnd { bytes }),
            prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)].prop_map(ToGuest::OutputGone),
            (any::<u32>(), crate::order::tests::order()).prop_map(|(id, order)| ToGuest::Order { id, order }),
            any::<u32>().prop_map(|sample_ms| ToGuest::Pace { sample_ms }),
            (any::<u32>(), prop::collection::vec(any::<u8>(), 0..2000))
                .prop_map(|(id, spec)| ToGuest::Begin { id, spec: Piece::new(&spec).unwrap() }),
            (any::<u32>(), crate::command::tests::to_command())
                .prop_map(|(id, message)| ToGuest::Command { id, message }),
            any::<u32>().prop_map(|id| ToGuest::Close { id }),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(message in message()) {
            let mut frame = Vec::new();
            message.encode(&mut frame);
            prop_assert_eq!(Decoder::new().next(&mut frame.as_slice()), Ok(Some(message)));
        }

        /// Whatever is accepted has one encoding only.
        #[test]
        fn accepted_bytes_are_canonical(kind in prop_oneof![0u8..12, 38u8..44], fields in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some(message)) = ToGuest::decode(kind, &fields) {
                let mut frame = Vec::new();
                message.encode(&mut frame);
                prop_assert_eq!(frame.get(5..), Some(fields.as_slice()));
            }
        }
    }

    #[test]
    fn the_largest_chunk_fits_its_frame() {
        let chunk = Chunk::new(&vec![1; MAX_CHUNK]).unwrap();
        assert_eq!(Chunk::new(&vec![1; MAX_CHUNK + 1]), None);
        let message = ToGuest::Spec { last: true, chunk };
        let mut frame = Vec::new();
        message.encode(&mut frame);
        assert_eq!(Decoder::new().next(&mut frame.as_slice()), Ok(Some(message)));
    }

    #[test]
    fn stray_bytes_are_malformed() {
        assert_eq!(ToGuest::decode(SIGNAL, &[9, 9]), Err(bad("message", Fault::Trailing)));
        assert_eq!(ToGuest::decode(SIGNAL, &[65]), Err(bad("number", Fault::Invalid)));
        assert_eq!(ToGuest::decode(HELLO, &[1]), Err(bad("version", Fault::Truncated)));
    }
}
