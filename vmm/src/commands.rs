//! Commands beside the workload as the VMM sees them: it relays what their clients and the guest's agent say to each
//! other, and lets neither exceed the credit that the other gave. Pure; the messages are [`proto::ToCommand`]'s and
//! [`proto::FromCommand`]'s.
//!
//! So a client that does not read, and a guest that floods, are bounded by a window each, and end nobody's command but
//! their own.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use proto::{FromCommand, MAX_COMMANDS, Message, ToCommand, WINDOW};
use std::collections::BTreeMap;

/// Bytes of frames for a client beside those of output: credit comes in frames as small as nine bytes.
const FRAMES_BYTES: usize = 64 << 10;

/// All commands of one guest.
#[derive(Debug, Default)]
pub struct Commands {
    all: BTreeMap<u32, Command>,
    last: u32,
}

#[derive(Debug)]
struct Command {
    /// Frames that its client has not taken.
    frames: Vec<u8>,
    /// Output that the guest may send.
    output: u32,
    /// Input that the client may send.
    input: u32,
    started: bool,
    /// Nothing more comes for its client.
    over: bool,
    /// The guest has said its last word, and has forgotten it.
    guest_is_done: bool,
}

/// The client sends what it was not allowed to: its command is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach;

impl Commands {
    /// Begins one and gives its number; nothing if there are too many.
    pub fn begin(&mut self) -> Option<u32> {
        if self.all.len() >= MAX_COMMANDS {
            return None;
        }
        // A number is used again after four thousand million commands, of which few are left.
        self.last = self.last.wrapping_add(1);
        let command = Command {
            frames: Vec::new(),
            output: WINDOW,
            input: WINDOW,
            started: false,
            over: false,
            guest_is_done: false,
        };
        self.all.insert(self.last, command);
        Some(self.last)
    }

    /// Takes what the guest says of one; false if it may not say that.
    pub fn from_guest(&mut self, id: u32, message: &FromCommand) -> bool {
        let Some(command) = self.all.get_mut(&id).filter(|command| !command.over) else { return false };
        let allowed = command.allows(message);
        command.guest_is_done = allowed && message.is_last();
        command.over = !allowed || command.guest_is_done;
        if allowed {
            message.encode(&mut command.frames);
        }
        allowed
    }

    /// Whether the client of one may say this now.
    ///
    /// # Errors
    /// It may not.
    pub fn from_client(&mut self, id: u32, message: &ToCommand) -> Result<(), Breach> {
        let command = self.all.get_mut(&id).ok_or(Breach)?;
        match message {
            ToCommand::Input(piece) => {
                command.input = command.input.checked_sub(piece.count()).ok_or(Breach)?;
            }
            ToCommand::Credit { bytes } => {
                let output = command.output.checked_add(*bytes).filter(|output| *output <= WINDOW);
                command.output = output.ok_or(Breach)?;
            }
            ToCommand::InputEnd | ToCommand::Resize(_) | ToCommand::Signal { .. } => {}
        }
        Ok(())
    }

    /// Frames for the client of one, once.
    pub fn take(&mut self, id: u32) -> Vec<u8> {
        self.all.get_mut(&id).map(|command| std::mem::take(&mut command.frames)).unwrap_or_default()
    }

    /// Whether nothing more will come for the client of one.
    #[must_use]
    pub fn is_over(&self, id: u32) -> bool {
        self.all.get(&id).is_none_or(|command| command.over)
    }

    /// Forgets one; true if the guest is to be told that nobody waits for it any more.
    pub fn end(&mut self, id: u32) -> bool {
        self.all.remove(&id).is_some_and(|command| !command.guest_is_done)
    }
}

