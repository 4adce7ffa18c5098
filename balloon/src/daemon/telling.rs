//! What the fleet tells of microVMs and groups as they come, change and go. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::event::{Event, difference};
use super::fleet::Fleet;
use crate::control::events::EventKind;
use crate::control::fleet::StartRequest;
use crate::control::link::{End, Hello, OwnPolicy, Report};
use crate::policy::fleet::{Host, Kill};
use crate::size::Size;
use crate::working_set::{StallBudget, WorkingSetAge};
use crate::zone::{Error, Id, Limits};

impl Fleet {
    /// Tells `event`, too.
    pub fn tell(&mut self, event: Event) {
        self.told.push(event);
    }

    /// What has happened since this was called last, in its order.
    pub fn take_told(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.told)
    }

    /// The path of the group that a node is in; empty is none.
    pub(super) fn group_of(&self, id: Id) -> &str {
        self.tree.parent(id).and_then(|id| self.tree.get(id)).map_or("", |group| group.name())
    }

    pub(super) fn limits_of(&self, id: Id) -> Limits {
        self.tree.get(id).map(|node| *node.limits()).unwrap_or_default()
    }

    fn of_vm(&self, kind: EventKind, name: &str, id: Id, reason: String) -> Event {
        Event::new(kind, reason).vm(name).group(self.group_of(id))
    }

    pub(super) fn tell_refused(&mut self, request: &StartRequest, error: &Error) {
        let event = Event::new(EventKind::StartRefused, error.to_string());
        self.tell(event.vm(&request.name).group(&request.group).limits(&request.limits));
    }

    /// Returns the limits that were told.
    pub(super) fn tell_greeted(&mut self, hello: &Hello, id: Id, admitted: bool) -> Limits {
        let size = Size::from_bytes(hello.memory_bytes);
        let event = if admitted {
            let reason = format!("it was admitted and runs, with {size} of memory");
            self.of_vm(EventKind::VmStarted, &hello.name, id, reason)
        } else {
            let reason = format!(
                "it runs, with {size} of memory, and was started before this ballastd or without asking it"
            );
            self.of_vm(EventKind::VmFound, &hello.name, id, reason)
        };
        let event = event.figure("pid", u64::from(hello.pid)).figure("memory_bytes", hello.memory_bytes);
        let limits = self.limits_of(id);
        self.tell(event.limits(&limits));
        limits
    }

    /// To be told before its node is retired; `end` is its last word.
    pub(super) fn tell_ended(&mut self, name: &str, id: Id, end: Option<End>) {
        let charge_bytes = self.tree.get(id).map_or(0, |node| node.charge_bytes());
        let how = match end {
            Some(End::Exited { code, out_of_memory: false }) => {
                format!("its workload has ended with exit code {code}")
            }
            Some(End::Exited { code, out_of_memory: true }) => {
                format!("its guest ran out of memory, and its workload has ended with exit code {code}")
            }
            Some(End::NotStarted { code }) => {
                format!("its workload could not be started, which is exit code {code}")
            }
            Some(End::Failed) => "it has failed, which is exit code 125".into(),
            None => {
                "its VMM has ended without saying why: it was killed, has failed, or is of an older Ballast"
                    .into()
            }
        };
        let code = match end {
            Some(End::Exited { code, .. } | End::NotStarted { code }) => Some(code),
            Some(End::Failed) => Some(125),
            None => None,
        };
        let reason = format!("{how}; it held {}", Size::from_bytes(charge_bytes));
        let event = self.of_vm(EventKind::VmEnded, name, id, reason).figure("charge_bytes", charge_bytes);
        self.tell(code.into_iter().fold(event, |event, code| event.figure("exit_code", code.into())));
    }

    /// Likewise, of one that never came.
    pub(super) fn tell_forgotten(&mut self, name: &str, id: Id) {
        let reason = "who wanted to start it has ended before it ran: what it was promised is free again";
        self.tell(self.of_vm(EventKind::StartForgotten, name, id, reason.into()).limits(&self.limits_of(id)));
    }

    /// That limits are others than `before`, if they are.
    pub(super) fn tell_limits(&mut self, name: &str, id: Id, before: &Limits, after: &Limits) {
        if let Some(reason) = difference(before, after) {
            self.tell(self.of_vm(EventKind::VmLimits, name, id, reason).limits(after));
        }
    }

    pub(super) fn tell_group_limits(&mut self, path: &str, id: Id, before: &Limits) {
        let after = self.limits_of(id);
        if let Some(reason) = difference(before, &after) {
            self.tell(Event::new(EventKind::GroupLimits, reason).group(path).limits(&after));
        }
    }

    /// What a configuration that was read anew has changed of the groups that there are, and were `before`.
    pub(super) fn tell_configured(&mut self, before: &[(String, Limits)]) {
        for (path, limits) in before {
            if let Some(id) = self.tree.group(path) {
                self.tell_group_limits(path, id, limits);
            }
        }
    }

    pub(super) fn tell_moved(&mut self, name: &str, id: Id, before: &str) {
        let after = self.group_of(id);
        if before != after {
            let named = |path: &str| if path.is_empty() { "no group".into() } else { format!("'{path}'") };
            let reason = format!("it was moved from {} to {}", named(before), named(after));
            self.tell(self.of_vm(EventKind::VmMoved, name, id, reason));
        }
    }

    /// What a user did to the ceiling since the report before, which was that of a user where there is `before`.
    pub(super) fn tell_ceiling(&mut self, name: &str, id: Id, before: Option<u64>, report: &Report) {
        let ceiling_bytes = report.ceiling_bytes;
        let reason = match (before, report.manual) {
            (Some(before), true) if before == ceiling_bytes => return,
            (None, false) => return,
            (_, true) => format!("a user has set its ceiling to {}", Size::from_bytes(ceiling_bytes)),
            (Some(_), false) => "a user has left its ceiling to Ballast again".into(),
        };
        let event = self.of_vm(EventKind::VmCeiling, name, id, reason);
        self.tell(event.figure("ceiling_bytes", ceiling_bytes));
    }

    /// What a user told its law since the report before, if anything.
    pub(super) fn tell_policy(&mut self, name: &str, id: Id, before: &OwnPolicy, after: &OwnPolicy) {
        let age = |ms: Option<u64>| said(ms, |ms| Some(WorkingSetAge::from_ms(ms)?.to_string()));
        let budget = |ppm: Option<u64>| said(ppm, |ppm| Some(StallBudget::from_ppm(ppm)?.to_string()));
        let figures = [
            ("working-set age", age(before.working_set_age_ms), age(after.working_set_age_ms)),
            ("stall budget", budget(before.stall_budget_ppm), budget(after.stall_budget_ppm)),
        ];
        let words: Vec<String> = figures
            .into_iter()
            .filter(|(_, before, after)| before != after)
            .map(|(name, before, after)| format!("{name} from {before} to {after}"))
            .collect();
        if words.is_empty() {
            return;
        }
        let reason = format!("a user has set its {}", words.join(", "));
        let event = self.of_vm(EventKind::VmPolicy, name, id, reason);
        let named =
            [("working_set_age_ms", after.working_set_age_ms), ("stall_budget_ppm", after.stall_budget_ppm)];
        let set = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        self.tell(set.fold(event, |event, (name, value)| event.figure(name, value)));
    }

    /// That it was to be killed, and what has come of that.
    pub(super) fn tell_kill(&mut self, kind: EventKind, name: &str, kill: &Kill, reason: String) {
        let event = self.of_vm(kind, name, kill.vm, reason);
        let Host { available_bytes, total_bytes, .. } = self.arbitration.host;
        let event = event
            .figure("charge_bytes", kill.charge_bytes)
            .figure("protected_bytes", kill.protected_bytes)
            .figure("weight", u64::from(kill.weight))
            .figure("available_bytes", available_bytes)
            .figure("total_bytes", total_bytes);
        self.tell(event);
    }

    /// That the host does not have all memory of a microVM back that has ended.
    pub(super) fn tell_orphaned(&mut self, name: &str, left_bytes: u64) {
        let left = Size::from_bytes(left_bytes);
        let reason = format!("it has ended, and the host does not have {left} of its memory back yet");
        let event = Event::new(EventKind::Orphaned, reason).vm(name);
        self.tell(event.figure("left_bytes", left_bytes));
    }

    /// That now it has.
    pub(super) fn tell_merged(&mut self, name: &str) {
        let reason = "the host has all of its memory back";
        self.tell(Event::new(EventKind::Merged, reason).vm(name));
    }
}

/// A figure as people write it; a microVM may say one that no law takes.
fn said(value: Option<u64>, words: impl Fn(u64) -> Option<String>) -> String {
    value.map_or_else(|| "auto".into(), |value| words(value).unwrap_or_else(|| "unknown".into()))
}
