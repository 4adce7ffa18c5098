//! What was seen on the host, as plain data. [`super::probe`] fills it in, [`super::judge`] reads it.

use crate::cli::host_cgroup::Obstacle;
use crate::kernel::{self, KernelSource, Survey};
use std::io;
use std::path::PathBuf;

/// Everything that was looked at.
#[derive(Debug)]
pub(super) struct Facts {
    pub kvm: Kvm,
    /// The CPU says that a hypervisor runs below: this host is itself a guest.
    pub in_hypervisor: bool,
    /// The kernel, or why there is none.
    pub kernel: Result<KernelSource, kernel::Error>,
    /// What its modules offer, or why that is not enough.
    pub survey: Option<Result<Survey, kernel::Error>>,
    /// `ballast-vmm`, or why there is none.
    pub vmm: Result<PathBuf, String>,
    /// The guest's agent, or why it cannot be used.
    pub agent: Result<PathBuf, String>,
    pub mkfs_erofs: MkfsErofs,
    pub memory: Option<Memory>,
    pub swaps: Vec<Swap>,
    /// The directory in which microVMs get cgroups, and with them limits on this host.
    pub cgroup: Result<PathBuf, Obstacle>,
    /// `/proc/pressure/memory` can be read.
    pub pressure: bool,
    pub user: User,
    pub data: Directory,
    pub state: Directory,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kvm {
    /// There is no `/dev/kvm`.
    Missing,
    /// It is there and cannot be opened.
    Closed(io::ErrorKind),
    /// It answers as an interface that is not known.
    Version(i32),
    /// It lacks capabilities, by name.
    Lacking(Vec<String>),
    /// It can do everything and refuses to create a machine.
    Refusing(String),
    /// It has created a machine.
    Working {
        /// The module that does the work: `kvm_intel`, `kvm_amd` or another.
        backend: Option<String>,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum MkfsErofs {
    Missing,
    Failing(String),
    /// What it printed of itself.
    Found(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Swap {
    pub name: String,
    pub size_bytes: u64,
    pub used_bytes: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub root: bool,
    pub name: String,
    /// What stands against user namespaces, if anything.
    pub namespaces: Result<(), String>,
    /// Subordinate user and group ids.
    pub subordinate_ids: (u64, u64),
    /// `newuidmap` and `newgidmap` are installed.
    pub map_programs: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub path: PathBuf,
    /// The first of its parents that exists, or itself.
    pub existing: PathBuf,
    /// This user may write there.
    pub writable: bool,
    /// The file system's type, where known.
    pub file_system: Option<String>,
    pub free_bytes: Option<u64>,
    /// Files can be opened with `O_DIRECT`, where that could be tried.
    pub direct: Option<bool>,
    /// Files take extended attributes of users, where that could be tried.
    pub user_xattrs: Option<bool>,
}
