//! When a driver that left its target is told of it again.
//!
//! Linux's driver deflates when its guest is out of memory, and thinks of the target again only when the configuration
//! changes (`virtio_balloon_oom_notify` and `update_balloon_size_func` of drivers/virtio/virtio_balloon.c). Told too
//! soon it takes back what saved a process, so the guest must first have that much, and more, to spare.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::statistics::Values;
use crate::PAGE_BYTES;

/// How long the driver must have stood still before the first reminder of a target.
const FIRST_MS: u64 = 30_000;
/// Each reminder doubles the wait for the next, up to this: a guest that runs out of memory again and again gains
/// nothing by them.
const LONGEST_MS: u64 = 8 * 60_000;
/// What the guest must keep available when it has given what is missing.
const ROOM_BYTES: u64 = 16 << 20;

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reminder {
    wait_ms: u64,
}

impl Default for Reminder {
    fn default() -> Self {
        Self { wait_ms: FIRST_MS }
    }
}

impl Reminder {
    /// Whether a driver that has stood still for `still_ms` may be reminded.
    pub(super) fn is_due(self, still_ms: u64) -> bool {
        still_ms >= self.wait_ms
    }

    /// One was given.
    pub(super) fn given(&mut self) {
        self.wait_ms = self.wait_ms.saturating_mul(2).min(LONGEST_MS);
    }
}

/// Whether a guest that says `values` of itself can spare `missing_pages`.
pub(super) fn spares(values: &Values, missing_pages: u64) -> bool {
    let wanted_bytes = missing_pages.saturating_mul(PAGE_BYTES).saturating_add(ROOM_BYTES);
    values.available_bytes.or(values.free_bytes).is_some_and(|bytes| bytes >= wanted_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_reminder_doubles_the_wait_up_to_the_longest() {
        let mut reminder = Reminder::default();
        for seconds in [30, 60, 120, 240, 480, 480] {
            assert!(!reminder.is_due(seconds * 1000 - 1), "{seconds}");
            assert!(reminder.is_due(seconds * 1000), "{seconds}");
            reminder.given();
        }
    }

    #[test]
    fn a_guest_spares_what_leaves_it_some_room() {
        let says =
            |available, free| Values { available_bytes: available, free_bytes: free, ..Values::default() };
        let missing = 100 * MIB / PAGE_BYTES;
        assert!(spares(&says(Some(116 * MIB), Some(0)), missing));
        assert!(!spares(&says(Some(116 * MIB - 1), Some(200 * MIB)), missing));
        assert!(spares(&says(None, Some(116 * MIB)), missing), "older drivers say no more");
        assert!(!spares(&says(None, None), 0), "it says nothing");
        assert!(!spares(&says(Some(u64::MAX - 1), None), u64::MAX));
    }
}
