//! Generations of pages, as the multi-generational LRU tells them (`/sys/kernel/debug/lru_gen`,
//! Documentation/admin-guide/mm/multigen_lru.rst). Pure.
//!
//! ```text
//! memcg     5 /workload
//!  node     0
//!           0      92520        512       1024        number, age in ms, pages anonymous and of files
//!           1      61010          0          9
//! ```
//!
//! A generation's age is how long ago it began. Its pages were used last before the next one began: so they are idle at
//! least as long as the next one is old.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use proto::{Age, MAX_AGES};

/// The kernel keeps the two youngest generations (`MIN_NR_GENS`).
const KEPT: usize = 2;
/// Lists that are looked at: one for each control group and node.
const MOST_LISTS: usize = 256;

/// The lists of one control group on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// The control group's number.
    pub memcg: u64,
    /// The node.
    pub node: u64,
    /// Oldest first.
    pub generations: Vec<Generation>,
}

/// One generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Ascending with youth.
    pub number: u64,
    /// How long ago it began, in milliseconds.
    pub age_ms: u64,
    /// Pages of anonymous memory.
    pub anon_pages: u64,
    /// Pages of files.
    pub file_pages: u64,
}

/// The lists of control groups whose path is `wanted`.
pub fn parse(text: &str, wanted: impl Fn(&str) -> bool) -> Vec<Lists> {
    let mut all: Vec<Lists> = Vec::new();
    let mut memcg = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let mut number = || words.next()?.parse::<u64>().ok();
        if let Some(rest) = line.strip_prefix("memcg") {
            let (id, path) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), "/"));
            memcg = id.parse().ok().filter(|_| wanted(path.trim()));
        } else if let Some(node) = line.trim_start().strip_prefix("node") {
            if let (Some(memcg), Ok(node)) = (memcg, node.trim().parse())
                && all.len() < MOST_LISTS
            {
                all.push(Lists { memcg, node, generations: Vec::new() });
            }
        } else if let (Some(_), Some(lists)) = (memcg, all.last_mut())
            && let (Some(number), Some(age_ms), Some(anon_pages), Some(file_pages)) =
                (number(), number(), number(), number())
            && lists.generations.len() < MAX_AGES
        {
            lists.generations.push(Generation { number, age_ms, anon_pages, file_pages });
        }
    }
    all
}

/// All lists together, youngest generation first. Those of one rank count as old as the youngest of them.
pub fn ages(all: &[Lists], page_bytes: u64) -> Vec<Age> {
    let mut ages: Vec<Age> = Vec::new();
    for lists in all {
        for (rank, generation) in lists.generations.iter().rev().enumerate() {
            if ages.len() <= rank {
                ages.push(Age { age_ms: generation.age_ms, anon_bytes: 0, file_bytes: 0 });
            }
            let Some(age) = ages.get_mut(rank) else { continue };
            age.age_ms = age.age_ms.min(generation.age_ms);
            age.anon_bytes = age.anon_bytes.saturating_add(generation.anon_pages.saturating_mul(page_bytes));
            age.file_bytes = age.file_bytes.saturating_add(generation.file_pages.saturating_mul(page_bytes));
        }
    }
    ages
}

impl Lists {
    /// Number of the youngest generation.
    pub fn youngest(&self) -> Option<u64> {
        self.generations.last().map(|generation| generation.number)
    }

    /// Number of the youngest generation all of whose pages, and those of older ones, are idle for `idle_ms` and can be
    /// evicted.
    pub fn evictable(&self, idle_ms: u64) -> Option<u64> {
        let until = self.generations.len().checked_sub(KEPT)?;
        let pairs = self.generations.iter().zip(self.generations.iter().skip(1)).take(until);
        pairs.take_while(|(_, next)| next.age_ms >= idle_ms).last().map(|(generation, _)| generation.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\
memcg     1 /
 node     0
          0      99999          1          2\x20
          1      99999          0          0\x20
memcg     5 /workload
 node     0
          4     300000        512       1024\x20
          5     200000         10         20\x20
          6     100000          1          2\x20
          7       5000        100        200\x20
 node     1
          0       4000          0          7\x20
          1       3000          3          0\x20
memcg     6 /agent
 node     0
          0       4000          9          9\x20
";

    fn workload() -> Vec<Lists> {
        parse(TEXT, |path| path == "/workload")
    }

    #[test]
    fn the_wanted_lists_are_read() {
        let lists = workload();
        assert_eq!(lists.len(), 2);
        assert_eq!((lists[0].memcg, lists[0].node, lists[1].node), (5, 0, 1));
        assert_eq!(
            (lists[0].generations.len(), lists[0].youngest(), lists[1].youngest()),
            (4, Some(7), Some(1))
        );
        let oldest = Generation { number: 4, age_ms: 300_000, anon_pages: 512, file_pages: 1024 };
        assert_eq!(lists[0].generations[0], oldest);
        assert_eq!(parse(TEXT, |_| false), []);
    }

    #[test]
    fn generations_of_one_rank_are_as_old_as_their_youngest() {
        let ages = ages(&workload(), 4096);
        let age =
            |age_ms, anon: u64, file: u64| Age { age_ms, anon_bytes: anon * 4096, file_bytes: file * 4096 };
        let expected = [age(3000, 103, 200), age(4000, 1, 9), age(200_000, 10, 20), age(300_000, 512, 1024)];
        assert_eq!(ages, expected);
    }

    #[test]
    fn what_is_evicted_was_idle_for_long_enough() {
        let lists = &workload()[0];
        // Generation 4 began long ago; its pages are idle since generation 5 began.
        assert_eq!(lists.evictable(250_000), None);
        assert_eq!(lists.evictable(200_000), Some(4));
        assert_eq!(lists.evictable(100_000), Some(5));
        // The two youngest stay.
        assert_eq!(lists.evictable(0), Some(5));
        assert_eq!(workload()[1].evictable(0), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "((memcg|node| )?[ 0-9]{0,20}(/workload)?\n?){0,20}", idle_ms: u64) {
            let all = parse(&text, |_| true);
            let sum = |of: fn(&Generation) -> u64| {
                all.iter().flat_map(|lists| &lists.generations).map(of).fold(0, u64::saturating_add)
            };
            let ages = ages(&all, 1);
            prop_assert_eq!(ages.iter().map(|age| age.file_bytes).fold(0, u64::saturating_add), sum(|g| g.file_pages));
            for lists in &all {
                let evictable = lists.evictable(idle_ms);
                prop_assert!(evictable.is_none() || lists.generations.len() > KEPT);
            }
        }
    }
}
