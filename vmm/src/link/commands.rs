//! Commands beside the workload, as their clients reach them over the link.

use super::{Link, MAX_OUTGOING, OrderError, State};
use crate::commands::Breach;
use proto::{Piece, ToCommand, ToGuest};

/// With so much waiting for the guest, clients of commands are not listened to: less than a message of each more is far
/// below [`MAX_OUTGOING`].
const CROWDED: usize = MAX_OUTGOING / 4;

impl Link {
    /// Begins a command beside the workload, and gives its number.
    ///
    /// # Errors
    /// The agent takes none now.
    pub fn begin_command(&mut self, spec: Piece) -> Result<u32, OrderError> {
        if self.state != State::Running {
            return Err(OrderError::NotRunning);
        }
        if self.is_full() {
            return Err(OrderError::Busy);
        }
        let id = self.commands.begin().ok_or(OrderError::Busy)?;
        self.say(&ToGuest::Begin { id, spec });
        Ok(id)
    }

    /// Passes on what the client of a command says.
    ///
    /// # Errors
    /// It may not say that, or the agent takes nothing any more.
    pub fn tell_command(&mut self, id: u32, message: ToCommand) -> Result<(), Breach> {
        self.commands.from_client(id, &message)?;
        if self.is_full() {
            return Err(Breach);
        }
        self.say(&ToGuest::Command { id, message });
        Ok(())
    }

    /// Frames for the client of a command, once.
    pub fn take_from_command(&mut self, id: u32) -> Vec<u8> {
        self.commands.take(id)
    }

    /// Whether nothing more will come for the client of a command.
    #[must_use]
    pub fn is_command_over(&self, id: u32) -> bool {
        self.state == State::Over || self.commands.is_over(id)
    }

    /// The client of a command is gone, or has its end.
    pub fn end_command(&mut self, id: u32) {
        if self.commands.end(id) {
            self.say(&ToGuest::Close { id });
        }
    }

    /// Whether the agent is so slow that clients of commands have to wait.
    pub fn is_crowded(&mut self) -> bool {
        self.crowded = self.outgoing.len() >= CROWDED.saturating_add(self.spec_bytes);
        self.crowded
    }

    /// Whether somebody waits because of [`Self::is_crowded`] and need not any longer; true once.
    pub fn has_room_again(&mut self) -> bool {
        self.crowded && !self.is_crowded()
    }
}
