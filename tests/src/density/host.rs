//! What a host says of its memory and of microVMs' shares of it. Wiring.

use std::fs;
use std::io;

type Failure = Box<dyn std::error::Error>;

/// All of the host's memory and what is available of it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// `MemTotal`.
    pub total: u64,
    /// `MemAvailable`.
    pub available: u64,
}

impl Memory {
    /// As it is now.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn now() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib: Option<u64> = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
            kib.map(|kib| kib << 10).ok_or_else(|| io::Error::other(format!("/proc/meminfo has no {name}")))
        };
        Ok(Self { total: of("MemTotal")?, available: of("MemAvailable")? })
    }

    /// What is available, in thousandths of all.
    #[must_use]
    pub const fn permille(self) -> u64 {
        match (self.available * 1000).checked_div(self.total) {
            Some(permille) => permille,
            None => 0,
        }
    }
}

/// The VMM of a `ballast run` in the foreground.
///
/// # Errors
/// There is none.
pub fn vmm_of(run: u32) -> Result<u32, Failure> {
    let children = fs::read_to_string(format!("/proc/{run}/task/{run}/children"))?;
    Ok(children.split_whitespace().next().ok_or("`ballast run` has no VMM")?.parse()?)
}

/// A number in a file of the cgroup of `pid`, behind `name` in its line; 0 on a host without a cgroup for it.
///
/// # Errors
/// There is no such process.
pub fn cgroup_number(pid: u32, file: &str, name: &str) -> io::Result<u64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let text = fs::read_to_string(format!("/sys/fs/cgroup{path}/{file}")).unwrap_or_default();
    let number = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(number.and_then(|bytes| bytes.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_available_than_there_is() {
        let memory = Memory::now().unwrap();
        assert!(memory.available <= memory.total && memory.permille() <= 1000);
        assert_eq!(Memory { total: 2000, available: 30 }.permille(), 15);
    }
}
