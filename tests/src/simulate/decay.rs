//! Exponentials that are the same on every machine, and fast in rows.
//!
//! The C library picks its `exp` by the processor, and the results differ in the last bit; a simulation must not. Pure.

/// Reuse bins of a guest. With [`RATIO`] between neighbours they span a quarter of a second to seven hours.
pub const BINS: usize = 24;

/// One number for each bin.
pub type Row = [f32; BINS];

/// Mean reuse interval of the first bin, in seconds.
const FIRST_S: f32 = 0.25;

/// Ratio of the reuse intervals of neighbouring bins.
const RATIO: f32 = 1.65;

/// 2 to the power of `x`, with a relative error below 1e-6 for -120 <= x <= 120; outside, that of the bound.
///
/// Without a branch or a call, so that rows of it become vector code on every x86-64.
#[must_use]
#[inline]
pub fn exp2(x: f32) -> f32 {
    /// Added to a small number, it leaves the nearest whole one in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-120.0, 120.0);
    let rounded = x + ROUND;
    let part = x - (rounded - ROUND);
    // Taylor's series of 2^part about 0, where memory does not decay and the result must be exact.
    let series = 1.0
        + part
            * (std::f32::consts::LN_2
                + part
                    * (0.240_226_5
                        + part
                            * (0.055_504_1
                                + part * (0.009_618_13 + part * (0.001_333_36 + part * 0.000_154_035)))));
    let exponent = (rounded.to_bits() << 23).wrapping_add(127 << 23);
    series * f32::from_bits(exponent)
}

/// Mean reuse interval of each bin, in seconds.
#[must_use]
pub fn intervals() -> Row {
    let mut interval = FIRST_S / RATIO;
    std::array::from_fn(|_| {
        interval *= RATIO;
        interval
    })
}

/// Reuse rate of each bin, in log2 units a second, so that [`survive`] needs no constant.
#[must_use]
pub fn rates() -> Row {
    intervals().map(|interval| std::f32::consts::LOG2_E / interval)
}

/// For each bin the probability that a page is not used for `seconds`.
#[must_use]
pub fn survive(rates: &Row, seconds: f32) -> Row {
    let mut row = [0.0; BINS];
    for (out, rate) in row.iter_mut().zip(rates) {
        *out = exp2(-rate * seconds);
    }
    row
}

/// The sum of products, in eight interleaved sums as vector units take it.
#[must_use]
#[inline]
pub fn dot(left: &Row, right: &Row) -> f64 {
    let mut sums = [0.0_f32; 8];
    for (left, right) in left.chunks_exact(8).zip(right.chunks_exact(8)) {
        for lane in 0..8 {
            sums[lane] += left[lane] * right[lane];
        }
    }
    f64::from(((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7])))
}

/// The sum of a row.
#[must_use]
pub fn sum(row: &Row) -> f64 {
    dot(row, &[1.0; BINS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_close_to_the_true_ones() {
        for step in -1900..=1900 {
            let x = f64::from(step) / 16.0;
            let relative = (f64::from(exp2(x as f32)) / x.exp2() - 1.0).abs();
            assert!(relative < 1e-6, "{x}: {relative}");
        }
        assert!((exp2(0.0) - 1.0).abs() < f32::EPSILON);
    }

    #[test]
    fn intervals_span_what_matters() {
        let intervals = intervals();
        assert!(intervals[0] < 1.0 && intervals[BINS - 1] > 6.0 * 3600.0);
        let unused = survive(&rates(), 100.0);
        for (interval, share) in intervals.iter().zip(unused) {
            assert!((f64::from(share) - (-100.0 / f64::from(*interval)).exp()).abs() < 1e-4);
        }
    }
}
