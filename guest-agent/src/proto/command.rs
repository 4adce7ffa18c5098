//! Commands beside the workload: what passes between whoever started one and the agent.
//!
//! The same messages go over two hops. Between a client and the VMM each is a frame of its own; on the agent link they
//! are wrapped with the command's number. Data flows against credit: either side may send [`WINDOW`] bytes, and as many
//! more as the other has said it is done with. So nobody has to hold more than that of one command, and one whose
//! reader is slow keeps no other waiting.

use std::ffi::CString;

use crate::frame::{Message, encode_frame};
use crate::spec::{MAX_STRINGS, WindowSize};
use crate::status::{ExitStatus, FailureKind};
use crate::to_guest::OutputStream;
use crate::wire::{Fault, FieldError, Reader, Writer, bad};
use crate::{MAX_STRING, Text};

/// Most commands at a time in one guest.
pub const MAX_COMMANDS: usize = 8;
/// Bytes of input, and of both outputs together, that may be on their way without credit.
pub const WINDOW: u32 = 64 * 1024;
/// Longest [`Piece`], in bytes.
pub const MAX_PIECE: usize = 32 * 1024;

const MAX_USER: usize = 256;

/// Bytes of a stream, or an encoded [`CommandSpec`]: at most [`MAX_PIECE`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece(Vec<u8>);

impl Piece {
    /// `None` if it is too long.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX_PIECE).then(|| Self(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, FieldError> {
        Self::new(reader.rest()).ok_or(bad(field, Fault::OverLimit(MAX_PIECE)))
    }
}

/// A command to run beside the workload. What is empty is as it is for the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program and its arguments; at least one.
    pub args: Vec<CString>,
    /// `NAME=value`, in addition to the workload's or instead of it.
    pub env: Vec<CString>,
    /// Absolute working directory; empty for the workload's.
    pub cwd: CString,
    /// As of [`Spec::user`](crate::Spec); empty for the workload's.
    pub user: String,
    /// A terminal of this size instead of three pipes.
    pub tty: Option<WindowSize>,
    /// The zone whose memory it uses; `None` is the workload's.
    pub zone: Option<u8>,
}

impl CommandSpec {
    /// As the agent takes it.
    ///
    /// # Errors
    /// A field over its limit, or all of them together over [`MAX_PIECE`].
    pub fn encode(&self) -> Result<Piece, FieldError> {
        self.check()?;
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.list("args", &self.args, MAX_STRINGS, |w, arg| w.c_str("args", arg, MAX_STRING))?;
        writer.list("env", &self.env, MAX_STRINGS, |w, var| w.c_str("env", var, MAX_STRING))?;
        writer.c_str("cwd", &self.cwd, MAX_STRING)?;
        writer.bytes("user", self.user.as_bytes(), MAX_USER)?;
        writer.option(self.tty, |w, size| size.write(w));
        writer.option(self.zone, Writer::u8);
        Piece::new(&out).ok_or(bad("args", Fault::OverLimit(MAX_PIECE)))
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// The first field that is not as [`CommandSpec`] describes it.
    pub fn decode(piece: &Piece) -> Result<Self, FieldError> {
        let mut reader = Reader::new(piece.as_bytes());
        let spec = Self {
            args: reader.list("args", MAX_STRINGS, |r| r.c_string("args", MAX_STRING))?,
            env: reader.list("env", MAX_STRINGS, |r| r.c_string("env", MAX_STRING))?,
            cwd: reader.c_string("cwd", MAX_STRING)?,
            user: reader.str("user", MAX_USER)?.to_owned(),
            tty: reader.option("tty", WindowSize::read)?,
            zone: reader.option("zone", |r| r.u8("zone"))?,
        };
        reader.end("command")?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), FieldError> {
        let ensure = |good: bool, field| if good { Ok(()) } else { Err(bad(field, Fault::Invalid)) };
        ensure(self.args.first().is_some_and(|program| !program.is_empty()), "args")?;
        let is_variable = |var: &CString| matches!(var.as_bytes().iter().position(|b| *b == b'='), Some(1..));
        ensure(self.env.iter().all(is_variable), "env")?;
        ensure(self.cwd.is_empty() || self.cwd.as_bytes().first() == Some(&b'/'), "cwd")?;
        ensure(!self.user.contains(|c: char| c.is_control()), "user")
    }
}

/// What whoever started a command says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToCommand {
    /// Standard input.
    Input(Piece),
    /// Standard input has ended.
    InputEnd,
    /// Its terminal has a new size.
    Resize(WindowSize),
    /// A signal for its process.
    Signal {
        /// Its Linux number, 1 to 64.
        number: u8,
    },
    /// So many bytes of output are done with.
    Credit {
        /// More of them may be sent.
        bytes: u32,
    },
}

