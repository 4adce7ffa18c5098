//! Trimming: how much to ask the kernel for at a time, whether it did it, and when to stop.
//!
//! Pure: it looks at a control group and asks for reclaim through a trait, in slices, so that each one's effect is
//! seen and time is looked at between them.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use proto::{Stopped, Trimmed};

use crate::error::Error;

/// Asked for at once: some milliseconds of the kernel's work.
pub const SLICE_BYTES: u64 = 4 << 20;

/// Slices in a row that the kernel calls done and that moved no counter, after which it is not believed. A counter may
/// lag by 64 pages a CPU (`MEMCG_CHARGE_BATCH`), for the most CPUs of a microVM just as much as these are.
const IDLE_SLICES: u32 = 4;

/// Slices in a row of which the kernel says that it found too little and that brought nothing: generations that the
/// multi-generational LRU ages meanwhile can be evicted at the next.
const FRUITLESS_SLICES: u32 = 3;

/// What there is to trim.
pub trait Trimmable {
    /// `memory.stat`.
    fn statistics(&self) -> Result<String, Error>;
    /// `memory.current`.
    fn current_bytes(&self) -> Result<u64, Error>;
    /// Has the kernel reclaim; says whether it says that it did all of it.
    fn reclaim(&self, bytes: u64) -> Result<bool, Error>;
    /// Whether anonymous memory has somewhere to go.
    fn has_swap(&self) -> bool;
    /// Whether it is time to stop.
    fn is_late(&self) -> bool;
}

/// What of `memory.stat` counts here, in bytes but for the counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    /// Pages ever reclaimed: by requests for it where the kernel tells those apart, else for any reason.
    stolen_pages: u64,
    file_bytes: u64,
    anonymous_bytes: u64,
}

