//! Values of `ballast set` that are a figure or a word. Pure.

use balloon::size::{ParseSizeError, Size};
use std::str::FromStr;

/// `--memory-ceiling`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ceiling {
    Size(Size),
    Auto,
}

impl FromStr for Ceiling {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().eq_ignore_ascii_case("auto") { Ok(Self::Auto) } else { text.parse().map(Self::Size) }
    }
}

/// `--node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Number(u32),
    Any,
}

impl Node {
    /// Its number; nothing: the host chooses.
    pub(super) fn number(self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(number),
            Self::Any => None,
        }
    }
}

impl FromStr for Node {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().eq_ignore_ascii_case("any") { Ok(Self::Any) } else { text.parse().map(Self::Number) }
    }
}

/// `--memory-max`, `--memory-high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Size(Size),
    Max,
}

impl Limit {
    /// Its bytes; nothing is no such limit.
    pub(super) fn bytes(self) -> Option<u64> {
        match self {
            Self::Size(size) => Some(size.bytes()),
            Self::Max => None,
        }
    }
}

impl FromStr for Limit {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().eq_ignore_ascii_case("max") { Ok(Self::Max) } else { text.parse().map(Self::Size) }
    }
}

/// What a microVM is told itself, or has from its group again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inherits<T> {
    Own(T),
    Auto,
}

impl<T> Inherits<T> {
    /// What it is told itself.
    pub(super) fn own(self) -> Option<T> {
        match self {
            Self::Own(value) => Some(value),
            Self::Auto => None,
        }
    }
}

impl<T: FromStr> FromStr for Inherits<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().eq_ignore_ascii_case("auto") { Ok(Self::Auto) } else { text.parse().map(Self::Own) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_sizes_or_auto() {
        assert_eq!("Auto".parse(), Ok(Ceiling::Auto));
        assert_eq!("256m".parse(), Ok(Ceiling::Size(Size::from_bytes(256 << 20))));
        assert!("automatic".parse::<Ceiling>().is_err());
    }
}
