//! What each may take of the host's reserve under pressure, without asking.

/// Grants of at most `wanted` each, together at most `reserve_bytes`: all who want no more than an equal part get what
/// they want, and the others the same.
pub(super) fn divide(reserve_bytes: u64, wanted: &[u64], granted: &mut Vec<u64>) {
    granted.clear();
    granted.resize(wanted.len(), 0);
    let mut left = reserve_bytes;
    let open = |granted: &[u64]| {
        let open = wanted.iter().zip(granted).filter(|(wanted, granted)| granted < wanted);
        u64::try_from(open.count()).unwrap_or(u64::MAX)
    };
    // Each round satisfies somebody, or is the last. Four leave less than a sixteenth to who wants much.
    for _ in 0..4 {
        let Some(part) = left.checked_div(open(granted)).filter(|part| *part > 0) else { break };
        for (wanted, granted) in wanted.iter().zip(granted.iter_mut()) {
            let more = wanted.saturating_sub(*granted).min(part);
            *granted = granted.saturating_add(more);
            left = left.saturating_sub(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_wants_little_gets_it() {
        let mut granted = Vec::new();
        divide(100, &[10, 80, 80, 0], &mut granted);
        assert_eq!(granted, [10, 45, 45, 0]);
    }

    proptest! {
        #[test]
        fn never_more_than_there_is_or_is_wanted(
            reserve in 0..1u64 << 50,
            wanted in prop::collection::vec(0..1u64 << 40, 0..50),
        ) {
            let mut granted = Vec::new();
            divide(reserve, &wanted, &mut granted);
            prop_assert!(granted.iter().sum::<u64>() <= reserve);
            prop_assert!(granted.iter().zip(&wanted).all(|(granted, wanted)| granted <= wanted));
        }
    }
}
