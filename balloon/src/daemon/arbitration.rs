//! Arbitration of what there is: [`crate::policy::fleet`] once a tick, and what comes of it for each microVM. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::fleet::{Fleet, SILENT_TICKS};
use super::host::Process;
use super::turns::{Tick, Turns};
use crate::control::events::EventKind;
use crate::control::link::{Envelope, LEASE};
use crate::policy::fleet::{Allotment, Fleet as Law, FleetTuning, Host, Kill, Reading, Verdict};
use crate::size::Size;
use crate::zone::{Error, Id};
use std::io;

/// No pressure, in thousandths.
pub(super) const CALM_PERMILLE: u64 = 1000;

/// What arbitration knows.
#[derive(Debug)]
pub(super) struct Arbitration {
    law: Law,
    readings: Vec<Reading>,
    allotments: Vec<Allotment>,
    turns: Turns,
    pub(super) host: Host,
    pub(super) verdict: Verdict,
    /// Since the daemon's start.
    pub(super) ticks: u64,
    /// What was directed since then.
    pub(super) directed_bytes: u64,
    /// What the host was told to swap out since then.
    pub(super) page_out_bytes: u64,
    /// How many were killed since then.
    pub(super) kills: u64,
    /// How often somebody was to be and the host refused.
    pub(super) failed_kills: u64,
    /// Who is to be killed, and why.
    condemned: Option<(Kill, Condemned)>,
}

/// A microVM that is to be killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// Its name.
    pub name: String,
    /// Its VMM.
    pub process: Process,
    /// Why, in words for whoever looks after it.
    pub reason: String,
}

impl Default for Arbitration {
    fn default() -> Self {
        Self {
            law: Law::new(FleetTuning::default()),
            readings: Vec::new(),
            allotments: Vec::new(),
            turns: Turns::default(),
            host: Host::default(),
            verdict: Verdict::default(),
            ticks: 0,
            directed_bytes: 0,
            page_out_bytes: 0,
            kills: 0,
            failed_kills: 0,
            condemned: None,
        }
    }
}

impl Fleet {
    /// Arbitrates anew, on a host that is `host` now: once a tick, before its envelopes. Tells what is new.
    pub fn arbitrate(&mut self, host: Host) {
        let Arbitration { law, readings, allotments, turns, .. } = &mut self.arbitration;
        readings.clear();
        readings.extend(self.vms.values().filter(|member| member.linked).map(|member| Reading {
            vm: member.id,
            ceiling_bytes: member.ceiling_bytes,
            cold: member.offer.cold,
            yield_bytes_per_s: member.offer.yield_bytes_per_s,
            follows: member.offer.follows && member.silent_ticks <= SILENT_TICKS,
            pages_out: member.offer.pages_out && member.silent_ticks <= SILENT_TICKS,
        }));
        let verdict = law.tick(&self.tree, &host, readings, allotments);
        let mut allotted = allotments.iter().peekable();
        for member in self.vms.values_mut() {
            member.allotment = allotted.next_if(|allotment| allotment.vm == member.id).copied();
        }
        let tick = Tick { tree: &self.tree, host: &host, verdict: &verdict, readings, allotments };
        turns.next(&tick, law.pressures(), &mut self.told);
        (self.arbitration.host, self.arbitration.verdict) = (host, verdict);
        self.arbitration.ticks = self.arbitration.ticks.saturating_add(1);
        let add = |sum: &mut u64, bytes: u64| *sum = sum.saturating_add(bytes);
        add(&mut self.arbitration.directed_bytes, verdict.directed_bytes);
        add(&mut self.arbitration.page_out_bytes, verdict.page_out_bytes);
        self.arbitration.condemned = verdict.kill.and_then(|kill| self.condemn(kill));
        self.protect();
    }

    /// Arbitrates by these constants from now on.
    pub(super) fn tune(&mut self, tuning: FleetTuning) {
        self.arbitration.law.tune(tuning);
    }