impl Command {
    fn allows(&mut self, message: &FromCommand) -> bool {
        match message {
            FromCommand::Started { .. } => !std::mem::replace(&mut self.started, true),
            FromCommand::Failed { .. } => !self.started,
            FromCommand::Exited { .. } => self.started,
            FromCommand::Output { piece, .. } => match self.output.checked_sub(piece.count()) {
                // An empty piece costs no credit and still a frame.
                Some(left) if self.started && piece.count() > 0 => {
                    self.output = left;
                    true
                }
                _ => false,
            },
            FromCommand::Credit { bytes } => match self.input.checked_add(*bytes) {
                Some(input) if input <= WINDOW && self.frames.len() < FRAMES_BYTES.saturating_mul(2) => {
                    self.input = input;
                    *bytes > 0
                }
                _ => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::{Decoder, ExitStatus, OutputStream, Piece};

    fn output(bytes: usize) -> FromCommand {
        FromCommand::Output { stream: OutputStream::Stdout, piece: Piece::new(&vec![7; bytes]).unwrap() }
    }

    fn input(bytes: usize) -> ToCommand {
        ToCommand::Input(Piece::new(&vec![7; bytes]).unwrap())
    }

    const STARTED: FromCommand = FromCommand::Started { pid: 1 };
    const EXITED: FromCommand = FromCommand::Exited { status: ExitStatus::Code(3) };

    #[test]
    fn from_start_to_end() {
        let mut commands = Commands::default();
        let id = commands.begin().unwrap();
        for message in [STARTED, output(5), EXITED] {
            assert!(commands.from_guest(id, &message));
        }
        assert!(!commands.from_guest(id, &output(1)), "that was its last word");
        let frames = commands.take(id);
        let (mut rest, mut decoder) = (frames.as_slice(), Decoder::<FromCommand>::new());
        let decoded: Vec<_> = std::iter::from_fn(|| decoder.next(&mut rest).unwrap()).collect();
        assert_eq!(decoded, [STARTED, output(5), EXITED]);
        assert!(commands.is_over(id) && !commands.end(id), "the guest knows");
    }

    #[test]
    fn a_guest_beyond_its_credit_loses_its_command_only() {
        let mut commands = Commands::default();
        let (flooded, other) = (commands.begin().unwrap(), commands.begin().unwrap());
        commands.from_guest(flooded, &STARTED);
        commands.from_guest(other, &STARTED);
        let mut taken = 0;
        while commands.from_guest(flooded, &output(1000)) {
            taken += 1000;
        }
        assert!(taken <= WINDOW && taken > WINDOW - 1000);
        assert!(commands.is_over(flooded) && !commands.is_over(other));
        assert!(commands.end(flooded), "the guest is to kill it");
        assert!(!commands.from_guest(99, &STARTED));
        assert!(!commands.from_guest(other, &STARTED), "twice");
    }

    #[test]
    fn a_client_beyond_its_credit_is_caught() {
        let mut commands = Commands::default();
        let id = commands.begin().unwrap();
        for _ in 0..2 {
            assert_eq!(commands.from_client(id, &input(WINDOW as usize / 2)), Ok(()));
        }
        assert_eq!(commands.from_client(id, &input(1)), Err(Breach));
        commands.from_guest(id, &FromCommand::Credit { bytes: 5 });
        assert_eq!(commands.from_client(id, &input(5)), Ok(()));
        assert_eq!(
            commands.from_client(id, &ToCommand::Credit { bytes: 1 }),
            Err(Breach),
            "nothing was sent"
        );
    }

    #[test]
    fn there_are_only_so_many() {
        let mut commands = Commands::default();
        let all: Vec<_> = std::iter::from_fn(|| commands.begin()).collect();
        assert_eq!(all.len(), MAX_COMMANDS);
        assert!(commands.end(all[0]), "the guest is to kill it");
        assert!(commands.begin().is_some());
    }

    proptest! {
        /// Whatever both sides do, what is held is bounded.
        #[test]
        fn nothing_grows_without_bound(steps in prop::collection::vec((0u8..6, 0u32..40_000), 0..400)) {
            let mut commands = Commands::default();
            let id = commands.begin().unwrap();
            for (step, number) in steps {
                let bytes = number.min(30_000) as usize;
                match step {
                    0 => drop(commands.from_guest(id, &STARTED)),
                    1 => drop(commands.from_guest(id, &output(bytes))),
                    2 => drop(commands.from_guest(id, &FromCommand::Credit { bytes: number })),
                    3 => drop(commands.from_client(id, &input(bytes))),
                    4 => drop(commands.from_client(id, &ToCommand::Credit { bytes: number })),
                    _ => drop(commands.take(id)),
                }
                let held = commands.all.get(&id).unwrap();
                prop_assert!(held.output <= WINDOW && held.input <= WINDOW);
                prop_assert!(held.frames.len() <= (WINDOW << 3) as usize);
            }
        }
    }
}
