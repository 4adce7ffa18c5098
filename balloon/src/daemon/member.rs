//! What the daemon knows of one microVM. Pure.

#![forbid(unsafe_code)]

use super::host::Process;
use super::looks::Seen;
use crate::control::link::{End, Offer, Usage};
use crate::policy::fleet::Allotment;
use crate::zone::{Id, Limits};

/// Limits that were admitted and may be refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) limits: Limits,
    /// Ticks until they are given up.
    pub(super) ticks: u32,
}

/// A microVM that lives, or is about to.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: Id,
    /// Of its VMM; before that, of who starts it.
    pub(super) process: Process,
    pub(super) linked: bool,
    /// Its law works with what its groups say.
    pub(super) inherits: bool,
    /// Number of the last envelope.
    pub(super) sequence: u64,
    /// Whether it has been answered.
    pub(super) has_answered: bool,
    /// Ticks since its last report.
    pub(super) silent_ticks: u32,
    /// Size of its guest's memory, once it has said.
    pub(super) size_bytes: Option<u64>,
    /// What its balloon leaves its guest, by its last report.
    pub(super) ceiling_bytes: u64,
    /// The same if a user chose it; nothing before its first report.
    pub(super) manual: Option<Option<u64>>,
    /// What it can give back, by the same.
    pub(super) offer: Offer,
    /// How else it does, by the same.
    pub(super) usage: Usage,
    /// Limits that the pool has admitted, or that it had when this daemon found it; while it may not have heard of the last,
    /// those before, too.
    pub(super) admitted: Limits,
    /// Those that it is to have, until it has or they are given up.
    pub(super) wanted: Option<Wanted>,
    /// How it ended, if it has said that.
    pub(super) end: Option<End>,
    /// The limits that were told last.
    pub(super) told_limits: Limits,
    /// What the last tick allotted it.
    pub(super) allotment: Option<Allotment>,
    /// What of it the host has swapped out.
    pub(super) swapped_bytes: u64,
    /// Number of the last snapshot.
    pub(super) snapshot: u64,
    /// Pages of files that it maps, in bytes.
    pub(super) file_bytes: u64,
    /// How many looks at its layers were tried,
    pub(super) looks: usize,
    /// the number of the last one among all microVMs',
    pub(super) turn: u64,
    /// and how things stood when something was last seen.
    pub(super) seen: Option<Seen>,
}

impl Member {
    pub(super) fn new(id: Id, process: Process, linked: bool) -> Self {
        Self {
            id,
            process,
            linked,
            inherits: false,
            sequence: 0,
            has_answered: true,
            silent_ticks: 0,
            size_bytes: None,
            ceiling_bytes: 0,
            manual: None,
            admitted: Limits::default(),
            wanted: None,
            end: None,
            told_limits: Limits::default(),
            offer: Offer::default(),
            usage: Usage::default(),
            allotment: None,
            swapped_bytes: 0,
            snapshot: 0,
            file_bytes: 0,
            looks: 0,
            turn: 0,
            seen: None,
        }
    }
}
