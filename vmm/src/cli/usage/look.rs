//! Asks microVMs what they use, and the host how much time their VMMs took. Wiring.

use super::{Ticks, Usage, cpu_ticks};
use crate::cli::client;
use crate::cli::ps::State as Life;
use crate::cli::state::Known;
use balloon::control::api::{MemoryDocument, VmDocument};
use balloon::control::reclaim::ReclaimDocument;
use std::collections::BTreeMap;
use std::time::Instant;

/// Looks again and again: a share of time is known from the second look on.
#[derive(Debug, Default)]
pub(in crate::cli) struct Looker {
    before: Option<(Instant, BTreeMap<String, Ticks>)>,
}

impl Looker {
    /// What each of them uses, and what `more` asks those that answer.
    pub fn look<T: Send>(
        &mut self,
        known: &[Known],
        more: impl Fn(&Known) -> T + Sync,
    ) -> Vec<(Usage, Option<T>)> {
        let now = Instant::now();
        let asked = client::ask_all(known, |vm| {
            let usage = ask(vm);
            let more = (usage.state == Life::Running).then(|| more(vm));
            (usage, more)
        });
        let mut found: Vec<_> = asked.into_iter().map(|(_, found)| found).collect();
        let ticks = found.iter().filter_map(|(usage, _)| Some((usage.id.clone(), usage.ticks?))).collect();
        if let Some((at, before)) = self.before.replace((now, ticks)) {
            let lasted = now.duration_since(at).as_secs_f64();
            found.iter_mut().for_each(|(usage, _)| usage.work_since(before.get(&usage.id).copied(), lasted));
        }
        found
    }
}

fn ask(vm: &Known) -> Usage {
    let mut usage = Usage::silent(&vm.name, vm.id(), Life::Running);
    let told: Result<(VmDocument, MemoryDocument, ReclaimDocument), _> = client::get(vm, "/v1/vm")
        .and_then(|document| Ok((document, client::get(vm, "/v1/memory")?, client::get(vm, "/v1/reclaim")?)));
    match told {
        Ok((document, memory, reclaim)) => {
            let text = std::fs::read_to_string(format!("/proc/{}/stat", document.pid)).unwrap_or_default();
            usage.ticks = cpu_ticks(&text).map(|ticks| Ticks { pid: document.pid, ticks });
            usage.tell(&memory, &reclaim);
        }
        Err(error) => usage.state = Life::of_silent(&error),
    }
    usage
}
