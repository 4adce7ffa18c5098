//! What a document writes as a text and a type reads from it: who writes something else is told what to write.

#![forbid(unsafe_code)]

use serde::Deserializer;
use serde::de::{Error, Visitor};
use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

/// A type that documents write as a text.
pub trait Written: FromStr<Err: Display> {
    /// What to write instead of something that is no text, such as `a time such as "300s"`.
    const EXPECTED: &'static str;
}

/// Reads what is written as a text; for `deserialize_with`.
///
/// # Errors
/// It is no text, or not one of `T`'s.
pub fn read<'de, T: Written, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Text<T>(PhantomData<T>);

    impl<T: Written> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(T::EXPECTED)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text(PhantomData))
}
