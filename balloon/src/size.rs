//! Sizes of memory as people write them: `512m`, `1g`, `1GiB`.
//!
//! Pure. The command line parses with it, every table and message formats with it.

use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// A number of bytes. In documents it is written as people write it, or as a plain number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "Written")]
pub struct Size(u64);

/// What stands in a document.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a size: a text such as \"512m\", or a number of bytes")]
enum Written {
    Bytes(u64),
    Text(String),
}

/// A text that is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSizeError {
    /// The text does not begin with a number, or with one that is not whole.
    #[error("'{0}' is not a size: write a whole number and a unit, such as 512m, 1g or 1GiB")]
    NotANumber(String),
    /// The letters after the number are no unit.
    #[error("'{unit}' in '{text}' is not a unit of size: use b, k, m, g or t (powers of 1024)")]
    Unit {
        /// What was written.
        text: String,
        /// Its unknown unit.
        unit: String,
    },
    /// The size does not fit 64 bits.
    #[error("'{0}' is larger than any memory")]
    TooLarge(String),
}

impl Size {
    /// A size of `bytes` bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in the largest unit of which it is a whole number, as it can be typed: `512 MiB`, `1536 MiB`. For
    /// messages in which neighbouring sizes must differ.
    #[must_use]
    pub fn exact(self) -> String {
        let whole = UNITS.iter().find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift);
        whole.map_or_else(|| format!("{} B", self.0), |(unit, shift)| format!("{} {unit}", self.0 >> shift))
    }
}

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl FromStr for Size {
    type Err = ParseSizeError;

    /// Reads docker's and Kubernetes' spellings: a whole number, then nothing or `b`, or `k`, `m`, `g`, `t`
    /// alone or followed by `b` or `ib`, in either case. All units are powers of 1024, as docker's are. Spaces may
    /// stand before the unit, as [`Display`](fmt::Display) writes it.
    ///
    /// # Errors
    /// The text is no number, has an unknown unit, or exceeds 64 bits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(ParseSizeError::NotANumber(text.into()));
        }
        let unit = unit.trim_start();
        if unit.starts_with(['.', ',']) {
            return Err(ParseSizeError::NotANumber(text.into()));
        }
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(ParseSizeError::Unit { text: text.into(), unit: unit.into() }),
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| ParseSizeError::TooLarge(text.into()))
    }
}

impl TryFrom<Written> for Size {
    type Error = ParseSizeError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl fmt::Display for Size {
    /// Writes the size in the largest unit in which it is at least one, with one digit after the point
    /// unless it is whole: `512 MiB`, `1.5 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in UNITS {
            let whole = self.0 >> shift;
            if whole > 0 {
                let rest = self.0 & ((1 << shift) - 1);
                let tenth = (u128::from(rest) * 10) >> shift;
                return if rest == 0 {
                    write!(f, "{whole} {unit}")
                } else {
                    write!(f, "{whole}.{tenth} {unit}")
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        let mib = 1 << 20;
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("7b", 7),
            ("4k", 4096),
            ("512m", 512 * mib),
            ("512M", 512 * mib),
            ("512MB", 512 * mib),
            ("1g", 1024 * mib),
            ("1GiB", 1024 * mib),
            (" 2t ", 2 << 40),
            ("8 GiB", 8 << 30),
            ("7 B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Size::from_bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in [
            "",
            "m",
            "-1",
            "1.5g",
            "1x",
            "1 0",
            "1 g b",
            "99999999999999999999",
            "18446744073709551615k",
            "1gg",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn writes_the_largest_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (3 << 29, "1.5 GiB"),
            (512 << 20, "512 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(Size::from_bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_fraction_is_refused_as_what_it_is() {
        for text in ["1.5g", "0,5 GiB", ".5g"] {
            let error = text.parse::<Size>().unwrap_err();
            assert_eq!(error, ParseSizeError::NotANumber(text.into()), "{error}");
        }
    }

    #[test]
    fn what_is_exact_tells_neighbours_apart() {
        for (bytes, text) in [
            (0, "0 B"),
            (512 << 20, "512 MiB"),
            ((512 << 20) + 1, "536870913 B"),
            (3 << 29, "1536 MiB"),
            (97 << 10, "97 KiB"),
            (1 << 63, "8388608 TiB"),
        ] {
            assert_eq!(Size::from_bytes(bytes).exact(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_exact_can_be_typed(bytes in any::<u64>(), shift in 0u32..64) {
            let size = Size::from_bytes(bytes << shift);
            prop_assert_eq!(size.exact().parse(), Ok(size));
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = text.parse::<Size>();
        }

        #[test]
        fn what_is_printed_exactly_can_be_typed(n in 0u64..1024, shift in prop::sample::select(vec![0, 10, 20, 30, 40])) {
            let size = Size::from_bytes(n << shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn whole_mebibytes_survive(n in 0u64..1 << 20) {
            prop_assert_eq!(format!("{n}m").parse::<Size>(), Ok(Size::from_bytes(n << 20)));
        }
    }
}
