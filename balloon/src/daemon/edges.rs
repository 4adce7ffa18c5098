//! Which of a tick's results are new: arbitration decides every two seconds, and people are told when something begins,
//! changes by a step or ends. Pure.
//!
//! Each machine keeps what it told last and compares with that, never with the last tick, so that what creeps is told in
//! the end and what wavers is not told again and again.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

/// How many times as hard or as soft is another step of pressure: eight from none to the cap.
const STEP: u64 = 2;
/// An imposed ceiling is told anew when it is an eighth below what was told: it is lowered in small steps, too.
const LOWERED_PART: u64 = 8;
/// Ticks without an order, or without what lasts, after which it is told to be over: one more than what was ordered may take
/// to show, and enough for a host whose memory wavers about a limit.
const QUIET_TICKS: u32 = 5;

/// What is new of something that begins, changes and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge<T> {
    /// It is there.
    Begun,
    /// It is another than this, which was told.
    Changed(T),
    /// It is over; this is what was told.
    Ended(T),
}

/// Pressure on a node, as it was told; nothing while there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressed(Option<u64>);

impl Pressed {
    /// The pressure is `now`, in thousandths, or there is none.
    pub fn next(&mut self, now: Option<u64>) -> Option<Edge<u64>> {
        let edge = match (self.0, now) {
            (None, Some(_)) => Edge::Begun,
            (Some(told), None) => Edge::Ended(told),
            (Some(told), Some(now)) if is_step(told, now) => Edge::Changed(told),
            _ => return None,
        };
        self.0 = now;
        Some(edge)
    }
}

fn is_step(told: u64, now: u64) -> bool {
    now >= told.saturating_mul(STEP) || now.saturating_mul(STEP) <= told
}

/// The ceiling that arbitration imposes on a microVM, as it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imposed(Option<u64>);

impl Imposed {
    /// It is `now`, or there is none. That it rises is not told before it is gone: it does so in every tick.
    pub fn next(&mut self, now: Option<u64>) -> Option<Edge<u64>> {
        let edge = match (self.0, now) {
            (None, Some(_)) => Some(Edge::Begun),
            (Some(told), None) => Some(Edge::Ended(told)),
            (Some(told), Some(now)) if now < told && now <= told.saturating_sub(told / LOWERED_PART) => {
                Some(Edge::Changed(told))
            }
            (Some(told), Some(now)) if now <= told => return None,
            _ => None,
        };
        self.0 = now;
        edge
    }
}

/// A row of orders to give back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What was ordered, in sum.
    pub bytes: u64,
    /// In so many orders.
    pub orders: u64,
    quiet_ticks: u32,
}

impl Taken {
    /// So much is ordered in this tick. The end tells the whole row.
    pub fn next(&mut self, bytes: u64) -> Option<Edge<Taken>> {
        if bytes > 0 {
            let edge = (self.orders == 0).then_some(Edge::Begun);
            self.bytes = self.bytes.saturating_add(bytes);
            self.orders = self.orders.saturating_add(1);
            self.quiet_ticks = 0;
            return edge;
        }
        if self.orders == 0 {
            return None;
        }
        self.quiet_ticks = self.quiet_ticks.saturating_add(1);
        (self.quiet_ticks >= QUIET_TICKS).then(|| Edge::Ended(std::mem::take(self)))
    }
}

/// Something that there is or is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lasting {
    lasts: bool,
    quiet_ticks: u32,
}

