//! How the host itself does for memory, from files that `ballast` opened. Wiring.

use balloon::policy::fleet::Host;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Longer than `/proc/meminfo` is to where it says what is available.
const TEXT_BYTES: usize = 512;

/// The host's own memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Share of time in which some task of the host waited for memory, lately (`some avg10`), in millionths.
    pub stall_ppm: u64,
    /// Share of its memory that is available, in thousandths.
    pub available_permille: u64,
}

impl Pressure {
    /// Of a host that does not tell: then it is taken to be well off, as most are.
    pub const UNKNOWN: Self = Self { stall_ppm: 0, available_permille: 1000 };
}

/// `/proc/pressure/memory` and `/proc/meminfo` of the host, open; what cannot be had is absent.
#[derive(Debug, Default)]
pub struct Files {
    /// The first.
    pub pressure: Option<File>,
    /// The second.
    pub meminfo: Option<File>,
}

impl Files {
    /// What they say now.
    #[must_use]
    pub fn read(&self) -> Pressure {
        let read = |file: &Option<File>| file.as_ref().map(text).unwrap_or_default();
        let host = Host::parse(&read(&self.meminfo), &read(&self.pressure));
        Pressure {
            stall_ppm: host.stall_ppm,
            available_permille: host.available_permille().unwrap_or(Pressure::UNKNOWN.available_permille),
        }
    }
}

fn text(file: &File) -> String {
    let mut text = vec![0; TEXT_BYTES];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    text.truncate(length);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_tells_nothing_is_taken_to_be_well_off() {
        assert_eq!(Files::default().read(), Pressure::UNKNOWN);
        let open = |path: &str| File::open(path).ok();
        let files = Files { pressure: open("/proc/pressure/memory"), meminfo: open("/proc/meminfo") };
        assert!((1..1000).contains(&files.read().available_permille));
    }
}
