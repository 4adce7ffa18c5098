//! A line of a recording: one JSON document of a bounded length. Pure; what the documents are say
//! [`crate::policy::trace`] and [`crate::control::host_trace`].

#![forbid(unsafe_code)]

use serde::de::DeserializeOwned;

/// A line is none of a recording of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is longer than any.
    #[error("line {line} has more than {most} bytes: this is no such recording")]
    TooLong {
        /// Which, from one.
        line: u64,
        /// Bytes of the longest line.
        most: usize,
    },
    /// It says nothing.
    #[error("line {line} cannot be understood: {problem}")]
    Garbled {
        /// Which, from one.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The recording is of another format.
    #[error(
        "the recording is of version {found}, and this program reads version {read}: use the one that made it"
    )]
    Version {
        /// Its version.
        found: u32,
        /// That of this program.
        read: u32,
    },
}

impl Error {
    /// There is not even a first line.
    #[must_use]
    pub fn empty() -> Self {
        Self::Garbled { line: 1, problem: "there is nothing in it".into() }
    }
}

/// Reads the line of number `line`, from one, given without its end, of a recording whose longest has `most` bytes.
///
/// # Errors
/// It is longer, or no such document.
pub fn read<T: DeserializeOwned>(line: u64, bytes: &[u8], most: usize) -> Result<T, Error> {
    if bytes.len() > most {
        return Err(Error::TooLong { line, most });
    }
    serde_json::from_slice(bytes).map_err(|error| Error::Garbled { line, problem: error.to_string() })
}

/// That `found` is the version that is read.
///
/// # Errors
/// It is not.
pub fn expect_version(found: u32, read: u32) -> Result<(), Error> {
    if found == read { Ok(()) } else { Err(Error::Version { found, read }) }
}