/// What a command says to whoever started it. `Failed` and `Exited` are its last words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromCommand {
    /// Its program was executed.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// It could not be started.
    Failed {
        /// What kind of failure it was.
        kind: FailureKind,
        /// What was being done, and what went wrong.
        message: Text,
    },
    /// Its output.
    Output {
        /// On which stream.
        stream: OutputStream,
        /// The bytes.
        piece: Piece,
    },
    /// So many bytes of input are done with.
    Credit {
        /// More of them may be sent.
        bytes: u32,
    },
    /// It ended, and all of its output was sent.
    Exited {
        /// How.
        status: ExitStatus,
    },
}

const INPUT: u8 = 1;
const INPUT_END: u8 = 2;
const RESIZE: u8 = 3;
const SIGNAL: u8 = 4;
const CREDIT: u8 = 5;

const STARTED: u8 = 1;
const FAILED: u8 = 2;
const STDOUT: u8 = 3;
const STDERR: u8 = 4;
const EXITED: u8 = 6;

impl Message for ToCommand {
    fn decode(kind: u8, fields: &[u8]) -> Result<Option<Self>, FieldError> {
        let mut reader = Reader::new(fields);
        let message = match kind {
            INPUT => Self::Input(Piece::read(&mut reader, "input")?),
            INPUT_END => Self::InputEnd,
            RESIZE => Self::Resize(WindowSize::read(&mut reader)?),
            SIGNAL => match reader.u8("number")? {
                number @ 1..=64 => Self::Signal { number },
                _ => return Err(bad("number", Fault::Invalid)),
            },
            CREDIT => Self::Credit { bytes: reader.u32("bytes")? },
            _ => return Ok(None),
        };
        reader.end("message")?;
        Ok(Some(message))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_frame(out, self.kind(), |out| self.write(&mut Writer::new(out)));
    }
}

impl ToCommand {
    const fn kind(&self) -> u8 {
        match self {
            Self::Input(_) => INPUT,
            Self::InputEnd => INPUT_END,
            Self::Resize(_) => RESIZE,
            Self::Signal { .. } => SIGNAL,
            Self::Credit { .. } => CREDIT,
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Input(piece) => writer.raw(piece.as_bytes()),
            Self::InputEnd => {}
            Self::Resize(size) => size.write(writer),
            Self::Signal { number } => writer.u8(*number),
            Self::Credit { bytes } => writer.u32(*bytes),
        }
    }

    /// Within a message of the link: its kind, then its fields to the end.
    pub(crate) fn read_wrapped(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let kind = reader.u8("command")?;
        Self::decode(kind, reader.rest())?.ok_or(bad("command", Fault::Invalid))
    }

    pub(crate) fn write_wrapped(&self, writer: &mut Writer<'_>) {
        writer.u8(self.kind());
        self.write(writer);
    }
}

impl Message for FromCommand {
    fn decode(kind: u8, fields: &[u8]) -> Result<Option<Self>, FieldError> {
        let mut reader = Reader::new(fields);
        let mut output = |stream| Ok(Self::Output { stream, piece: Piece::read(&mut reader, "output")? });
        let message = match kind {
            STDOUT => output(OutputStream::Stdout)?,
            STDERR => output(OutputStream::Stderr)?,
            STARTED => Self::Started { pid: reader.u32("pid")? },
            FAILED => Self::Failed {
                kind: FailureKind::read(&mut reader)?,
                message: Text::read(&mut reader, "message")?,
            },
            CREDIT => Self::Credit { bytes: reader.u32("bytes")? },
            EXITED => Self::Exited { status: ExitStatus::read(&mut reader)? },
            _ => return Ok(None),
        };
        reader.end("message")?;
        Ok(Some(message))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_frame(out, self.kind(), |out| self.write(&mut Writer::new(out)));
    }
}

impl FromCommand {
    const fn kind(&self) -> u8 {
        match self {
            Self::Started { .. } => STARTED,
            Self::Failed { .. } => FAILED,
            Self::Output { stream: OutputStream::Stdout, .. } => STDOUT,
            Self::Output { stream: OutputStream::Stderr, .. } => STDERR,
            Self::Credit { .. } => CREDIT,
            Self::Exited { .. } => EXITED,
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Started { pid } => writer.u32(*pid),
            Self::Failed { kind, message } => {
                writer.u8(kind.shell_code());
                message.write(writer);
            }
            Self::Output { piece, .. } => writer.raw(piece.as_bytes()),
            Self::Credit { bytes } => writer.u32(*bytes),
            Self::Exited { status } => status.write(writer),
        }
    }

