//! How many files the daemon may have open: a link to each microVM, a file to watch it by, and some for itself. Wiring.

#![forbid(unsafe_code)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::{AsFd, AsRawFd};

/// Kept from links: for `/proc`, layers, the daemon's own sockets and those who ask there. Without them it could look at
/// no process and hear nobody.
const RESERVED: u64 = 128;

/// Takes as many as the host lets this process have.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::warn!("cannot raise the limit of open files, a link to each microVM among them: {error}");
    }
}

/// Whether there are enough left beside this one.
#[must_use]
pub fn leaves_enough(file: impl AsFd) -> bool {
    let most = getrlimit(Resource::Nofile).current;
    is_below_reserve(file.as_fd().as_raw_fd().unsigned_abs().into(), most)
}

/// Whether so few are open that another one, which only saves work, is no link's loss: less than half.
#[must_use]
pub fn are_plenty(file: impl AsFd) -> bool {
    let most = getrlimit(Resource::Nofile).current;
    is_in_lower_half(file.as_fd().as_raw_fd().unsigned_abs().into(), most)
}

fn is_in_lower_half(number: u64, most: Option<u64>) -> bool {
    most.is_none_or(|most| number < most / 2)
}

/// The host gives the lowest number that is free (open(2)): so many files are open at most.
fn is_below_reserve(number: u64, most: Option<u64>) -> bool {
    most.is_none_or(|most| number < most.saturating_sub(RESERVED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_kept() {
        for (number, most, is_fine) in [
            (3, Some(1024), true),
            (895, Some(1024), true),
            (896, Some(1024), false),
            (0, Some(100), false),
            (u64::MAX, None, true),
        ] {
            assert_eq!(is_below_reserve(number, most), is_fine, "{number} of {most:?}");
        }
        assert!(is_in_lower_half(511, Some(1024)) && is_in_lower_half(u64::MAX, None));
        assert!(!is_in_lower_half(512, Some(1024)) && !is_in_lower_half(0, Some(0)));
    }
}
