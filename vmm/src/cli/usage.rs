//! What running microVMs use, as they say and as the host counts it: numbers of `ballast stats` and `ballast top`. Pure, but
//! for [`Looker`], which asks.

#![forbid(unsafe_code)]

mod look;

pub(super) use look::Looker;

use super::ps::State as Life;
use balloon::control::api::MemoryDocument;
use balloon::control::reclaim::ReclaimDocument;
use balloon::policy::State;
use serde::Serialize;

/// What one microVM uses. What it does not say is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Usage {
    pub name: String,
    pub id: String,
    pub state: Life,
    /// Of one CPU, by the VMM with all its threads: the guest's work and its own.
    pub cpu_percent: Option<f64>,
    pub size_bytes: Option<u64>,
    pub ceiling_bytes: Option<u64>,
    /// The footprint that the law wants.
    pub target_bytes: Option<u64>,
    /// What neither the balloon has nor the guest calls available.
    pub guest_used_bytes: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub saved_bytes: Option<u64>,
    pub refaults_per_s: Option<f64>,
    pub stall_percent: Option<f64>,
    pub law: Option<State>,
    /// CPU time so far, in clock ticks, of which process.
    #[serde(skip)]
    ticks: Option<Ticks>,
}

/// CPU time of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    pid: u32,
    /// So far, in clock ticks.
    ticks: u64,
}

impl Usage {
    /// One that has said nothing, and how it does.
    pub fn silent(name: &str, id: &str, state: Life) -> Self {
        Self {
            name: name.into(),
            id: id.into(),
            state,
            cpu_percent: None,
            size_bytes: None,
            ceiling_bytes: None,
            target_bytes: None,
            guest_used_bytes: None,
            resident_bytes: None,
            saved_bytes: None,
            refaults_per_s: None,
            stall_percent: None,
            law: None,
            ticks: None,
        }
    }

    /// Takes over what it says.
    pub fn tell(&mut self, memory: &MemoryDocument, reclaim: &ReclaimDocument) {
        let heard = reclaim.samples_total > 0;
        self.size_bytes = Some(memory.size_bytes);
        self.ceiling_bytes = Some(memory.ceiling.bytes);
        self.resident_bytes = memory.resident_bytes;
        self.saved_bytes = memory.resident_bytes.map(|bytes| memory.size_bytes.saturating_sub(bytes));
        self.guest_used_bytes = reclaim.guest_used_bytes;
        self.target_bytes = heard.then_some(reclaim.status.target_bytes);
        self.refaults_per_s = heard.then_some(reclaim.status.refault_millis as f64 / 1000.0);
        self.stall_percent = heard.then_some(reclaim.status.stall_ppm as f64 / 10_000.0);
        self.law = Some(reclaim.status.state);
    }

    /// Fills in its share of time, since it had used so many ticks `lasted` seconds ago.
    fn work_since(&mut self, before: Option<Ticks>, lasted: f64) {
        if let (Some(now), Some(before)) = (self.ticks, before)
            && now.pid == before.pid
        {
            let ticks = now.ticks.saturating_sub(before.ticks);
            let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
            self.cpu_percent = Some(seconds / lasted.max(0.001) * 100.0);
        }
    }
}

/// User and system time of `/proc/PID/stat`: fields 14 and 15; the name, in parentheses, may contain anything.
fn cpu_ticks(text: &str) -> Option<u64> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    user.checked_add(fields.next()?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_time_is_of_one_process() {
        let hertz = rustix::param::clock_ticks_per_second();
        let usage = |pid| Usage {
            ticks: Some(Ticks { pid, ticks: 150 }),
            ..Usage::silent("web", "7", Life::Running)
        };
        let before = Some(Ticks { pid: 7, ticks: 150 - hertz });
        let mut same = usage(7);
        same.work_since(before, 2.0);
        assert_eq!(same.cpu_percent, Some(50.0));
        let mut other = usage(8);
        other.work_since(before, 2.0);
        assert_eq!(other.cpu_percent, None);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("42 (a"), None);
        assert!(cpu_ticks(&std::fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }
}
