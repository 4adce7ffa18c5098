//! Memory statistics of the guest (virtio 1.3, 5.5.6.3): a request, an answer, a deadline.
//!
//! The driver keeps one buffer in the queue. Returning it asks for new numbers; the buffer that comes back holds
//! them, and the device keeps it for the next request. So at most one request is under way. What the guest says
//! is a claim: numbers that cannot be true of a machine of this size drop the sample.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::errors::{ProtocolErrors, count};
use serde::{Deserialize, Serialize};

/// How long an answer may take before the last one is called stale.
pub const STATISTICS_DEADLINE_MS: u64 = 1000;

/// Most bytes of a buffer that are read: 409 numbers, where Linux has 16.
pub const STATISTICS_BYTES: u32 = 4096;

/// Bytes of one number: a 16-bit tag and a 64-bit value, packed.
const RECORD_BYTES: usize = 10;

/// The numbers of one sample; those that the driver did not send are absent. Cumulative since the guest's boot
/// unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Values {
    /// Tag 0: bytes swapped in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in_bytes: Option<u64>,
    /// Tag 1: bytes swapped out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out_bytes: Option<u64>,
    /// Tag 2: faults that needed the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Tag 3: faults that needed none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Tag 4: unused memory, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Tag 5: all memory the guest has, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// Tag 6: memory available without swapping, as the guest estimates it, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
    /// Tag 7: page cache, now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_caches_bytes: Option<u64>,
    /// Tag 8: hugetlb pages allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_allocations: Option<u64>,
    /// Tag 9: hugetlb pages that could not be allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_failures: Option<u64>,
    /// Tag 10, Linux 6.12: processes killed for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Tag 11, Linux 6.12: allocations that had to wait for reclaim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation_stalls: Option<u64>,
    /// Tag 12, Linux 6.12: bytes scanned by kswapd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_scanned_bytes: Option<u64>,
    /// Tag 13, Linux 6.12: bytes scanned by whoever needed memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_scanned_bytes: Option<u64>,
    /// Tag 14, Linux 6.12: bytes reclaimed by kswapd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_reclaimed_bytes: Option<u64>,
    /// Tag 15, Linux 6.12: bytes reclaimed by whoever needed memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_reclaimed_bytes: Option<u64>,
}

impl Values {
    /// Reads `bytes`: numbers of 10 bytes, the last of each tag counts. Returns how many had unknown tags too.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> (Self, u64) {
        let mut values = Self::default();
        let mut unknown = 0u64;
        for record in bytes.as_chunks::<RECORD_BYTES>().0 {
            let [t0, t1, value @ ..] = *record;
            match values.field(u16::from_le_bytes([t0, t1])) {
                Some(field) => *field = Some(u64::from_le_bytes(value)),
                None => count(&mut unknown, 1),
            }
        }
        (values, unknown)
    }

    /// The field of tag `tag` (`VIRTIO_BALLOON_S_*` of include/uapi/linux/virtio_balloon.h).
    fn field(&mut self, tag: u16) -> Option<&mut Option<u64>> {
        Some(match tag {
            0 => &mut self.swap_in_bytes,
            1 => &mut self.swap_out_bytes,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free_bytes,
            5 => &mut self.total_bytes,
            6 => &mut self.available_bytes,
            7 => &mut self.disk_caches_bytes,
            8 => &mut self.hugetlb_allocations,
            9 => &mut self.hugetlb_failures,
            10 => &mut self.oom_kills,
            11 => &mut self.allocation_stalls,
            12 => &mut self.async_scanned_bytes,
            13 => &mut self.direct_scanned_bytes,
            14 => &mut self.async_reclaimed_bytes,
            15 => &mut self.direct_reclaimed_bytes,
            _ => return None,
        })
    }

    /// Whether a machine of `size_bytes` can have these numbers.
    #[must_use]
    pub fn plausible(&self, size_bytes: u64) -> bool {
        let total = self.total_bytes.unwrap_or(size_bytes);
        let parts = [self.free_bytes, self.available_bytes, self.disk_caches_bytes];
        total <= size_bytes && parts.into_iter().flatten().all(|part| part <= total)
    }
}

/// A set of numbers and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) values: Values,
    /// When the device received them.
    pub(super) received_ms: u64,
}

