//! Numbers and decisions over time, in bounded memory: the longer it is, the coarser. Pure.

#![forbid(unsafe_code)]

/// Most points of a curve: as many as a plot has pixels.
const POINTS: u64 = 800;
/// Most decisions of one kind that are told apart: as many as a pointer can.
const MOMENTS: u64 = 200;
/// Shortest time that is told apart: as often as the law looks.
const LEAST_MS: u64 = 1000;

/// Items by their time, merged with their neighbours where there are too many.
#[derive(Clone, Debug)]
struct Buckets<T> {
    most: u64,
    width_ms: u64,
    items: Vec<Option<T>>,
}

impl<T> Buckets<T> {
    fn new(most: u64) -> Self {
        Self { most, width_ms: LEAST_MS, items: Vec::new() }
    }

    /// The place for `at_ms`. `merge` adds an item to the one before it.
    fn place(&mut self, at_ms: u64, merge: impl Fn(&mut T, T)) -> Option<&mut Option<T>> {
        while at_ms / self.width_ms >= self.most {
            let mut items = std::mem::take(&mut self.items).into_iter();
            while let Some(first) = items.next() {
                self.items.push(match (first, items.next().flatten()) {
                    (Some(mut first), Some(second)) => {
                        merge(&mut first, second);
                        Some(first)
                    }
                    (first, second) => first.or(second),
                });
            }
            self.width_ms = self.width_ms.saturating_mul(2);
        }
        let place = usize::try_from(at_ms / self.width_ms).ok()?;
        while self.items.len() <= place {
            self.items.push(None);
        }
        self.items.get_mut(place)
    }
}

/// The mean of a number over time.
#[derive(Clone, Debug)]
pub struct Curve {
    buckets: Buckets<Mean>,
    all: Mean,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    weight: f64,
    /// Of the times.
    at_sum: f64,
}

impl Mean {
    fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.weight += other.weight;
        self.at_sum += other.at_sum;
    }
}

impl Default for Curve {
    fn default() -> Self {
        Self { buckets: Buckets::new(POINTS), all: Mean::default() }
    }
}

impl Curve {
    /// It is `value` at `at_ms`, or was over as long as `weight` says.
    pub fn add(&mut self, at_ms: u64, value: f64, weight: f64) {
        let mean = Mean { sum: value * weight, weight, at_sum: at_ms as f64 * weight };
        self.all.add(mean);
        let Some(place) = self.buckets.place(at_ms, Mean::add) else { return };
        place.get_or_insert_default().add(mean);
    }

    /// Times in milliseconds, and means.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let known = self.buckets.items.iter().flatten().filter(|mean| mean.weight > 0.0);
        known.map(|mean| (mean.at_sum / mean.weight, mean.sum / mean.weight))
    }

    /// The mean of all; nothing of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.all.weight > 0.0).then(|| self.all.sum / self.all.weight)
    }

    /// The greatest of the means.
    #[must_use]
    pub fn most(&self) -> f64 {
        self.points().map(|(_, value)| value).fold(0.0, f64::max)
    }
}

/// Decisions of one kind.
#[derive(Clone, Debug)]
pub struct Moments(Buckets<Moment>);

/// A decision, and those soon after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at_ms: u64,
    /// What and why.
    pub words: String,
    /// How many more there were.
    pub more: u64,
}

impl Moment {
    fn add(&mut self, other: Self) {
        self.more = self.more.saturating_add(other.more).saturating_add(1);
    }
}

impl Default for Moments {
    fn default() -> Self {
        Self(Buckets::new(MOMENTS))
    }
}

impl Moments {
    /// One more; `words` is asked for if it is the first of its time.
    pub fn add(&mut self, at_ms: u64, words: impl FnOnce() -> String) {
        match self.0.place(at_ms, Moment::add) {
            Some(Some(first)) => first.more = first.more.saturating_add(1),
            Some(free) => *free = Some(Moment { at_ms, words: words(), more: 0 }),
            None => {}
        }
    }

    /// All that are told apart.
    pub fn iter(&self) -> impl Iterator<Item = &Moment> {
        self.0.items.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_curve_is_what_was_added() {
        let mut curve = Curve::default();
        (0..10).for_each(|second| curve.add(second * 1000, second as f64, 1.0));
        let points: Vec<_> = curve.points().collect();
        assert_eq!(points[9], (9000.0, 9.0));
        assert_eq!((points.len(), curve.mean(), curve.most()), (10, Some(4.5), 9.0));
        assert_eq!(Curve::default().mean(), None);
    }

    #[test]
    fn many_decisions_are_one_and_more() {
        let mut moments = Moments::default();
        (0..1000).for_each(|second| moments.add(second * 1000, || format!("{second}")));
        let all: Vec<_> = moments.iter().collect();
        assert!(all.len() <= 200, "{}", all.len());
        assert_eq!((all[0].at_ms, all[0].words.as_str(), all[0].more), (0, "0", 7));
        assert_eq!(all.iter().map(|moment| moment.more + 1).sum::<u64>(), 1000);
    }

    proptest! {
        /// Whatever the times: bounded, and nothing is lost.
        #[test]
        fn any_length_is_bounded(times in prop::collection::vec(prop_oneof![any::<u64>(), 0..2_000_000u64], 0..300)) {
            let (mut curve, mut moments) = (Curve::default(), Moments::default());
            for at_ms in &times {
                curve.add(*at_ms, 2.0, 1.0);
                moments.add(*at_ms, String::new);
            }
            prop_assert!(curve.buckets.items.len() <= 800 && moments.0.items.len() <= 200);
            prop_assert!((curve.all.weight - times.len() as f64).abs() < 1e-9);
            prop_assert!(curve.points().all(|(_, value)| (value - 2.0).abs() < 1e-9));
            prop_assert_eq!(moments.iter().map(|moment| moment.more + 1).sum::<u64>(), times.len() as u64);
        }
    }
}
