//! The agent's one kind of error: a sentence about what was being done, and what the kernel said.
//!
//! Every error ends the set-up, and only its words are used then, so there are no variants to match on.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;

/// What was being done when it failed, and why.
#[derive(Debug)]
pub struct Error {
    doing: String,
    source: Option<io::Error>,
}

impl Error {
    /// A failure that is not the kernel's.
    pub fn new(what: impl Into<String>) -> Self {
        Self { doing: what.into(), source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

/// Says what was being done when a call failed.
pub trait Doing<T> {
    /// Wraps the error; `what` is a phrase such as "mounting the root".
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error> {
        self.map_err(|source| Error { doing: what().into(), source: Some(source.into()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_line() {
        let result: Result<(), _> = Err(rustix::io::Errno::NOENT).doing(|| "opening /x");
        assert_eq!(chain(&result.unwrap_err()), "opening /x: No such file or directory (os error 2)");
    }
}
