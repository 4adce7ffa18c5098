//! Features, and which queue has which number.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

/// Feature bits of virtio 1.3, 5.5.3.
pub mod features {
    /// The driver uses a ballooned page only after the device has returned the request to deflate it.
    pub const MUST_TELL_HOST: u64 = 1 << 0;
    /// There is a queue for statistics.
    pub const STATS_VQ: u64 = 1 << 1;
    /// The guest deflates by itself before it kills a process for want of memory.
    pub const DEFLATE_ON_OOM: u64 = 1 << 2;
    /// Free page hinting: never offered.
    pub const FREE_PAGE_HINT: u64 = 1 << 3;
    /// The driver says which value free pages are filled with.
    pub const PAGE_POISON: u64 = 1 << 4;
    /// There is a queue for free page reporting.
    pub const REPORTING: u64 = 1 << 5;
}

/// What the device offers.
pub const OFFERED: u64 = features::MUST_TELL_HOST
    | features::STATS_VQ
    | features::DEFLATE_ON_OOM
    | features::PAGE_POISON
    | features::REPORTING;

/// The features of [`OFFERED`] by name.
pub const FEATURE_NAMES: [(&str, u64); 5] = [
    ("must-tell-host", features::MUST_TELL_HOST),
    ("statistics", features::STATS_VQ),
    ("deflate-on-oom", features::DEFLATE_ON_OOM),
    ("page-poison", features::PAGE_POISON),
    ("reporting", features::REPORTING),
];

/// The features that `names` lists, with commas between; none of an empty list. Nothing if one is unknown.
#[must_use]
pub fn named_features(names: &str) -> Option<u64> {
    let names = names.split(',').filter(|name| !name.is_empty());
    let bit = |name| FEATURE_NAMES.iter().find(|(other, _)| *other == name).map(|(_, bit)| bit);
    names.map(bit).try_fold(0, |features, bit| Some(features | bit?))
}

/// A queue by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Page numbers that go into the balloon.
    Inflate,
    /// Page numbers that leave it.
    Deflate,
    /// Statistics of the guest.
    Statistics,
    /// Free pages of the guest.
    Reporting,
}

/// Largest sizes of the queues by number. Inflate and deflate are small, as a driver has one buffer in each and
/// their size bounds a chain; Linux needs 32 entries for reporting (`PAGE_REPORTING_CAPACITY` in
/// include/linux/page_reporting.h), which may be number 2 or 3.
pub const QUEUE_SIZES: [u16; 4] = [16, 16, 32, 32];

/// The queues of a device with these negotiated `features`, in the order of their numbers.
///
/// Numbers are dense: a queue whose feature is not negotiated takes none. The specification gives fixed numbers
/// (1.3, 5.5.2), but drivers never used them: Linux' `init_vqs` (drivers/virtio/virtio_balloon.c) leaves the
/// names of absent queues empty, and `vm_find_vqs` (drivers/virtio/virtio_mmio.c, as `vp_find_vqs` for PCI)
/// skips those without using up a number (`queue_idx++`), in 6.1 as in 6.12. QEMU and crosvm number likewise.
pub fn in_order(features: u64) -> impl Iterator<Item = Queue> {
    let optional = move |feature, queue| (features & feature != 0).then_some(queue);
    [Queue::Inflate, Queue::Deflate]
        .into_iter()
        .chain(optional(features::STATS_VQ, Queue::Statistics))
        .chain(optional(features::REPORTING, Queue::Reporting))
}

/// Which queue has number `index` under these negotiated `features`.
#[must_use]
pub fn queue(features: u64, index: usize) -> Option<Queue> {
    in_order(features).nth(index)
}

/// The number of `queue` under these negotiated `features`.
#[must_use]
pub fn index(features: u64, queue: Queue) -> Option<usize> {
    in_order(features).position(|candidate| candidate == queue)
}

#[cfg(test)]
mod tests {
    use super::features::*;
    use super::*;

    #[test]
    fn numbers_are_dense_over_every_feature_subset() {
        use Queue::{Deflate, Inflate, Reporting, Statistics};
        for rest in [0, MUST_TELL_HOST, DEFLATE_ON_OOM | PAGE_POISON, OFFERED & !(STATS_VQ | REPORTING)] {
            for (features, expected) in [
                (0, &[Inflate, Deflate][..]),
                (STATS_VQ, &[Inflate, Deflate, Statistics]),
                (REPORTING, &[Inflate, Deflate, Reporting]),
                (STATS_VQ | REPORTING, &[Inflate, Deflate, Statistics, Reporting]),
            ] {
                let features = features | rest;
                for number in 0..6 {
                    assert_eq!(queue(features, number), expected.get(number).copied());
                }
                for queue in [Inflate, Deflate, Statistics, Reporting] {
                    assert_eq!(index(features, queue), expected.iter().position(|q| *q == queue));
                }
            }
        }
    }

    #[test]
    fn hinting_is_never_offered_and_every_queue_has_a_size() {
        assert_eq!(OFFERED, 0b11_0111);
        assert_eq!(in_order(OFFERED).count(), QUEUE_SIZES.len());
    }

    #[test]
    fn every_feature_has_a_name() {
        let names = FEATURE_NAMES.map(|(name, _)| name).join(",");
        assert_eq!(named_features(&names), Some(OFFERED));
        assert_eq!(named_features(""), Some(0));
        assert_eq!(named_features("reporting,hinting"), None);
    }
}
