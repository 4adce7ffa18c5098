//! How much memory the host allows a VMM in all: its guest's, the image layers it maps, disks that are memory, and room for
//! itself. Pure.
//!
//! The limit is a net below the guest's own limits, not a tool of policy: a guest that keeps within its memory never
//! meets it, however it behaves. So the room is generous where being wrong kills a microVM, and still small beside it.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// Memory of a VMM that does not grow with its guest: 1 to 3 MiB of its own, less than 1 MiB of KVM's and of kernel
/// stacks, 3 pipes of 64 KiB, and, at worst, 16 clients of the control socket of 150 KiB each and the bounded logs and
/// queues of the devices. Charges are taken in batches of 64 pages a CPU and given back at the limit: they do not count.
const VMM_BYTES: u64 = 16 << 20;

/// A vCPU: KVM's structures and saved registers (16 KiB), a kernel stack (16 KiB), a thread's stack and arena (200 KiB at
/// most were seen).
const VCPU_BYTES: u64 = 512 << 10;

/// A disk: its thread, and its bounce buffers.
const DISK_BYTES: u64 = 2 << 20;

/// Page tables take 8 bytes for each page of 4 KiB that is mapped: those of this process, those of the guest (EPT, NPT),
/// and KVM's reverse map where it shadows a guest's guest. Their upper levels and KVM's books of each table add less than
/// a fourth of one.
const TABLES: u64 = 4;
const PAGES_BYTES_PER_TABLE_BYTE: u64 = 512;

/// The parts of the limit on a VMM, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostLimit {
    /// The guest's memory: its `max`.
    pub guest_bytes: u64,
    /// Image layers that it maps. The host charges a page of them to whoever touched it first, which may be this one for
    /// all of them, and is neither to be reclaimed nor killed for it.
    pub shared_bytes: u64,
    /// Disks in this host's memory (tmpfs). It is charged for what it writes to them, and it cannot be reclaimed without swap.
    pub disk_bytes: u64,
    /// Room for the VMM and what the kernel keeps for it.
    pub room_bytes: u64,
}

impl HostLimit {
    /// The limit on a guest of `size_bytes` with so many `cpus` and `disks`, which maps layers of `shared_bytes` and can write
    /// `disk_bytes` to disks in memory.
    #[must_use]
    pub fn new(size_bytes: u64, shared_bytes: u64, disk_bytes: u64, cpus: u64, disks: u64) -> Self {
        let mapped = size_bytes.saturating_add(shared_bytes);
        let tables = (mapped / PAGES_BYTES_PER_TABLE_BYTE).saturating_mul(TABLES);
        let threads = VCPU_BYTES.saturating_mul(cpus).saturating_add(DISK_BYTES.saturating_mul(disks));
        Self {
            guest_bytes: size_bytes,
            shared_bytes,
            disk_bytes,
            room_bytes: VMM_BYTES.saturating_add(tables).saturating_add(threads),
        }
    }

    /// What `memory.max` is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let files = self.shared_bytes.saturating_add(self.disk_bytes);
        self.guest_bytes.saturating_add(files).saturating_add(self.room_bytes)
    }

    /// What `memory.max` can be without a kill where it is `now_bytes` and `charge_bytes` are charged: itself, or on the
    /// way down a little more than the charge.
    #[must_use]
    pub fn reachable(&self, now_bytes: u64, charge_bytes: u64) -> u64 {
        self.bytes().max(charge_bytes.saturating_add(VMM_BYTES).min(now_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_small_guest_has_room_and_a_large_one_no_waste() {
        let small = HostLimit::new(512 * MIB, 100 * MIB, 0, 1, 0);
        assert_eq!(small.bytes(), 512 * MIB + 100 * MIB + small.room_bytes);
        assert!((20 * MIB..24 * MIB).contains(&small.room_bytes), "{small:?}");
        let large = HostLimit::new(64 << 30, 0, 0, 16, 4);
        assert!(large.room_bytes < large.guest_bytes / 100, "{large:?}");
        assert_eq!(HostLimit::new(u64::MAX, u64::MAX, u64::MAX, u64::MAX, 0).bytes(), u64::MAX);
    }

    #[test]
    fn a_disk_in_memory_can_be_filled() {
        let [without, with] =
            [0, 8 << 30].map(|bytes| HostLimit::new(512 * MIB, 100 * MIB, bytes, 1, 1).bytes());
        assert_eq!(with - without, 8 << 30);
    }

    #[test]
    fn a_limit_falls_with_the_charge_and_rises_at_once() {
        let limit = HostLimit { guest_bytes: 100 * MIB, shared_bytes: 0, disk_bytes: 0, room_bytes: 0 };
        assert_eq!(limit.reachable(300 * MIB, 10 * MIB), 100 * MIB);
        assert_eq!(limit.reachable(300 * MIB, 200 * MIB), 200 * MIB + VMM_BYTES);
        assert_eq!(limit.reachable(300 * MIB, 299 * MIB), 300 * MIB, "it never rises on its way down");
        assert_eq!(limit.reachable(50 * MIB, 50 * MIB), 100 * MIB);
        assert_eq!(limit.reachable(u64::MAX, u64::MAX), u64::MAX);
    }
}
