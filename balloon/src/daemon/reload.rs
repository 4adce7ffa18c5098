//! Reads the configuration, and reads it anew when the daemon is told to. Wiring.

#![forbid(unsafe_code)]

use super::config::{self, Config};
use super::event::Event;
use super::fleet::Fleet;
use super::journal::Journal;
use crate::control::events::EventKind;
use crate::logging;
use crate::regular_file;
use crate::size::Size;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Where the configuration comes from, and for whom it holds.
pub struct Reload {
    path: Option<PathBuf>,
    /// Where they are served.
    metrics: Option<SocketAddr>,
    memory_bytes: u64,
    fleet: Rc<RefCell<Fleet>>,
    journal: Rc<Journal>,
}

/// Longest configuration: some ten thousands of groups.
const LONGEST_BYTES: u64 = 1 << 20;

/// The configuration is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// It is none.
    #[error(transparent)]
    Config(#[from] config::Error),
}

/// The configuration in the file at `path`; without one all is as usual.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read(path: Option<&Path>) -> Result<Config, Error> {
    let Some(path) = path else { return Ok(Config::default()) };
    let unread = |source| Error::Read { path: path.into(), source };
    let content = regular_file::read(path, LONGEST_BYTES).map_err(unread)?;
    let text = String::from_utf8(content).map_err(|_| unread(io::Error::other("it is no text (UTF-8)")))?;
    Ok(Config::parse(&text)?)
}

impl Reload {
    /// Reads the file at `path`, for a host of so much memory, with metrics served at `metrics`.
    #[must_use]
    pub fn new(
        path: Option<&Path>,
        metrics: Option<SocketAddr>,
        memory_bytes: u64,
        fleet: Rc<RefCell<Fleet>>,
        journal: Rc<Journal>,
    ) -> Self {
        Self { path: path.map(Into::into), metrics, memory_bytes, fleet, journal }
    }

    /// Reads it, and has it hold if it can be had.
    pub fn reload(&self) {
        let mut fleet = self.fleet.borrow_mut();
        let applied = read(self.path.as_deref()).and_then(|config| {
            fleet.configure(&config, self.memory_bytes).map_err(config::Error::from)?;
            if config.metrics != self.metrics {
                log::warn!("where metrics are served changes with the daemon's next start");
            }
            Ok(())
        });
        let event = match applied {
            Ok(()) => {
                let capacity_bytes = fleet.tree().pool().capacity_bytes;
                let pool = Size::from_bytes(capacity_bytes);
                let reason = format!("the configuration was read anew and holds; the pool has {pool}");
                Event::new(EventKind::ConfigReloaded, reason).figure("capacity_bytes", capacity_bytes)
            }
            Err(error) => {
                let told = match &error {
                    Error::Config(config::Error::Text { told, .. }) => told.clone(),
                    error => logging::causes(error),
                };
                // As a message, which waits for no reader.
                log::error!("the configuration stays as it was: {told}");
                Event::new(EventKind::ConfigRefused, format!("the configuration stays as it was: {told}"))
            }
        };
        fleet.tell(event);
        self.journal.record(&mut fleet);
    }
}
