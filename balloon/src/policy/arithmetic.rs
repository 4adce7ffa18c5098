//! Integer arithmetic that cannot fail: products in 128 bits, results saturated, and nothing divided by zero.

/// `value * part / whole`, rounded down; as much as there can be if `whole` is zero or the result does not fit.
pub(super) fn scale(value: u64, part: u64, whole: u64) -> u64 {
    let scaled = match value.checked_mul(part) {
        Some(product) => product.checked_div(whole),
        None => u128::from(value)
            .checked_mul(part.into())
            .and_then(|product| product.checked_div(whole.into()))
            .and_then(|scaled| u64::try_from(scaled).ok()),
    };
    scaled.unwrap_or(if value == 0 || part == 0 { 0 } else { u64::MAX })
}

/// So many thousandths of `value`.
pub(super) fn permille(value: u64, thousandths: u64) -> u64 {
    scale(value, thousandths, 1000)
}

/// So many millionths of `value`.
pub(super) fn ppm(value: u64, millionths: u64) -> u64 {
    scale(value, millionths, 1_000_000)
}