impl Usage {
    fn of(statistics: &str) -> Self {
        let value = |wanted: &str| {
            let line = statistics.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        let sum = |names: [&str; 2]| {
            names.map(|name| value(name).unwrap_or(0)).into_iter().fold(0, u64::saturating_add)
        };
        Self {
            stolen_pages: value("pgsteal_proactive").or_else(|| value("pgsteal")).unwrap_or(0),
            file_bytes: sum(["inactive_file", "active_file"]),
            // Shared memory and tmpfs are on these lists.
            anonymous_bytes: sum(["inactive_anon", "active_anon"]),
        }
    }
}

/// Page cache, as `memory.stat` has it.
pub fn file_bytes(statistics: &str) -> u64 {
    Usage::of(statistics).file_bytes
}

/// Reclaims `wanted` bytes, or what there is now.
///
/// What is used again meanwhile is not reclaimed twice: a workload that reads on does not make this endless.
pub fn trim(group: &impl Trimmable, wanted: Option<u64>) -> Result<Trimmed, Error> {
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let mut usage = Usage::of(&group.statistics()?);
    let before = usage.stolen_pages;
    let wanted = wanted.map_or_else(|| group.current_bytes(), Ok)?;
    let (mut idle, mut fruitless, mut reclaimed) = (0u32, 0u32, 0u64);
    let stopped = loop {
        let left = wanted.saturating_sub(reclaimed);
        if left == 0 {
            break Stopped::Reached;
        }
        if group.is_late() {
            break Stopped::OutOfTime;
        }
        let all = group.reclaim(left.clamp(page_bytes, SLICE_BYTES))?;
        let after = Usage::of(&group.statistics()?);
        let moved = after.stolen_pages > usage.stolen_pages;
        usage = after;
        reclaimed = usage.stolen_pages.saturating_sub(before).saturating_mul(page_bytes);
        idle = if all && !moved { idle.saturating_add(1) } else { 0 };
        fruitless = if all || moved { 0 } else { fruitless.saturating_add(1) };
        if idle >= IDLE_SLICES {
            break Stopped::Ineffective;
        }
        if fruitless >= FRUITLESS_SLICES {
            let no_swap = usage.anonymous_bytes > usage.file_bytes && !group.has_swap();
            break if no_swap { Stopped::NoSwap } else { Stopped::NothingLeft };
        }
    };
    let Usage { file_bytes, anonymous_bytes, .. } = usage;
    Ok(Trimmed { reclaimed_bytes: reclaimed, file_bytes, anonymous_bytes, stopped })
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test that overflows panics, and so fails")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// A group of page cache and anonymous memory, whose kernel is as told.
    #[derive(Debug, Default)]
    struct Model {
        file_pages: Cell<u64>,
        anonymous_pages: u64,
        stolen: Cell<u64>,
        asked: Cell<u64>,
        largest: Cell<u64>,
        /// Reports success and does nothing.
        deaf: bool,
        /// Pages that come back with each slice.
        regrowth: u64,
        late_after: Option<u64>,
        proactive: bool,
    }

    impl Trimmable for Model {
        fn statistics(&self) -> Result<String, Error> {
            let (file, anon) = (self.file_pages.get() * 4096, self.anonymous_pages * 4096);
            let stolen = self.stolen.get();
            let counter = if self.proactive {
                format!("pgsteal 999999\npgsteal_proactive {stolen}")
            } else {
                format!("pgsteal_kswapd 0\npgsteal_direct {stolen}\npgsteal {stolen}")
            };
            Ok(format!(
                "anon {anon}\nfile {file}\ninactive_anon 0\nactive_anon {anon}\ninactive_file {file}\nactive_file 0\n{counter}\n"
            ))
        }

        fn current_bytes(&self) -> Result<u64, Error> {
            Ok((self.file_pages.get() + self.anonymous_pages) * 4096)
        }

        fn reclaim(&self, bytes: u64) -> Result<bool, Error> {
            self.asked.set(self.asked.get() + 1);
            self.largest.set(self.largest.get().max(bytes));
            if self.deaf {
                return Ok(true);
            }
            let pages = bytes.div_ceil(4096);
            let taken = pages.min(self.file_pages.get());
            self.stolen.set(self.stolen.get() + taken);
            self.file_pages.set(self.file_pages.get() - taken + self.regrowth);
            Ok(taken == pages)
        }

        fn has_swap(&self) -> bool {
            false
        }

        fn is_late(&self) -> bool {
            self.late_after.is_some_and(|slices| self.asked.get() >= slices)
        }
    }

    fn trimmed(model: &Model, wanted: Option<u64>) -> (u64, Stopped) {
        let trimmed = trim(model, wanted).unwrap();
        (trimmed.reclaimed_bytes, trimmed.stopped)
    }

    proptest! {
        /// Never more than asked for, never more than there is, in small slices, and the reason is true.
        #[test]
        fn takes_what_it_is_asked_for(file in 0u64..20_000, anonymous in 0u64..20_000, wanted in prop::option::of(0u64..40_000), proactive: bool) {
            let model = Model { file_pages: file.into(), anonymous_pages: anonymous, proactive, ..Model::default() };
            let (reclaimed, stopped) = trimmed(&model, wanted.map(|pages| pages * 4096));
            let wanted = wanted.unwrap_or(file + anonymous);
            prop_assert_eq!(reclaimed, wanted.min(file) * 4096);
            prop_assert!(model.largest.get() <= SLICE_BYTES);
            let left = file - wanted.min(file);
            let expected = if wanted <= file {
                Stopped::Reached
            } else if anonymous > left {
                Stopped::NoSwap
            } else {
                Stopped::NothingLeft
            };
            prop_assert_eq!(stopped, expected);
        }
    }

    #[test]
    fn a_kernel_that_only_says_so_is_found_out() {
        let model = Model { file_pages: 10_000.into(), deaf: true, ..Model::default() };
        assert_eq!(trimmed(&model, None), (0, Stopped::Ineffective));
        assert_eq!(model.asked.get(), u64::from(IDLE_SLICES));
    }

    #[test]
    fn a_workload_that_reads_on_does_not_make_it_endless() {
        let model = Model { file_pages: 10_000.into(), regrowth: 1024, ..Model::default() };
        assert_eq!(trimmed(&model, None), (10_000 * 4096, Stopped::Reached));
    }

    #[test]
    fn time_is_looked_at_between_slices() {
        let model = Model { file_pages: 10_000.into(), late_after: Some(2), ..Model::default() };
        assert_eq!(trimmed(&model, None), (2 * SLICE_BYTES, Stopped::OutOfTime));
    }
}
