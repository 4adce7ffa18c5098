//! One bit a page, changed by words: a GiB takes four thousand steps.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

const WORD_BITS: u64 = u64::BITS as u64;

/// A bitmap of fixed length. Bits beyond its end read clear and cannot be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    bits: u64,
}

impl Bitmap {
    /// `bits` clear bits.
    #[must_use]
    pub fn new(bits: u64) -> Self {
        let words = usize::try_from(bits.div_ceil(WORD_BITS)).unwrap_or(usize::MAX);
        Self { words: vec![0; words], bits }
    }

    /// Sets `count` bits from `first` on; returns how many were clear.
    pub fn set(&mut self, first: u64, count: u64) -> u64 {
        let mut changed = 0u64;
        self.visit(first, count, |word, mask| {
            changed = changed.saturating_add(u64::from((mask & !*word).count_ones()));
            *word |= mask;
        });
        changed
    }

    /// Clears `count` bits from `first` on; returns how many were set.
    pub fn clear(&mut self, first: u64, count: u64) -> u64 {
        let mut changed = 0u64;
        self.visit(first, count, |word, mask| {
            changed = changed.saturating_add(u64::from((mask & *word).count_ones()));
            *word &= !mask;
        });
        changed
    }

    /// Clears those of `count` bits from `first` on that are set in `other`; returns how many were set.
    pub fn subtract(&mut self, other: &Self, first: u64, count: u64) -> u64 {
        let mut changed = 0u64;
        for (index, mask) in self.pieces(first, count) {
            if let (Some(word), Some(other)) = (self.words.get_mut(index), other.words.get(index)) {
                let mask = mask & *other;
                changed = changed.saturating_add(u64::from((mask & *word).count_ones()));
                *word &= !mask;
            }
        }
        changed
    }

    /// Clears all bits.
    pub fn clear_all(&mut self) {
        self.words.fill(0);
    }

    /// Set bits among `count` from `first` on.
    #[must_use]
    pub fn count(&self, first: u64, count: u64) -> u64 {
        let mut set = 0u64;
        self.pieces(first, count).for_each(|(index, mask)| {
            let word = self.words.get(index).copied().unwrap_or_default();
            set = set.saturating_add(u64::from((word & mask).count_ones()));
        });
        set
    }

    /// Whether no bit is set in both bitmaps.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(one, two)| one & two == 0)
    }

    fn visit(&mut self, first: u64, count: u64, mut change: impl FnMut(&mut u64, u64)) {
        for (index, mask) in self.pieces(first, count) {
            if let Some(word) = self.words.get_mut(index) {
                change(word, mask);
            }
        }
    }

    /// The words that hold `count` bits from `first` on, each with the mask of those bits.
    fn pieces(&self, first: u64, count: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
        let end = first.saturating_add(count).min(self.bits);
        let first = first.min(end);
        let words = first / WORD_BITS..end.div_ceil(WORD_BITS);
        words.filter_map(move |word| {
            let base = word.saturating_mul(WORD_BITS);
            let low = first.saturating_sub(base);
            let high = end.saturating_sub(base).min(WORD_BITS);
            let mask = mask(high) & !mask(low);
            Some((usize::try_from(word).ok()?, mask)).filter(|_| mask != 0)
        })
    }
}

/// The `bits` lowest bits.
fn mask(bits: u64) -> u64 {
    let bits = u32::try_from(bits).unwrap_or(u32::MAX);
    1u64.checked_shl(bits).map_or(u64::MAX, |bit| bit.wrapping_sub(1))
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const BITS: u64 = 200;

    proptest! {
        #[test]
        fn changes_like_a_set_of_numbers(
            operations in prop::collection::vec((any::<bool>(), 0..BITS + 80, 0..BITS + 80), 0..40),
        ) {
            let mut bitmap = Bitmap::new(BITS);
            let mut model = BTreeSet::new();
            for (set, first, count) in operations {
                let range = || (first..first + count).filter(|bit| *bit < BITS);
                let present = range().filter(|bit| model.contains(bit)).count() as u64;
                prop_assert_eq!(bitmap.count(first, count), present);
                if set {
                    prop_assert_eq!(bitmap.set(first, count), range().count() as u64 - present);
                    model.extend(range());
                } else {
                    prop_assert_eq!(bitmap.clear(first, count), present);
                    range().for_each(|bit| { model.remove(&bit); });
                }
                prop_assert_eq!(bitmap.count(0, BITS), model.len() as u64);
            }
        }
    }

    #[test]
    fn subtracts_within_the_range_only() {
        let (mut bitmap, mut other) = (Bitmap::new(256), Bitmap::new(256));
        bitmap.set(10, 200);
        other.set(60, 100);
        assert_eq!(bitmap.subtract(&other, 0, 70), 10);
        assert_eq!((bitmap.count(0, 70), bitmap.count(70, 186)), (50, 140));
        assert!(!bitmap.is_disjoint(&other));
        assert_eq!(bitmap.subtract(&other, 0, 256), 90);
        assert!(bitmap.is_disjoint(&other));
    }

    #[test]
    fn ranges_at_the_end_of_numbers_are_harmless() {
        let mut bitmap = Bitmap::new(64);
        assert_eq!(bitmap.set(u64::MAX, u64::MAX), 0);
        assert_eq!(bitmap.set(63, u64::MAX), 1);
        assert_eq!(bitmap.clear(0, u64::MAX), 1);
    }
}
