//! How the host itself does for memory, from files that `ballast` opened. Wiring.

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
        let stall = self.pressure.as_ref().and_then(|file| stall_ppm(&text(file)));
        let available = self.meminfo.as_ref().and_then(|file| available_permille(&text(file)));
        Pressure {
            stall_ppm: stall.unwrap_or(Pressure::UNKNOWN.stall_ppm),
            available_permille: available.unwrap_or(Pressure::UNKNOWN.available_permille),
        }
    }
}

fn text(file: &File) -> String {
    let mut text = vec![0; TEXT_BYTES];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    text.truncate(length);
    String::from_utf8_lossy(&text).into_owned()
}

/// `some avg10=1.25 ...` is 12500.
fn stall_ppm(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let (whole, hundredths) =
        some.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?.split_once('.')?;
    let hundredths = hundredths.parse::<u64>().ok().filter(|_| hundredths.len() == 2)?;
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(hundredths)?.checked_mul(100)
}

fn available_permille(text: &str) -> Option<u64> {
    let kib = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    kib("MemAvailable:")?.checked_mul(1000)?.checked_div(kib("MemTotal:")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_tells() {
        let pressure = "some avg10=1.25 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(stall_ppm(pressure), Some(12_500));
        assert_eq!(stall_ppm("some avg10=0.00 avg60"), Some(0));
        assert_eq!(stall_ppm("some avg10=x.y"), None);
        let meminfo = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    4000 kB\n";
        assert_eq!(available_permille(meminfo), Some(250));
        assert_eq!(available_permille("MemTotal: 0 kB\nMemAvailable: 1 kB\n"), None);
        assert_eq!(Files::default().read(), Pressure::UNKNOWN);
    }
}
