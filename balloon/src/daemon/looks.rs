//! Whose layers are looked at, and when. Pure.
//!
//! A look has the host walk a VMM's page tables and find out what it charges it for, and in microVMs that idle there is
//! nothing new for hours. So who has been looked at for a while is looked at again when the pages of files that its process
//! maps have become more or less (some may come unseen from Linux 6.2 on: include/linux/percpu_counter.h), when a look at
//! anybody else has found something new or somebody has ended, as shares are of pages that others map, too, and else now and then.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::fleet::Fleet;
use super::host::Process;
use super::layers::LayerUse;
use super::member::Member;
use crate::resident::FileId;
use crate::zone::Error;

/// Looks at a microVM that is new, one a tick; ticks in which each of the others can have its turn: ten seconds.
const LOOK_TICKS: usize = 5;
/// Ticks after which one is due in any case: a minute.
const MOST_TICKS: u64 = 30;

/// What looks have come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looks {
    /// Ticks so far.
    ticks: u64,
    /// How often something new was found.
    news: u64,
    /// How many turns there were.
    turns: u64,
}

/// How things stood when a microVM's layers were seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    ticks: u64,
    news: u64,
    /// Pages of files that the process had mapped, in bytes.
    file_bytes: u64,
}

impl Looks {
    /// What was seen of anybody may be otherwise now.
    pub(super) fn outdate(&mut self) {
        self.news = self.news.saturating_add(1);
    }

    fn is_due(&self, member: &Member) -> bool {
        member.seen.is_none_or(|seen| {
            let has_moved = (seen.news, seen.file_bytes) != (self.news, member.file_bytes);
            has_moved || self.ticks.saturating_sub(seen.ticks) >= MOST_TICKS
        })
    }
}

impl Fleet {
    /// A tick: those whose layers are to be looked at in it, who has waited longest first. Those are all that are new, of
    /// which each tick has something else to tell, and of the others those that are due, so many that each can have its turn
    /// every [`LOOK_TICKS`].
    pub fn to_look_at(&mut self) -> Vec<(String, Process)> {
        self.looks.ticks = self.looks.ticks.saturating_add(1);
        let is_old = |member: &Member| member.looks >= LOOK_TICKS;
        let linked: Vec<_> = self.vms.iter().filter(|(_, member)| member.linked).collect();
        let (old, mut all): (Vec<_>, Vec<_>) = linked.into_iter().partition(|(_, member)| is_old(member));
        let most = old.len().div_ceil(LOOK_TICKS);
        let mut due: Vec<_> = old.into_iter().filter(|(_, member)| self.looks.is_due(member)).collect();
        due.sort_by_key(|(_, member)| member.turn);
        all.extend(due.into_iter().take(most));
        all.sort_by_key(|(_, member)| member.turn);
        all.into_iter().map(|(name, member)| (name.clone(), member.process)).collect()
    }

    /// A microVM had its turn, whatever was seen.
    pub fn looked_at(&mut self, name: &str) {
        self.looks.turns = self.looks.turns.saturating_add(1);
        if let Some(member) = self.vms.get_mut(name) {
            (member.looks, member.turn) = (member.looks.saturating_add(1), self.looks.turns);
        }
    }

    /// Takes note of the layers that a microVM maps, and of how many bytes of files the host charges it for.
    ///
    /// # Errors
    /// A layer's name is none.
    pub fn observe_layers(&mut self, name: &str, uses: &[LayerUse], first_bytes: u64) -> Result<(), Error> {
        let Some(member) = self.vms.get_mut(name) else { return Ok(()) };
        if self.layers.observe(&mut self.tree, member.id, uses, first_bytes)? {
            self.looks.outdate();
        }
        let Looks { ticks, news, .. } = self.looks;
        member.seen = Some(Seen { ticks, news, file_bytes: member.file_bytes });
        Ok(())
    }

    /// Settles what is shared: `resident` says what of a file is in memory, if it is known.
    ///
    /// # Errors
    /// The pool would hold more than can be counted.
    pub fn settle_layers(&mut self, resident: impl Fn(FileId) -> Option<u64>) -> Result<(), Error> {
        self.layers.settle(&mut self.tree, resident)
    }

    /// Whether somebody maps the file.
    #[must_use]
    pub fn shares(&self, file: FileId) -> bool {
        self.layers.contains(file)
    }
}
