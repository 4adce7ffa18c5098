//! Which layers become one file when an image has more of them than a VM has devices for. Pure.
//!
//! Each layer is a virtio-pmem device, which costs the guest page structs and the machine an interrupt line, so
//! an image may use only so many. Beyond, neighbours are merged, the smallest pair first: large layers, which are
//! the ones worth sharing between images, stay on their own.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::ops::Range;

/// Divides layers, lowest first and given by size in bytes, into at most `max` runs of neighbours.
///
/// While there are too many runs, the adjacent pair with the smallest sum becomes one; of equal pairs the lowest.
/// `max` of 0 counts as 1.
pub fn plan_groups(sizes: &[u64], max: usize) -> Vec<Range<usize>> {
    let mut groups: Vec<(Range<usize>, u64)> =
        sizes.iter().enumerate().map(|(at, &size)| (at..at.saturating_add(1), size)).collect();
    while groups.len() > max.max(1) {
        let sums =
            groups.windows(2).map(|pair| pair.iter().fold(0u64, |sum, group| sum.saturating_add(group.1)));
        // `min_by_key` keeps the first of equals.
        let Some((at, _)) = sums.enumerate().min_by_key(|&(_, sum)| sum) else { break };
        let (upper, size) = groups.remove(at.saturating_add(1));
        if let Some(lower) = groups.get_mut(at) {
            lower.0.end = upper.end;
            lower.1 = lower.1.saturating_add(size);
        }
    }
    groups.into_iter().map(|(range, _)| range).collect()
}

/// Which of these layers to keep, as indices: of equal ones only the highest.
///
/// A layer that stands twice in a stack hides its lower self entirely, and overlayfs refuses one directory twice.
pub fn without_duplicates<T: PartialEq>(layers: &[T]) -> Vec<usize> {
    let above = |at: usize| layers.get(at.saturating_add(1)..).unwrap_or_default();
    layers.iter().enumerate().filter(|&(at, layer)| !above(at).contains(layer)).map(|(at, _)| at).collect()
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_neighbours_merge_first() {
        assert_eq!(plan_groups(&[100, 1, 2, 50], 3), [0..1, 1..3, 3..4]);
        assert_eq!(plan_groups(&[100, 1, 2, 50], 2), [0..1, 1..4]);
        assert_eq!(plan_groups(&[5, 5, 5], 2), [0..2, 2..3]);
        assert_eq!(plan_groups(&[u64::MAX, u64::MAX, 0], 2), [0..2, 2..3]);
        assert_eq!(plan_groups(&[1, 2], 0), plan_groups(&[1, 2], 1));
        assert!(plan_groups(&[], 8).is_empty());
    }

    #[test]
    fn of_equal_layers_the_highest_stays() {
        assert_eq!(without_duplicates(&["a", "b", "a", "c"]), [1, 2, 3]);
        assert_eq!(without_duplicates(&["a", "a", "a"]), [2]);
    }

    /// The rule word by word, on lists of lists.
    fn naive(sizes: &[u64], max: usize) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = (0..sizes.len()).map(|at| vec![at]).collect();
        while groups.len() > max.max(1) {
            let mut best = (u128::MAX, 0);
            for at in 0..groups.len() - 1 {
                let sum = groups[at].iter().chain(&groups[at + 1]).map(|&i| u128::from(sizes[i])).sum();
                if sum < best.0 {
                    best = (sum, at);
                }
            }
            let upper = groups.remove(best.1 + 1);
            groups[best.1].extend(upper);
        }
        groups
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_model(sizes in prop::collection::vec(0u64..1 << 40, 0..40), max in 0usize..12) {
            let groups: Vec<Vec<usize>> = plan_groups(&sizes, max).into_iter().map(Iterator::collect).collect();
            prop_assert_eq!(groups, naive(&sizes, max));
        }

        #[test]
        fn every_layer_is_in_one_group_in_order(sizes: Vec<u64>, max in 1usize..12) {
            let groups = plan_groups(&sizes, max);
            prop_assert!(groups.len() <= max);
            let flat: Vec<usize> = groups.into_iter().flatten().collect();
            prop_assert_eq!(flat, (0..sizes.len()).collect::<Vec<_>>());
        }
    }
}