/// What there is to say of the guest's statistics at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// How old the numbers are, in milliseconds.
    pub age_ms: u64,
    /// A request is overdue or was answered with nothing usable, or the driver that sent the numbers is gone.
    pub stale: bool,
    /// The numbers.
    #[serde(flatten)]
    pub values: Values,
}

/// Statistics cannot be requested now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No driver has set the device up.
    #[error("the guest has no balloon driver, or none yet: its memory is fixed")]
    NoDriver,
    /// The driver does not speak of statistics.
    #[error("the guest's balloon driver offers no statistics")]
    NotOffered,
    /// A request is under way.
    #[error("the guest was asked for statistics and has not answered yet")]
    Pending,
    /// The driver has not given the device a buffer.
    #[error("the guest's balloon driver has not made its statistics ready yet: ask again in a moment")]
    NoBuffer,
}

/// Requests and answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exchange {
    /// The device has the driver's buffer.
    holding: bool,
    /// A request that is not answered.
    requested_ms: Option<u64>,
    latest: Option<Sample>,
    /// `latest` is not the last word: its driver is gone, or what came after it was unusable.
    outdated: bool,
}

impl Exchange {
    /// Whether the next buffer is to be read.
    pub(super) fn waits(&self) -> bool {
        !self.holding
    }