    /// Whether nothing can follow it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Exited { .. })
    }

    pub(crate) fn read_wrapped(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let kind = reader.u8("command")?;
        Self::decode(kind, reader.rest())?.ok_or(bad("command", Fault::Invalid))
    }

    pub(crate) fn write_wrapped(&self, writer: &mut Writer<'_>) {
        writer.u8(self.kind());
        self.write(writer);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Decoder;
    use proptest::prelude::*;

    fn piece() -> impl Strategy<Value = Piece> {
        prop::collection::vec(any::<u8>(), 0..500).prop_map(|bytes| Piece::new(&bytes).unwrap())
    }

    pub(crate) fn to_command() -> impl Strategy<Value = ToCommand> {
        prop_oneof![
            piece().prop_map(ToCommand::Input),
            Just(ToCommand::InputEnd),
            any::<(u16, u16)>().prop_map(|(rows, cols)| ToCommand::Resize(WindowSize { rows, cols })),
            (1u8..=64).prop_map(|number| ToCommand::Signal { number }),
            any::<u32>().prop_map(|bytes| ToCommand::Credit { bytes }),
        ]
    }

    pub(crate) fn from_command() -> impl Strategy<Value = FromCommand> {
        let stream = prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)];
        prop_oneof![
            any::<u32>().prop_map(|pid| FromCommand::Started { pid }),
            "(?s).{0,60}".prop_map(|message| FromCommand::Failed {
                kind: FailureKind::NotFound,
                message: Text::new(&message),
            }),
            (stream, piece()).prop_map(|(stream, piece)| FromCommand::Output { stream, piece }),
            any::<u32>().prop_map(|bytes| FromCommand::Credit { bytes }),
            any::<u8>().prop_map(|code| FromCommand::Exited { status: ExitStatus::Code(code) }),
        ]
    }

    proptest! {
        #[test]
        fn round_trips(to in to_command(), from in from_command()) {
            let (mut there, mut back) = (Vec::new(), Vec::new());
            to.encode(&mut there);
            from.encode(&mut back);
            prop_assert_eq!(Decoder::new().next(&mut there.as_slice()), Ok(Some(to)));
            prop_assert_eq!(Decoder::new().next(&mut back.as_slice()), Ok(Some(from)));
        }

        #[test]
        fn accepted_bytes_are_canonical(kind in 0u8..8, fields in prop::collection::vec(any::<u8>(), 0..40)) {
            let again = |encode: &dyn Fn(&mut Vec<u8>)| {
                let mut frame = Vec::new();
                encode(&mut frame);
                frame.get(5..).map(<[u8]>::to_vec)
            };
            if let Ok(Some(message)) = ToCommand::decode(kind, &fields) {
                prop_assert_eq!(again(&|out| message.encode(out)), Some(fields.clone()));
            }
            if let Ok(Some(message)) = FromCommand::decode(kind, &fields)
                && !matches!(message, FromCommand::Failed { .. })
            {
                prop_assert_eq!(again(&|out| message.encode(out)), Some(fields.clone()));
            }
        }

        #[test]
        fn any_bytes_are_no_fault(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = CommandSpec::decode(&Piece::new(&bytes).unwrap());
        }
    }

    #[test]
    fn a_command_round_trips_and_has_a_program() {
        let spec = CommandSpec {
            args: vec![c"sh".into(), c"".into()],
            env: vec![c"A=b".into()],
            cwd: c"/srv".into(),
            user: "app:1".into(),
            tty: Some(WindowSize { rows: 24, cols: 80 }),
            zone: Some(1),
        };
        assert_eq!(CommandSpec::decode(&spec.encode().unwrap()), Ok(spec.clone()));
        let long = CString::new(vec![b'x'; MAX_PIECE]).unwrap();
        for bad in [
            CommandSpec { args: Vec::new(), ..spec.clone() },
            CommandSpec { args: vec![c"".into()], ..spec.clone() },
            CommandSpec { env: vec![c"=b".into()], ..spec.clone() },
            CommandSpec { cwd: c"srv".into(), ..spec.clone() },
            CommandSpec { args: vec![long], ..spec.clone() },
        ] {
            assert!(bad.encode().is_err(), "{bad:?}");
        }
    }
}
