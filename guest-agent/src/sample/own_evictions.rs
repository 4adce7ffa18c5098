//! What the agent itself has evicted by generation. Pure.
//!
//! The kernel counts that in `pgsteal_direct`, as if the workload's tasks had reclaimed it (`evict_folios()` of mm/vmscan.c,
//! whose commands come from no reclaim of a control group). The host is told of what tasks reclaim only.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// What of a counter is the agent's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnEvictions {
    pages: u64,
    /// The counter when an eviction began that is under way.
    begun_at: Option<u64>,
    told: u64,
}

impl OwnEvictions {
    /// An eviction begins, when the counter has reached `counter`.
    pub fn begin(&mut self, counter: u64) {
        self.begun_at = Some(counter);
    }

    /// Whether one is.
    pub const fn is_under_way(&self) -> bool {
        self.begun_at.is_some()
    }

    /// It has ended, and evicted at most `pages`.
    pub fn end(&mut self, counter: u64, pages: u64) {
        if let Some(begun_at) = self.begun_at.take() {
            self.pages = self.pages.saturating_add(counter.saturating_sub(begun_at).min(pages));
        }
    }

    /// What of `counter` is others'. It never falls, and while an eviction is under way, of which nobody knows how far it
    /// is, it does not rise.
    pub fn others(&mut self, counter: u64) -> u64 {
        if self.begun_at.is_none() {
            self.told = self.told.max(counter.saturating_sub(self.pages));
        }
        self.told
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test that overflows panics, and so fails")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_others_reclaim_meanwhile_is_told_afterwards() {
        let mut own = OwnEvictions::default();
        assert_eq!(own.others(10), 10);
        own.begin(12);
        assert_eq!(own.others(50), 10);
        own.end(115, 100);
        assert_eq!(own.others(115), 15);
        own.begin(115);
        own.end(118, 100);
        assert_eq!(own.others(120), 17, "it went otherwise than by generation");
    }

    proptest! {
        /// However samples fall between evictions: in the end others have what they have reclaimed, and at no time more.
        #[test]
        fn nobody_is_charged_with_the_agents_own(steps in prop::collection::vec((0u64..100, 0u64..100, any::<bool>()), 0..50)) {
            let (mut own, mut counter, mut others, mut told) = (OwnEvictions::default(), 0, 0, 0);
            for (theirs, ours, amid) in steps {
                (counter, others) = (counter + theirs, others + theirs);
                own.begin(counter);
                counter += ours;
                if amid {
                    let now = own.others(counter);
                    prop_assert!((told..=others).contains(&now));
                    told = now;
                }
                own.end(counter, ours);
            }
            prop_assert_eq!(own.others(counter), others);
        }
    }
}
