//! How many files the daemon may have open: a link to each microVM, and some for itself. Wiring.

#![forbid(unsafe_code)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::{AsFd, AsRawFd};

/// Kept from links: for `/proc`, layers, the daemon's own sockets and those who ask there. Without them it could look at
/// no process and hear nobody.
const RESERVED: u64 = 128;

/// Takes as many as the host lets this process have. A service's filter may forbid that: then `LimitNOFILE=` says.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        log::debug!("cannot raise the limit of open files: {error}");
    }
}

/// Whether there are enough left beside this one: the host gives the lowest number that is free.
#[must_use]
pub fn leaves_enough(file: impl AsFd) -> bool {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u64::from(file.as_fd().as_raw_fd().unsigned_abs()) < most.saturating_sub(RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn some_are_kept() {
        let file = File::open("/proc/self/stat").unwrap();
        assert!(leaves_enough(&file));
        let most = u32::try_from(getrlimit(Resource::Nofile).current.unwrap().min(1 << 20)).unwrap();
        let last = i32::try_from(most - 1).unwrap();
        // Whatever has that number by chance is not looked at.
        let high = rustix::io::fcntl_dupfd_cloexec(&file, last).unwrap();
        assert!(!leaves_enough(&high) || most == 1 << 20);
    }
}
