//! Kernel release strings: which are believable, and which of two is newer.
//!
//! Pure. Used wherever a release comes out of a file and where the newest of several kernels is wanted.

use std::cmp::Ordering;

/// Longest release that a kernel can report: `__NEW_UTS_LEN` of `include/uapi/linux/utsname.h`.
pub const MAX_RELEASE_BYTES: usize = 64;

/// Whether `release` can be a kernel release. It is used as the name of a directory under `/lib/modules`, so
/// nothing that means something in a path is let through.
pub fn is_release(release: &str) -> bool {
    release.len() <= MAX_RELEASE_BYTES
        && release.starts_with(|c: char| c.is_ascii_digit())
        && release.chars().all(|c| c.is_ascii_alphanumeric() || ".-_+~".contains(c))
}

/// Orders releases by age, oldest first: runs of digits compare as numbers, `~` sorts before everything and
/// even before the end (the rule of Debian's version policy and of `sort --version-sort`).
pub fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    loop {
        let (left_text, right_text) = (take_text(&mut left), take_text(&mut right));
        let text = rank(left_text).cmp(rank(right_text));
        let number = || compare_numbers(take_number(&mut left), take_number(&mut right));
        match text.then_with(number) {
            Ordering::Equal if left.is_empty() && right.is_empty() => return Ordering::Equal,
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
}

fn take_while<'a>(rest: &mut &'a [u8], wanted: impl Fn(&u8) -> bool) -> &'a [u8] {
    let length = rest.iter().take_while(|byte| wanted(byte)).count();
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    head
}

fn take_text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    take_while(rest, |byte| !byte.is_ascii_digit())
}

fn take_number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    take_while(rest, u8::is_ascii_digit)
}

/// Letters before other characters, `~` before the end, as in Debian's `verrevcmp`.
fn rank(text: &[u8]) -> impl Iterator<Item = u16> + '_ {
    let value = |byte: &u8| match byte {
        b'~' => 0,
        letter if letter.is_ascii_alphabetic() => u16::from(*letter).saturating_add(1),
        other => u16::from(*other).saturating_add(0x200),
    };
    text.iter().map(value).chain(std::iter::once(1))
}

/// Numbers of any length, without their leading zeros.
fn compare_numbers(left: &[u8], right: &[u8]) -> Ordering {
    let significant =
        |digits: &[u8]| digits.iter().copied().skip_while(|digit| *digit == b'0').collect::<Vec<_>>();
    let (left, right) = (significant(left), significant(right));
    left.len().cmp(&right.len()).then(left.cmp(&right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn newer_releases_are_greater() {
        let ascending = [
            "5.10.0-30-amd64",
            "6.1.0-9-amd64",
            "6.1.0-56-amd64",
            "6.1.0-56-cloud-amd64",
            "6.12~rc1-amd64",
            "6.12-amd64",
            "6.12.9+deb12-cloud-amd64",
            "6.12.117+deb12-cloud-amd64",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
    }

    #[test]
    fn releases_that_are_paths_are_refused() {
        for release in ["", "..", "6.1/../..", "6.1 x", "6.1\n", "/etc", &"6".repeat(65)] {
            assert!(!is_release(release), "{release:?}");
        }
        assert!(is_release("6.12.117+deb12-cloud-amd64"));
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[0-9a-z.~+-]{0,12}", b in "[0-9a-z.~+-]{0,12}", c in "[0-9a-z.~+-]{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            let mut three = [a.as_str(), &b, &c];
            three.sort_by(|x, y| compare(x, y));
            prop_assert_ne!(compare(three[0], three[2]), Ordering::Greater);
        }

        #[test]
        fn numbers_compare_as_numbers(a in 0u64.., b in 0u64..) {
            prop_assert_eq!(compare(&a.to_string(), &b.to_string()), a.cmp(&b));
        }
    }
}
