//! Starts the daemon and runs it until a signal ends it. Wiring.

use super::config;
use super::descriptors;
use super::event::Event;
use super::fleet::Fleet;
use super::journal::Journal;
use super::links::Links;
use super::metrics::endpoint::Endpoint;
use super::recorder::Recorder;
use super::reload::{self, Reload};
use super::service::Host;
use super::signals::Signals;
use super::{dry_run, host, notify, state_lock};
use crate::control::events::EventKind;
use crate::control::fleet::SOCKET;
use crate::control::link::RENEWAL;
use crate::control::listener;
use crate::control::server::Server;
use crate::logging;
use crate::size::Size;
use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be read.
    #[error(transparent)]
    Read(#[from] reload::Error),
    /// The configuration cannot be had.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// There is one already.
    #[error("another ballastd serves {}: end it first, or set BALLAST_STATE to another directory", state.display())]
    Running {
        /// The state directory.
        state: PathBuf,
    },
    /// The state directory does not work.
    #[error(
        "cannot serve the state directory {}: BALLAST_STATE may name another, a directory of your own with a short path",
        state.display()
    )]
    State {
        /// Which.
        state: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Metrics cannot be served there.
    #[error(
        "cannot serve metrics on {address}: choose another address in the configuration (metrics = \"ADDRESS:PORT\")"
    )]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// The host's answer.
        source: io::Error,
    },
    /// The host refuses something small.
    #[error("cannot {doing}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The event loop fails.
    #[error("the event loop failed")]
    EventLoop(#[from] event_manager::Error),
}

/// Time that a start of the daemon leaves microVMs that run to be heard. One that is stopped is not waited for any longer.
const ADOPTION: Duration = RENEWAL;
/// Of that, at most so much until it is looked at again.
const ADOPTION_TURN_MS: i32 = 100;

/// Serves the state directory `state` until the process is told to end, and records the host to `record`, if that can be.
/// Once it does, `ready` is told what there is to divide.
///
/// # Errors
/// It cannot be served, or the configuration cannot be had.
pub fn run(
    state: &Path,
    config: Option<&Path>,
    record: Option<&Path>,
    ready: impl FnOnce(String),
) -> Result<(), Error> {
    let host_error = |doing| move |source| Error::Host { doing, source };
    descriptors::raise();
    let memory_bytes = memory_bytes()?;
    let content = reload::read(config)?;
    let mut fleet = Fleet::new(content.tree(memory_bytes)?);
    fleet.configure(&content, memory_bytes).map_err(config::Error::from)?;
    let fleet = Rc::new(RefCell::new(fleet));

    let state_error = |source| Error::State { state: state.into(), source };
    let _lock = state_lock::take(state)
        .map_err(state_error)?
        .ok_or_else(|| Error::Running { state: state.into() })?;
    let metrics = content
        .metrics
        .map(|address| listen_for_metrics(address).map_err(|source| Error::Metrics { address, source }));
    let metrics = metrics.transpose()?;
    let socket = state.join(SOCKET);
    // What is there was left by a daemon that is dead: the lock is ours.
    let listener = listener::bind(&socket).map_err(state_error)?;
    let bound = listener::identity(&socket);

    let mut events: EventManager<Box<dyn MutEventSubscriber>> = EventManager::new()?;
    let journal = Rc::new(Journal::new().map_err(host_error("keep events"))?);
    journal.keep(vec![started(state, &fleet.borrow())]);
    let reload = Reload::new(config, content.metrics, memory_bytes, Rc::clone(&fleet), Rc::clone(&journal));
    let ends = Rc::new(Cell::new(false));
    let signals = Signals::new(reload, Rc::clone(&ends)).map_err(host_error("wait for signals"))?;
    events.add_subscriber(Box::new(signals));
    let links =
        Links::new(state, Rc::clone(&fleet), Rc::clone(&journal)).map_err(host_error("create a timer"))?;
    let unheard = links.unheard();
    // It begins a thread, which must come after signals are blocked.
    events.add_subscriber(Box::new(links.recorded(record.and_then(recorder))));
    if let Some(listener) = metrics {
        let server = Server::new(listener, Endpoint::new(Rc::clone(&fleet)));
        events.add_subscriber(Box::new(server.map_err(host_error("serve metrics"))?));
    }
    // Who asks to start one more waits until those that run have said what they hold and are promised.
    let began = Instant::now();
    while unheard.get() > 0 && began.elapsed() < ADOPTION && !ends.get() {
        events.run_with_timeout(ADOPTION_TURN_MS)?;
    }
    let words = serves(state, &fleet.borrow());
    let server =
        Server::new(listener, Host::new(fleet, journal)).map_err(host_error("serve the daemon's socket"))?;
    events.add_subscriber(Box::new(server));
    notify::ready();
    ready(words);
    while !ends.get() {
        events.run()?;
    }
    notify::stopping();
    // Somebody may have moved the directory, and another daemon be at home in the new one.
    if bound.is_some() && listener::identity(&socket) == bound {
        let _ = std::fs::remove_file(socket);
    }
    Ok(())
}

/// What the configuration would come to here, in words.
///
/// # Errors
/// It cannot be had, or metrics cannot be served where it says.
pub fn dry_run(config: Option<&Path>) -> Result<String, Error> {
    let memory_bytes = memory_bytes()?;
    let content = reload::read(config)?;
    if let Some(address) = content.metrics
        && let Err(source) = TcpListener::bind(address)
        // By the daemon that runs, for one.
        && source.kind() != io::ErrorKind::AddrInUse
    {
        return Err(Error::Metrics { address, source });
    }
    Ok(dry_run::describe(&content, memory_bytes)?)
}

fn memory_bytes() -> Result<u64, Error> {
    let doing = "find out how much memory the host has";
    host::memory_bytes().map_err(|source| Error::Host { doing, source })
}

/// To arbitrate is what the daemon is for: where nothing can be recorded it says so and does that.
fn recorder(path: &Path) -> Option<Recorder> {
    let begun = Recorder::start(path);
    begun.inspect_err(|error| log::error!("nothing is recorded: {}", logging::causes(error))).ok()
}

/// What there is to divide among whom.
fn serves(state: &Path, fleet: &Fleet) -> String {
    let host = fleet.host();
    let run = match host.vms {
        0 => String::new(),
        1 => "; 1 microVM runs already".into(),
        vms => format!("; {vms} microVMs run already"),
    };
    format!("serving {}: {} for microVMs{run}", state.display(), Size::from_bytes(host.capacity_bytes))
}

fn started(state: &Path, fleet: &Fleet) -> Event {
    let reason = format!("ballastd {} serves {}", env!("CARGO_PKG_VERSION"), state.display());
    Event::new(EventKind::DaemonStarted, reason)
        .figure("pid", u64::from(std::process::id()))
        .figure("capacity_bytes", fleet.tree().pool().capacity_bytes)
}

fn listen_for_metrics(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        log::warn!("whoever reaches {address} can read what each microVM uses: it asks nobody who they are");
    }
    TcpListener::bind(address)
}