    /// A buffer came: `bytes` of its `len_bytes`.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        len_bytes: u64,
        size_bytes: u64,
        now_ms: u64,
        errors: &mut ProtocolErrors,
    ) {
        self.holding = true;
        self.requested_ms = None;
        count(&mut errors.oversized_buffers, (len_bytes > u64::from(STATISTICS_BYTES)).into());
        count(
            &mut errors.misaligned_buffers,
            (!bytes.len().is_multiple_of(RECORD_BYTES) && len_bytes <= u64::from(STATISTICS_BYTES)).into(),
        );
        let (values, unknown) = Values::parse(bytes);
        count(&mut errors.unknown_statistics, unknown);
        if values.plausible(size_bytes) {
            self.latest = Some(Sample { values, received_ms: now_ms });
            self.outdated = false;
        } else {
            count(&mut errors.implausible_statistics, 1);
            self.outdated = true;
        }
    }

    /// A buffer came that cannot be read. It is kept for the next request, and what came before it stays.
    pub(super) fn receive_nothing(&mut self) {
        self.holding = true;
        self.requested_ms = None;
        self.outdated = true;
    }

    /// Asks anew: the buffer that is held goes back.
    pub(super) fn request(&mut self, now_ms: u64) -> Result<(), RequestError> {
        if self.requested_ms.is_some() {
            return Err(RequestError::Pending);
        }
        if !self.holding {
            return Err(RequestError::NoBuffer);
        }
        self.holding = false;
        self.requested_ms = Some(now_ms);
        Ok(())
    }

    /// The driver is gone, with its buffer.
    pub(super) fn reset(&mut self) {
        *self = Self { latest: self.latest, outdated: true, ..Self::default() };
    }

    pub(super) fn pending(&self) -> bool {
        self.requested_ms.is_some()
    }

    pub(super) fn latest(&self) -> Option<Sample> {
        self.latest
    }

    pub(super) fn at(&self, now_ms: u64) -> Option<Statistics> {
        let Sample { values, received_ms } = self.latest?;
        let overdue = |requested_ms| now_ms.saturating_sub(requested_ms) >= STATISTICS_DEADLINE_MS;
        let stale = self.outdated || self.requested_ms.is_some_and(overdue);
        Some(Statistics { age_ms: now_ms.saturating_sub(received_ms), stale, values })
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(tag: u16, value: u64) -> Vec<u8> {
        [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
    }

    #[test]
    fn reads_all_sixteen_tags_and_skips_others() {
        let bytes: Vec<u8> = (0..20).rev().flat_map(|tag| record(tag, 100 + u64::from(tag))).collect();
        let (mut values, unknown) = Values::parse(&bytes);
        assert_eq!(unknown, 4);
        for tag in 0..16 {
            assert_eq!(*values.field(tag).unwrap(), Some(100 + u64::from(tag)));
        }
        assert_eq!(values.swap_in_bytes, Some(100));
        assert_eq!(values.available_bytes, Some(106));
        assert_eq!(values.direct_reclaimed_bytes, Some(115));
        assert_eq!(values.field(16), None);
    }

    #[test]
    fn the_last_of_a_tag_counts_and_a_cut_one_does_not() {
        let bytes = [record(4, 1), record(4, 2), record(5, 9)[..9].to_vec()].concat();
        assert_eq!(Values::parse(&bytes), (Values { free_bytes: Some(2), ..Values::default() }, 0));
    }

    #[test]
    fn numbers_that_cannot_be_true_drop_the_sample() {
        let size = 1 << 30;
        let mut errors = ProtocolErrors::default();
        let mut exchange = Exchange::default();
        let good = [record(5, size), record(4, size / 2)].concat();
        exchange.receive(&good, 20, size, 5, &mut errors);
        let taken = exchange.latest();
        assert_eq!(taken.unwrap().received_ms, 5);
        for bad in [
            record(5, size + 1),
            record(5, u64::MAX),
            record(4, u64::MAX),
            [record(5, 100), record(6, 101)].concat(),
            [record(7, 101), record(5, 100)].concat(),
        ] {
            exchange.receive(&bad, bad.len() as u64, size, 6, &mut errors);
        }
        assert_eq!((errors.implausible_statistics, exchange.latest()), (5, taken));
        assert!(exchange.at(7).unwrap().stale, "the last answer was none");
        exchange.receive(&good, 20, size, 8, &mut errors);
        assert!(!exchange.at(9).unwrap().stale);
    }

    #[test]
    fn a_buffer_that_cannot_be_read_is_no_sample() {
        let mut errors = ProtocolErrors::default();
        let mut exchange = Exchange::default();
        exchange.receive(&record(2, 7), 10, 1 << 30, 0, &mut errors);
        exchange.request(10).unwrap();
        exchange.receive_nothing();
        let last = exchange.at(20).unwrap();
        assert_eq!((last.values.major_faults, last.age_ms, last.stale), (Some(7), 20, true));
        assert!(!exchange.pending() && !exchange.waits());
        assert_eq!(exchange.request(30), Ok(()), "the buffer can be asked for anew");
    }

    #[test]
    fn one_request_at_a_time_with_a_deadline() {
        let mut errors = ProtocolErrors::default();
        let mut exchange = Exchange::default();
        assert_eq!(exchange.request(0), Err(RequestError::NoBuffer));
        exchange.receive(&record(2, 7), 10, 1 << 30, 10, &mut errors);
        assert!(!exchange.at(1_000_000).unwrap().stale, "nobody asked");
        assert_eq!(exchange.request(2_000), Ok(()));
        assert_eq!(exchange.request(2_001), Err(RequestError::Pending));
        assert!(!exchange.at(2_999).unwrap().stale);
        let late = exchange.at(3_000).unwrap();
        assert_eq!((late.stale, late.age_ms), (true, 2_990));
        assert_eq!(exchange.request(9_000), Err(RequestError::Pending), "a dead driver is not asked again");
        exchange.receive(&record(2, 8), 10, 1 << 30, 9_500, &mut errors);
        let answered = exchange.at(9_600).unwrap();
        assert_eq!((answered.stale, answered.age_ms, answered.values.major_faults), (false, 100, Some(8)));
        exchange.reset();
        assert!(exchange.at(9_700).unwrap().stale, "its driver is gone");
        assert_eq!(exchange.request(9_700), Err(RequestError::NoBuffer));
    }

    #[test]
    fn oversized_and_cut_buffers_are_counted() {
        let mut errors = ProtocolErrors::default();
        let mut exchange = Exchange::default();
        exchange.receive(&[0; 4096], u64::from(u32::MAX), 1 << 30, 0, &mut errors);
        exchange.receive(&[0; 19], 19, 1 << 30, 0, &mut errors);
        assert_eq!((errors.oversized_buffers, errors.misaligned_buffers), (1, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_numbers_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (mut values, unknown) = Values::parse(&bytes);
            let known = (0..16).filter(|tag| values.field(*tag).unwrap().is_some()).count();
            prop_assert!(known as u64 + unknown <= (bytes.len() / 10) as u64);
        }
    }
}
