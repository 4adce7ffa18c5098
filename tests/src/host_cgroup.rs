//! The cgroup of a VMM, as the host shows it.

use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};

/// Where cgroup v2 is mounted.
///
/// # Panics
/// It is not.
#[must_use]
pub fn mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let point = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| point.into())
    });
    mount.expect("no cgroup v2 is mounted")
}

/// A cgroup of the host.
#[derive(Clone, Debug)]
pub struct HostCgroup(pub PathBuf);

impl HostCgroup {
    /// The one that a process is in.
    #[must_use]
    pub fn of(process: Pid) -> Self {
        let text = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        Self(mount().join(path.trim_start_matches('/')))
    }

    /// A file of it.
    #[must_use]
    pub fn read(&self, file: &str) -> String {
        let path = self.0.join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A file that is one number.
    #[must_use]
    pub fn number(&self, file: &str) -> u64 {
        self.read(file).trim().parse().unwrap()
    }

    /// A number of a file with many.
    #[must_use]
    pub fn value(&self, file: &str, name: &str) -> u64 {
        let text = self.read(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {file}:\n{text}")).parse().unwrap()
    }

    /// Writes a file of it.
    pub fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).unwrap();
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}
