//! What operators change of the fleet: groups and limits. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::fleet::Fleet;
use super::member::Wanted;
use crate::control::fleet::GroupLimitsRequest;
use crate::zone::{Error, Limits};

/// Two minutes: longer than a VMM gives its guest to have them.
pub(super) const WANTED_TICKS: u32 = 60;

impl Fleet {
    /// Moves a living microVM into another group.
    ///
    /// # Errors
    /// There is no such microVM, the path is none, or the pool does not admit its limits there.
    pub fn move_vm(&mut self, name: &str, group: &str) -> Result<(), Error> {
        let id = self.tree.vm(name).ok_or(Error::Gone)?;
        let before = self.group_of(id).to_owned();
        self.tree.move_vm(id, group)?;
        self.tell_moved(name, id, &before);
        Ok(())
    }

    /// Changes the limits of a living microVM, all or none. They are told and bind it when the microVM has them, too: it may
    /// refuse. Until then, or until it has not for [`WANTED_TICKS`], both are promised, these and those before.
    ///
    /// # Errors
    /// There is no such microVM, the limits contradict each other, or the pool does not admit them.
    pub fn change(&mut self, name: &str, limits: Limits) -> Result<(), Error> {
        let id = self.tree.vm(name).ok_or(Error::Gone)?;
        self.tree.change(&[(id, limits)])?;
        let Some(member) = self.vms.get_mut(name) else { return Ok(()) };
        let before = if member.linked { member.told_limits } else { member.admitted };
        member.admitted = member.admitted.widest(&limits);
        member.wanted = Some(Wanted { limits, ticks: WANTED_TICKS });
        self.tree.adopt_limits(id, limits.widest(&before))
    }

    /// Gives up limits that were to be had for too long: who was asked has refused them, or never will have them.
    pub(super) fn give_up_wanted(&mut self) {
        for member in self.vms.values_mut() {
            let Some(wanted) = &mut member.wanted else { continue };
            wanted.ticks = wanted.ticks.saturating_sub(1);
            if wanted.ticks == 0 && member.linked {
                member.wanted = None;
                member.admitted = member.told_limits;
                // It had them before.
                let _ = self.tree.adopt_limits(member.id, member.told_limits);
            }
        }
    }

    /// Changes the limits of a group, all or none, until it is configured anew or goes with its last member.
    ///
    /// # Errors
    /// There is no such group, the limits contradict each other, or the pool does not admit them.
    pub fn change_group(&mut self, request: &GroupLimitsRequest) -> Result<(), Error> {
        let no_group = || Error::NoGroup { path: request.group.clone() };
        let id = self.tree.group(&request.group).ok_or_else(no_group)?;
        let before = self.limits_of(id);
        self.tree.change(&[(id, request.apply(before))])?;
        self.tell_group_limits(&request.group, id, &before);
        Ok(())
    }
}
