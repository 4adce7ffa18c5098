//! How many starts were admitted, and how many refused for what. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::zone::Error;

/// Since the daemon's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admissions {
    /// Started, as far as the daemon knows.
    pub admitted: u64,
    /// The host is short of memory.
    pub host_short: u64,
    /// The sum of protected minimums would exceed the pool, or a group's maximum.
    pub protected: u64,
    /// The sum of maximums would exceed the pool, which may not be overcommitted.
    pub committed: u64,
    /// The request itself: a name that is taken or none, limits that contradict each other, too wide a sharing.
    pub request: u64,
}

impl Admissions {
    /// Counts how a request went.
    pub(super) fn count<T>(&mut self, outcome: &Result<T, Error>) {
        let counter = match outcome {
            Ok(_) => &mut self.admitted,
            Err(Error::Short { .. }) => &mut self.host_short,
            Err(Error::Protected { .. } | Error::Crowded { .. }) => &mut self.protected,
            Err(Error::Committed { .. } | Error::Unbounded { .. }) => &mut self.committed,
            Err(_) => &mut self.request,
        };
        *counter = counter.saturating_add(1);
    }

    /// Refusals by their reasons, as metrics name them.
    #[must_use]
    pub fn refused(&self) -> [(&'static str, u64); 4] {
        [
            ("host_short", self.host_short),
            ("protected", self.protected),
            ("committed", self.committed),
            ("request", self.request),
        ]
    }
}
