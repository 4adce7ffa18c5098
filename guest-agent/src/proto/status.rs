//! How a run ended, and what a shell makes of it.
//!
//! Pure. The agent reports these; the VMM passes them on and the command line turns them into its own exit
//! code, with the meanings of docker and of POSIX shells.

use crate::wire::{Fault, FieldError, Reader, Writer, bad};

/// Exit code when Ballast, not the workload, failed.
pub const EXIT_SETUP: u8 = 125;
/// Exit code when the workload's program is there and cannot be executed.
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
/// Exit code when the workload's program is not there.
pub const EXIT_NOT_FOUND: u8 = 127;

/// How the workload's main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// It was killed by this signal (1 to 64).
    Signal(u8),
}

impl ExitStatus {
    /// The code that a shell shows: the exit code, or 128 + the signal's number.
    #[must_use]
    pub const fn shell_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => number.saturating_add(128),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        match (reader.u8("status")?, reader.u8("status")?) {
            (0, code) => Ok(Self::Code(code)),
            (1, number @ 1..=64) => Ok(Self::Signal(number)),
            _ => Err(bad("status", Fault::Invalid)),
        }
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        let (kind, value) = match self {
            Self::Code(code) => (0, code),
            Self::Signal(number) => (1, number),
        };
        writer.u8(kind);
        writer.u8(value);
    }
}

/// Why the workload never ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The program, or the interpreter that it names, does not exist.
    NotFound,
    /// The program exists and cannot be executed.
    NotExecutable,
    /// The guest could not be prepared for it.
    Setup,
}

impl FailureKind {
    /// The code that a shell shows for it: 125, 126 or 127.
    #[must_use]
    pub const fn shell_code(self) -> u8 {
        match self {
            Self::NotFound => EXIT_NOT_FOUND,
            Self::NotExecutable => EXIT_NOT_EXECUTABLE,
            Self::Setup => EXIT_SETUP,
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        match reader.u8("kind")? {
            EXIT_NOT_FOUND => Ok(Self::NotFound),
            EXIT_NOT_EXECUTABLE => Ok(Self::NotExecutable),
            EXIT_SETUP => Ok(Self::Setup),
            _ => Err(bad("kind", Fault::Invalid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_codes() {
        assert_eq!(ExitStatus::Code(0).shell_code(), 0);
        assert_eq!(ExitStatus::Code(255).shell_code(), 255);
        assert_eq!(ExitStatus::Signal(9).shell_code(), 137);
        assert_eq!(ExitStatus::Signal(15).shell_code(), 143);
        assert_eq!(ExitStatus::Signal(64).shell_code(), 192);
        assert_eq!(FailureKind::Setup.shell_code(), 125);
        assert_eq!(FailureKind::NotExecutable.shell_code(), 126);
        assert_eq!(FailureKind::NotFound.shell_code(), 127);
    }
}
