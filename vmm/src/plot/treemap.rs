//! A rectangle divided in proportion to weights, into parts that are as square as can be (Bruls, Huizing and van Wijk,
//! "Squarified Treemaps", 2000). Pure.

#![forbid(unsafe_code)]

/// A rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Frame {
    /// Its left edge.
    pub x: f64,
    /// Its upper edge.
    pub y: f64,
    /// To its right edge.
    pub width: f64,
    /// To its lower edge.
    pub height: f64,
}

impl Frame {
    /// How large it is.
    #[must_use]
    pub fn area(&self) -> f64 {
        self.width * self.height
    }

    /// What is left of it with so much less on each side; nothing of one that is too small.
    #[must_use]
    pub fn within(&self, left: f64, top: f64, right: f64, bottom: f64) -> Self {
        let width = (self.width - left - right).max(0.0);
        let height = (self.height - top - bottom).max(0.0);
        Self { x: self.x + left, y: self.y + top, width, height }
    }
}

/// A part of `frame` for each of `weights`, in their order, in proportion to them. What weighs nothing, or is no number, has
/// no area.
#[must_use]
pub fn squarify(weights: &[f64], frame: Frame) -> Vec<Frame> {
    let mut parts = vec![Frame { x: frame.x, y: frame.y, ..Frame::default() }; weights.len()];
    let sound = |weight: f64| weight.is_finite() && weight > 0.0;
    let mut order: Vec<(usize, f64)> =
        weights.iter().copied().enumerate().filter(|(_, weight)| sound(*weight)).collect();
    order.sort_by(|left, right| right.1.total_cmp(&left.1));
    let sum: f64 = order.iter().map(|(_, weight)| weight).sum();
    if !sound(sum) || !sound(frame.area()) {
        return parts;
    }
    let scale = frame.area() / sum;
    let mut areas: &[(usize, f64)] =
        &order.into_iter().map(|(at, weight)| (at, weight * scale)).collect::<Vec<_>>();
    let mut rest = frame;
    while !areas.is_empty() {
        let (row, others) = areas.split_at(row_length(areas, rest.width.min(rest.height)));
        rest = lay(row, others.is_empty(), rest, &mut parts);
        areas = others;
    }
    parts
}

/// How many of `areas`, which descend, make the row along `side` whose parts are most square.
fn row_length(areas: &[(usize, f64)], side: f64) -> usize {
    let Some((_, most)) = areas.first() else { return 0 };
    let (mut sum, mut worst) = (0.0, f64::INFINITY);
    for (length, (_, area)) in areas.iter().enumerate() {
        sum += area;
        let thickness = sum / side;
        let ratio = (most / (thickness * thickness)).max(thickness * thickness / area);
        if ratio > worst {
            return length;
        }
        worst = ratio;
    }
    areas.len()
}

/// Lays a row along the shorter side of `rest`, and gives what is left of it.
fn lay(row: &[(usize, f64)], is_last: bool, rest: Frame, parts: &mut [Frame]) -> Frame {
    let sum: f64 = row.iter().map(|(_, area)| area).sum();
    let is_column = rest.width >= rest.height;
    let (side, depth) = if is_column { (rest.height, rest.width) } else { (rest.width, rest.height) };
    // What rounding left goes to the last.
    let thickness = if is_last { depth } else { (sum / side).min(depth) };
    let mut from = 0.0;
    for (at, area) in row {
        let length = (area / sum * side).min(side - from).max(0.0);
        let Some(part) = parts.get_mut(*at) else { continue };
        *part = if is_column {
            Frame { x: rest.x, y: rest.y + from, width: thickness, height: length }
        } else {
            Frame { x: rest.x + from, y: rest.y, width: length, height: thickness }
        };
        from += length;
    }
    if is_column { rest.within(thickness, 0.0, 0.0, 0.0) } else { rest.within(0.0, thickness, 0.0, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: Frame = Frame { x: 10.0, y: 20.0, width: 600.0, height: 400.0 };

    #[test]
    fn the_papers_own_example() {
        let frame = Frame { x: 0.0, y: 0.0, width: 6.0, height: 4.0 };
        let parts = squarify(&[6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0], frame);
        assert_eq!(parts[0], Frame { x: 0.0, y: 0.0, width: 3.0, height: 2.0 });
        assert_eq!(parts[1], Frame { x: 0.0, y: 2.0, width: 3.0, height: 2.0 });
        assert!((parts[2].width - 12.0 / 7.0).abs() < 1e-9 && (parts[2].height - 7.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_has_no_area() {
        assert!(squarify(&[], FRAME).is_empty());
        let parts = squarify(&[0.0, f64::NAN, -1.0, f64::INFINITY, 5.0], FRAME);
        assert!(parts[..4].iter().all(|part| part.area() == 0.0));
        assert_eq!(parts[4], FRAME);
        assert!(squarify(&[1.0], Frame::default()).iter().all(|part| part.area() == 0.0));
    }

    fn overlap(left: &Frame, right: &Frame) -> f64 {
        let along = |a: f64, to_a: f64, b: f64, to_b: f64| ((a + to_a).min(b + to_b) - a.max(b)).max(0.0);
        along(left.x, left.width, right.x, right.width) * along(left.y, left.height, right.y, right.height)
    }

    proptest! {
        #[test]
        fn areas_are_in_proportion_within_the_frame_and_apart(
            weights in prop::collection::vec(prop_oneof![Just(0.0), 0.001..1.0, 1.0..1e12], 0..60),
            width in 1.0..2000.0, height in 1.0..2000.0,
        ) {
            let frame = Frame { width, height, ..FRAME };
            let sum: f64 = weights.iter().sum();
            let parts = squarify(&weights, frame);
            prop_assert_eq!(parts.len(), weights.len());
            let bit = 1e-6 * frame.area();
            for (part, weight) in parts.iter().zip(&weights) {
                prop_assert!((part.area() - weight / sum.max(f64::MIN_POSITIVE) * frame.area()).abs() < bit);
                prop_assert!(part.x >= frame.x - 1e-6 && part.y >= frame.y - 1e-6);
                prop_assert!(part.x + part.width <= frame.x + width + 1e-6);
                prop_assert!(part.y + part.height <= frame.y + height + 1e-6);
            }
            for (at, left) in parts.iter().enumerate() {
                prop_assert!(parts[at + 1..].iter().all(|right| overlap(left, right) < bit));
            }
        }

        #[test]
        fn equals_are_nearly_square(count in 1usize..100) {
            let parts = squarify(&vec![1.0; count], Frame { width: 500.0, height: 500.0, ..FRAME });
            for part in parts {
                let ratio = (part.width / part.height).max(part.height / part.width);
                prop_assert!(ratio < 3.0, "{ratio} of {count}");
            }
        }
    }
}
