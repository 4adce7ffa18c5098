//! The state directory: `vms/NAME/` for each microVM that runs, or has ended and is kept.
//!
//! ```text
//! lock           held by the process that looks after the microVM, whose number is in it: it runs
//! record.json    what it is, written once; absent while its start is being prepared
//! exit           how it ended; blank until then, so that a full disk cannot keep it from being written
//! control.sock   the control socket
//! ```
//!
//! The lock is held by the open file and dies with the process, however that ends. A directory whose lock nobody holds
//! is that of a microVM that has ended: one that ran in the background stays until `ballast rm`, and if nothing says how
//! it ended it was killed with its process; all others are leftovers, and the next start sweeps them.

mod listing;
mod record;
mod registration;
mod selection;
#[cfg(test)]
mod tests;

pub use listing::{Known, known};
pub use record::{Exit, KILLED, Record, STOP_SIGNAL};
pub use registration::{Error, Registration, forget};
pub use selection::{NotOne, pick};

use balloon::regular_file;
use std::io;
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const RECORD: &str = "record.json";
const EXIT: &str = "exit";
const SOCKET: &str = "control.sock";

/// Longest record: the longest command line of Linux, each of its bytes escaped.
const RECORD_BYTES: u64 = 16 << 20;

/// What the directory of a microVM says that it is.
fn read_record(directory: &Path) -> io::Result<Vec<u8>> {
    regular_file::read(&directory.join(RECORD), RECORD_BYTES)
}

/// The directory of all microVMs.
fn vms(state: &Path) -> PathBuf {
    state.join("vms")
}
