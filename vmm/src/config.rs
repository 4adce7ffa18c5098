//! What `ballast` hands to `ballast-vmm`: one JSON document that names open file descriptors, never paths.
//!
//! The command line opens everything and executes `ballast-vmm` with this document on a descriptor of its
//! own; from then on the VMM opens nothing. Both ends are built from this file, so there is no version.

use crate::cgroup::room::HostLimit;
use balloon::policy::Mode;
use balloon::zone::{BOOT_ZONE, Limits};
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;

/// Whole pages of a kernel's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePart {
    /// Where they begin in the file.
    pub offset: u64,
    /// Where in guest memory they are loaded.
    pub address: u64,
    /// How long they are.
    pub bytes: u64,
}

/// A whole microVM, as `ballast-vmm` receives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// The name in messages.
    pub name: String,
    /// The image, as the user named it.
    pub image: String,
    /// The path of its group in the zone tree; empty is none.
    pub group: String,
    /// What it may hold and what it is left, until that is changed. Without a max it may use all of its memory; one below
    /// it is also in the specification ([`proto::Spec::memory_max_bytes`]).
    pub limits: Limits,
    /// Guest memory, zone by zone, at least one.
    pub zones: Vec<ZoneConfig>,
    /// Number of vCPUs.
    pub cpus: u8,
    /// `/dev/kvm`, open for reading and writing.
    pub kvm: RawFd,
    /// The kernel, an uncompressed ELF image.
    pub kernel: RawFd,
    /// What of it is mapped copy-on-write instead of read, and so shared with other guests; the file is never changed.
    pub kernel_shared: Option<ImagePart>,
    /// Release of the kernel, as `uname -r` will say.
    pub kernel_release: String,
    /// The initramfs: agent and modules.
    pub initramfs: RawFd,
    /// The kernel command line, without what the VMM adds for its devices.
    pub command_line: String,
    /// The image's layers, each an EROFS file for virtio-pmem, in the order in which devices appear.
    pub layers: Vec<LayerConfig>,
    /// Volumes and disks for virtio-blk, in the order in which devices appear.
    pub disks: Vec<DiskConfig>,
    /// The workload's standard streams.
    pub stdio: StdioConfig,
    /// The encoded workload specification, handed to the agent as it is (`proto::Spec`).
    pub spec: RawFd,
    /// Where outcome and resize requests travel: a socket shared with `ballast`.
    pub control: RawFd,
    /// The control socket's listening end, where others ask and say things about this microVM over HTTP
    /// ([`crate::control`]).
    pub listener: RawFd,
    /// The virtio-balloon's feature bits that are offered to the guest (virtio 1.3, 5.5.3), of those that there are
    /// ([`balloon::device::OFFERED`]).
    pub balloon_features: u64,
    /// The reclaim law.
    pub reclaim: ReclaimConfig,
    /// The cgroup that the VMM is in; absent where the host has none for it.
    pub host_cgroup: Option<HostCgroupConfig>,
    /// A guest that has not started its workload after so many seconds never will.
    pub start_limit_s: u64,
    /// Show the kernel's messages from the first line on, through an emulated serial port: slow.
    pub boot_log: bool,
}

impl VmConfig {
    /// Guest memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.zones.iter().fold(0, |sum, zone| sum.saturating_add(zone.bytes))
    }
}

/// The reclaim law of a microVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReclaimConfig {
    /// What it may use.
    pub mode: Mode,
    /// Memory that is used at least that often is kept; absent: as its group says, or by default.
    pub working_set_age_ms: Option<u64>,
    /// Share of time that the guest may lose to memory stalls, in millionths; absent likewise.
    pub stall_budget_ppm: Option<u64>,
    /// The host's `/proc/pressure/memory`, for reading; absent where it has none.
    pub host_pressure: Option<RawFd>,
    /// The host's `/proc/meminfo`, for reading.
    pub host_meminfo: Option<RawFd>,
    /// A pipe to whoever writes down what the law is told and decides. Writing to it does not block.
    pub recording: Option<RawFd>,
}

/// A private zone of guest memory. Where there are several each is a node of the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneConfig {
    /// Its name.
    pub name: String,
    /// Its size: a multiple of [`balloon::BLOCK_BYTES`], and of
    /// [`SECTION_BYTES`](balloon::zone::SECTION_BYTES) where there are several.
    pub bytes: u64,
    /// Node of the host from which it is taken while that has memory.
    pub host_node: Option<u32>,
    /// The host may use huge pages for it.
    pub huge_pages: bool,
}

impl ZoneConfig {
    /// The only zone of a microVM.
    #[must_use]
    pub fn only(bytes: u64) -> Self {
        Self { name: BOOT_ZONE.into(), bytes, host_node: None, huge_pages: true }
    }
}

/// The VMM's cgroup on the host, as open files of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostCgroupConfig {
    /// `memory.max`, for reading and writing.
    pub memory_max: RawFd,
    /// `memory.current`, for reading.
    pub memory_current: RawFd,
    /// `memory.events`, for reading.
    pub memory_events: RawFd,
    /// `memory.stat`, for reading.
    pub memory_stat: RawFd,
    /// What its limit consists of.
    pub limit: HostLimit,
}

/// One read-only layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerConfig {
    /// The EROFS file, open for reading.
    pub file: RawFd,
    /// The first digits of its key.
    pub name: String,
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The raw disk image or block device, open as the guest may use it.
    pub file: RawFd,
    /// What messages call it.
    pub name: String,
    /// What the guest reads as the disk's serial number, at most 20 bytes.
    pub serial: String,
    /// The guest may not write.
    pub read_only: bool,
}

/// The VMM's ends of the workload's streams: pipes, non-blocking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StdioConfig {
    /// Read end; nothing is sent to the guest where absent, which then sees the end of the stream.
    pub stdin: Option<RawFd>,
    /// Write end.
    pub stdout: RawFd,
    /// Write end.
    pub stderr: RawFd,
}
