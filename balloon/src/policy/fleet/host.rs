//! The host's own memory, as `proc(5)` tells it.

use crate::policy::arithmetic::scale;
use serde::{Deserialize, Serialize};

/// What the host has. What it does not tell is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// All its memory.
    pub total_bytes: u64,
    /// What is available of it.
    pub available_bytes: u64,
    /// Its memory pressure, `some avg10`.
    pub stall_ppm: u64,
    /// Swap that is free.
    #[serde(default)]
    pub swap_free_bytes: u64,
}

impl Host {
    /// What `/proc/meminfo` and `/proc/pressure/memory` say.
    #[must_use]
    pub fn parse(meminfo: &str, pressure: &str) -> Self {
        let field = |name| kib(meminfo, name).unwrap_or(0);
        Self {
            total_bytes: field("MemTotal"),
            available_bytes: field("MemAvailable"),
            stall_ppm: some_avg10_ppm(pressure).unwrap_or(0),
            swap_free_bytes: field("SwapFree"),
        }
    }

    /// The share of its memory that is available; nothing of a host that is not known.
    #[must_use]
    pub fn available_permille(&self) -> Option<u64> {
        (self.total_bytes > 0).then(|| scale(self.available_bytes, 1000, self.total_bytes))
    }

    /// The same with `bytes` less available.
    pub(super) fn less(&self, bytes: u64) -> Self {
        Self { available_bytes: self.available_bytes.saturating_sub(bytes), ..*self }
    }

    /// Whether so little is available. Of a host that is not known nothing is said.
    pub(super) fn is_below(&self, thousandths: u64) -> bool {
        self.available_permille().is_some_and(|available| available < thousandths)
    }
}

/// The line `name:  N kB`, in bytes.
pub(crate) fn kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// `some avg10=1.25 ...` is 12500.
fn some_avg10_ppm(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, hundredths) = average.split_once('.')?;
    let hundredths = hundredths.parse::<u64>().ok().filter(|_| hundredths.len() == 2)?;
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(hundredths)?.checked_mul(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells_what_it_has() {
        let meminfo =
            "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    4000 kB\nSwapFree: 8 kB\n";
        let pressure = "some avg10=1.25 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n";
        let host = Host {
            total_bytes: 16_000 << 10,
            available_bytes: 4000 << 10,
            stall_ppm: 12_500,
            swap_free_bytes: 8 << 10,
        };
        assert_eq!(Host::parse(meminfo, pressure), host);
        assert_eq!(host.available_permille(), Some(250));
        assert_eq!(Host::parse("", "some avg10=x.y"), Host::default());
        assert_eq!(Host::parse("MemAvailable: 1 kB\n", "").available_permille(), None);
    }
}
