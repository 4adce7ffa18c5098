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
    serde_json::from_slice(bytes).map_err(|error| {
        // It takes the line for all there is, and says that it is the first.
        let text = error.to_string();
        let told = text.rsplit_once(" at line ").map_or(text.as_str(), |(told, _)| told);
        let place = if error.column() > 0 { format!(" at column {}", error.column()) } else { String::new() };
        Error::Garbled { line, problem: format!("{told}{place}") }
    })
}

/// That `found` is the version that is read.
///
/// # Errors
/// It is not.
pub fn expect_version(found: u32, read: u32) -> Result<(), Error> {
    if found == read { Ok(()) } else { Err(Error::Version { found, read }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_line_is_said_with_its_number_alone() {
        let error = read::<u8>(7, b"{}", 10).unwrap_err().to_string();
        assert_eq!(error, "line 7 cannot be understood: invalid type: map, expected u8");
        let error = read::<u8>(7, b"12345678901", 10).unwrap_err();
        assert_eq!(error, Error::TooLong { line: 7, most: 10 });
        assert_eq!(expect_version(3, 4), Err(Error::Version { found: 3, read: 4 }));
        assert_eq!((read(7, b"8", 10), expect_version(4, 4)), (Ok(8), Ok(())));
    }
}
