//! Reads what `ballast top` shows, on a thread of its own: a microVM that hangs stops no key. Wiring.

use super::News;
use super::view::{Decisions, HostLook, Look, Vm};
use crate::cli::client;
use crate::cli::daemon::Daemon;
use crate::cli::state::Known;
use crate::cli::usage::Looker;
use balloon::control::api::ZonesDocument;
use balloon::control::reclaim::DecisionsDocument;
use balloon::policy::fleet::Host;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// From one look to the next.
const PERIOD: Duration = Duration::from_secs(2);
/// To the second one, without which there is no share of time.
const GLANCE: Duration = Duration::from_millis(500);

/// What is wanted of the reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// ID of the microVM whose decisions are shown.
    pub selected: Option<String>,
    /// Nothing new.
    pub paused: bool,
}

/// The reading thread, which ends with this.
pub(super) struct Reader(Sender<Wanted>);

impl Reader {
    /// Reads the microVMs of the state directory `state` and tells `news`.
    pub fn start(state: PathBuf, news: Sender<News>) -> Self {
        let (sender, wanted) = mpsc::channel();
        thread::spawn(move || read(&state, &wanted, &news));
        Self(sender)
    }

    /// Says what is wanted from now on.
    pub fn want(&self, wanted: Wanted) {
        // Without a thread nothing can be read, which its panic has said.
        let _ = self.0.send(wanted);
    }
}

/// Ends when nobody wants anything any more.
fn read(state: &Path, wishes: &Receiver<Wanted>, news: &Sender<News>) {
    let mut wanted = Wanted::default();
    let mut known = Vec::new();
    let mut looker = Looker::default();
    let (mut next, mut period) = (Instant::now(), GLANCE);
    loop {
        let wish = match wishes.recv_timeout(next.saturating_duration_since(Instant::now())) {
            // The last of many counts.
            Ok(wish) => wishes.try_iter().last().unwrap_or(wish),
            Err(RecvTimeoutError::Timeout) => wanted.clone(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let other = wish.selected != wanted.selected;
        wanted = wish;
        let due = Instant::now() >= next;
        if due {
            next = Instant::now() + std::mem::replace(&mut period, PERIOD);
        }
        let looks = due && !wanted.paused;
        if looks {
            let look = client::running(state).map(|running| {
                known = running;
                look(state, &mut looker, &known)
            });
            if news.send(News::Look(look)).is_err() {
                return;
            }
        }
        let selected = known.iter().find(|vm| wanted.selected.as_deref() == Some(vm.id()));
        if let Some(vm) = selected.filter(|_| looks || other)
            && news.send(News::Decisions(decisions(vm))).is_err()
        {
            return;
        }
    }
}

fn look(state: &Path, looker: &mut Looker, known: &[Known]) -> Look {
    let zones = |vm: &Known| client::get::<ZonesDocument>(vm, "/v1/zones").ok();
    let found = looker.look(known, zones);
    let vms = found.into_iter().map(|(usage, document)| {
        let zones = document.flatten().map(|document| document.zones);
        Vm { usage, zones }
    });
    Look { host: host(state), vms: vms.collect() }
}

fn host(state: &Path) -> HostLook {
    let text = |path| std::fs::read_to_string(path).ok();
    let (meminfo, pressure) = (text("/proc/meminfo"), text("/proc/pressure/memory"));
    let host = Host::parse(&meminfo.unwrap_or_default(), pressure.as_deref().unwrap_or_default());
    HostLook {
        total_bytes: host.total_bytes,
        available_bytes: host.available_bytes,
        stall_ppm: pressure.map(|_| host.stall_ppm),
        daemon: Daemon::of(state).host(),
    }
}

fn decisions(vm: &Known) -> Decisions {
    let document = client::get::<DecisionsDocument>(vm, "/v1/decisions").ok();
    Decisions {
        id: vm.id().into(),
        decisions: document.map(|document| document.decisions).unwrap_or_default(),
    }
}