    /// Has `kill` kill who is to be, if somebody is, and tells what has come of it. Whoever cannot be killed is passed over.
    pub fn execute(&mut self, kill: impl FnOnce(&Condemned) -> io::Result<()>) {
        let Some((of, condemned)) = self.arbitration.condemned.take() else { return };
        let Condemned { name, reason, .. } = &condemned;
        match kill(&condemned) {
            Ok(()) => {
                self.arbitration.kills = self.arbitration.kills.saturating_add(1);
                self.tell_kill(EventKind::VmKilled, name, &of, format!("it is killed: {reason}"));
            }
            Err(error) => {
                self.arbitration.failed_kills = self.arbitration.failed_kills.saturating_add(1);
                self.arbitration.law.spare(of.vm);
                let reason =
                    format!("the host refuses to kill it ({error}), and another is chosen: {reason}");
                self.tell_kill(EventKind::VmNotKilled, name, &of, reason);
            }
        }
    }

    fn condemn(&self, kill: Kill) -> Option<(Kill, Condemned)> {
        let (name, member) = self.vms.iter().find(|(_, member)| member.id == kill.vm)?;
        let (name, process) = (name.clone(), member.process);
        let Host { available_bytes, total_bytes, .. } = self.arbitration.host;
        let size = Size::from_bytes;
        let reason = format!(
            "{} of the host's {} are available and nothing else brought more; it is the least protected, with {} of which \
             {} are, and a weight of {}",
            size(available_bytes),
            size(total_bytes),
            size(kill.charge_bytes),
            size(kill.protected_bytes),
            kill.weight
        );
        Some((kill, Condemned { name, process, reason }))
    }

    /// Ticks since the daemon's start.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.arbitration.ticks
    }

    /// Computes anew what is protected.
    pub fn protect(&mut self) {
        self.protection.compute(&self.tree, self.tree.root(), true);
    }

    /// Whether the host can take in a microVM at all.
    pub(super) fn has_room(&self) -> Result<(), Error> {
        let Arbitration { host, verdict, .. } = &self.arbitration;
        if !verdict.refuse {
            return Ok(());
        }
        Err(Error::Short {
            deficit_bytes: verdict.deficit_bytes.max(verdict.unmet_bytes),
            available_bytes: host.available_bytes,
            total_bytes: host.total_bytes,
        })
    }

    /// The next envelope for a microVM, as of the last [`arbitrate`](Self::arbitrate).
    pub fn envelope(&mut self, name: &str) -> Option<Envelope> {
        let (id, calm) = {
            let member = self.vms.get(name)?;
            (member.id, self.calm(member.id))
        };
        let parent = self.tree.parent(id).and_then(|id| self.tree.get(id));
        let group = parent.map_or_else(String::new, |group| group.name().into());
        let policy = self.vms.get(name)?.inherits.then(|| self.policies.of(&group));
        let member = self.vms.get_mut(name)?;
        member.sequence = member.sequence.saturating_add(1);
        member.has_answered = false;
        let allotment = member.allotment.unwrap_or(calm);
        if let Some(allotment) = &mut member.allotment {
            // Another link between two ticks is not told to give the same again.
            (allotment.take_bytes, allotment.page_out_bytes) = (0, 0);
        }
        Some(Envelope {
            sequence: member.sequence,
            group,
            lease_ms: u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX),
            lambda_permille: allotment.lambda_permille,
            max_bytes: allotment.max_bytes,
            high_bytes: allotment.high_bytes,
            floor_bytes: allotment.floor_bytes,
            grant_bytes: allotment.grant_bytes,
            take_bytes: allotment.take_bytes,
            page_out_bytes: allotment.page_out_bytes,
            policy,
        })
    }

    /// What a microVM may have that no tick has seen yet: its limits, and nothing granted.
    fn calm(&self, vm: Id) -> Allotment {
        let highs = self.tree.path(vm).filter_map(|id| self.tree.get(id)?.limits().high);
        Allotment {
            vm,
            lambda_permille: CALM_PERMILLE,
            max_bytes: self.tree.binding_max(vm),
            high_bytes: highs.min(),
            floor_bytes: self.protection.get(vm).unwrap_or_default().min,
            grant_bytes: 0,
            take_bytes: 0,
            page_out_bytes: 0,
            pressed_by: None,
            imposed_bytes: None,
        }
    }
}