impl Lasting {
    /// Whether it is so in this tick. Its end is told when it has not been so for a while.
    pub fn next(&mut self, now: bool) -> Option<Edge<()>> {
        if now {
            self.quiet_ticks = 0;
            return (!std::mem::replace(&mut self.lasts, true)).then_some(Edge::Begun);
        }
        self.quiet_ticks = self.quiet_ticks.saturating_add(1);
        if !self.lasts || self.quiet_ticks < QUIET_TICKS {
            return None;
        }
        self.lasts = false;
        Some(Edge::Ended(()))
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pressure_is_told_when_it_has_doubled_or_halved() {
        let mut pressed = Pressed::default();
        let told = [None, Some(1020), Some(1500), Some(2040), Some(1100), Some(1020), Some(1500), None, None]
            .map(|now| pressed.next(now));
        let changed = |from| Some(Edge::Changed(from));
        let expected = [
            None,
            Some(Edge::Begun),
            None,
            changed(1020),
            None,
            changed(2040),
            None,
            Some(Edge::Ended(1020)),
            None,
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_ceiling_is_told_when_it_falls_and_when_it_is_gone() {
        let mut imposed = Imposed::default();
        let told = [Some(800), Some(790), Some(700), Some(770), Some(847), Some(743), Some(742), None]
            .map(|now| imposed.next(now));
        let expected = [
            Some(Edge::Begun),
            None,
            Some(Edge::Changed(800)),
            None,
            None,
            None,
            Some(Edge::Changed(847)),
            Some(Edge::Ended(742)),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_row_of_orders_is_told_with_its_sum() {
        let mut taken = Taken::default();
        let told: Vec<_> = [0, 5, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0].map(|bytes| taken.next(bytes)).into();
        let told: Vec<_> = told.into_iter().flatten().collect();
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], Edge::Begun);
        assert!(matches!(told[1], Edge::Ended(Taken { bytes: 12, orders: 2, .. })), "{told:?}");
        assert_eq!(taken, Taken::default());
    }

    #[test]
    fn what_wavers_lasts() {
        let mut lasting = Lasting::default();
        assert_eq!(lasting.next(false), None);
        assert_eq!(lasting.next(true), Some(Edge::Begun));
        for _ in 0..100 {
            assert_eq!((lasting.next(false), lasting.next(true)), (None, None));
        }
        let told: Vec<_> = (0..2 * QUIET_TICKS).filter_map(|_| lasting.next(false)).collect();
        assert_eq!(told, [Edge::Ended(())]);
    }

    /// What somebody knows who hears nothing but edges.
    fn heard(known: Option<u64>, edge: Option<Edge<u64>>, now: Option<u64>) -> Option<u64> {
        match edge {
            None => known,
            Some(Edge::Begun) => {
                assert_eq!(known, None, "begun twice");
                now
            }
            Some(Edge::Changed(told)) => {
                assert!(known.is_some(), "changed before it began");
                assert_ne!(Some(told), now, "nothing changed");
                now
            }
            Some(Edge::Ended(_)) => {
                assert!(known.is_some(), "ended before it began");
                None
            }
        }
    }

    proptest! {
        /// Who hears nothing but edges knows whether there is pressure, and how hard but for a step; and what stays as it
        /// is makes none.
        #[test]
        fn pressure_is_known_but_for_a_step(
            values in prop::collection::vec(prop::option::of(1001u64..150_000), 1..200),
            repeat in 1usize..5,
        ) {
            let (mut pressed, mut known) = (Pressed::default(), None);
            for now in values {
                for again in 0..repeat {
                    let edge = pressed.next(now);
                    prop_assert!(again == 0 || edge.is_none());
                    known = heard(known, edge, now);
                    prop_assert_eq!(known.is_some(), now.is_some());
                    if let (Some(known), Some(now)) = (known, now) {
                        prop_assert!(now < known * STEP && known < now * STEP);
                    }
                }
            }
        }

        /// Who hears nothing but edges never believes a ceiling to be gone that is there, nor there that is gone; and one
        /// that stays makes none.
        #[test]
        fn a_ceiling_is_known_to_be_there(
            values in prop::collection::vec(prop::option::of(prop_oneof![0u64..9, 0u64..1 << 40]), 1..200),
            repeat in 1usize..5,
        ) {
            let (mut imposed, mut known) = (Imposed::default(), None);
            for now in values {
                for again in 0..repeat {
                    let edge = imposed.next(now);
                    prop_assert!(again == 0 || edge.is_none());
                    known = heard(known, edge, now);
                    prop_assert_eq!(known.is_some(), now.is_some());
                }
            }
        }

        /// All that was ordered is in the ends, and each row has one.
        #[test]
        fn what_was_ordered_adds_up(orders in prop::collection::vec(prop_oneof![Just(0u64), 1u64..1 << 40], 0..200)) {
            let mut taken = Taken::default();
            let (mut sum, mut begun, mut ended) = (0, 0, 0);
            let quiet = std::iter::repeat_n(0, QUIET_TICKS as usize);
            for bytes in orders.iter().copied().chain(quiet) {
                match taken.next(bytes) {
                    Some(Edge::Begun) => begun += 1,
                    Some(Edge::Ended(row)) => {
                        ended += 1;
                        sum += row.bytes;
                    }
                    _ => {}
                }
                prop_assert!(begun == ended || begun == ended + 1);
            }
            prop_assert_eq!((sum, begun), (orders.iter().sum::<u64>(), ended));
        }
    }
}
