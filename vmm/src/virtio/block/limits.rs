//! What the device announces in features and configuration, and so what a request may ask for.
//!
//! Pure. Each limit is told to the driver where the protocol has a field for it, so that a Linux guest never
//! meets a refusal; a driver that ignores them does.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::request::Disk;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

/// Entries of the one queue. Linux' default queue depth is the same.
pub const QUEUE_SIZE: u16 = 256;

/// Data descriptors in a request: the queue without header and status.
pub const MAX_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;

/// Bytes in a data descriptor: what the Linux block layer takes where a device names no size
/// (`BLK_MAX_SEGMENT_SIZE`), so naming it costs nothing and bounds a request.
pub const MAX_SEGMENT_BYTES: u32 = 64 << 10;

/// Data bytes in a read or write: just below 16 MiB.
pub const MAX_REQUEST_BYTES: u32 = MAX_SEGMENTS * MAX_SEGMENT_BYTES;

/// Ranges in a discard. Several let the guest's block layer merge what a file system frees together.
pub const MAX_DISCARD_RANGES: u32 = 16;

/// Sectors in one range of a discard: 1 GiB, which a host file system unmaps in milliseconds.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 21;

/// Sectors in the one range of a write-zeroes request: 16 MiB, as much as a write, because the host may have
/// to write the zeros.
pub const MAX_ZEROES_SECTORS: u32 = 1 << 15;

/// The block that host file systems and disks work in best, as a power of two of sectors: 4 KiB.
const PHYSICAL_BLOCK_EXP: u8 = 3;

/// Bytes of the configuration that the offered features define (`struct virtio_blk_config`, 5.2.4).
const CONFIG_BYTES: usize = 60;

/// The feature bits of a disk.
#[must_use]
pub fn features(disk: Disk) -> u64 {
    let always = bit(VIRTIO_BLK_F_SIZE_MAX)
        | bit(VIRTIO_BLK_F_SEG_MAX)
        | bit(VIRTIO_BLK_F_BLK_SIZE)
        | bit(VIRTIO_BLK_F_TOPOLOGY)
        | bit(VIRTIO_BLK_F_FLUSH);
    let discard = if disk.discards { bit(VIRTIO_BLK_F_DISCARD) } else { 0 };
    always | if disk.read_only { bit(VIRTIO_BLK_F_RO) } else { discard | bit(VIRTIO_BLK_F_WRITE_ZEROES) }
}

/// Whether the driver takes care of flushing. One that does not gets every write flushed (5.2.6.2).
#[must_use]
pub fn driver_flushes(features: u64) -> bool {
    features & bit(VIRTIO_BLK_F_FLUSH) != 0
}

const fn bit(feature: u32) -> u64 {
    1 << feature
}

/// The configuration space of a disk.
#[must_use]
pub fn config(disk: Disk) -> Vec<u8> {
    let sector = 512u32;
    let mut space = Vec::with_capacity(CONFIG_BYTES);
    space.extend(disk.sectors.to_le_bytes());
    space.extend(MAX_SEGMENT_BYTES.to_le_bytes());
    space.extend(MAX_SEGMENTS.to_le_bytes());
    // Geometry: not offered.
    space.extend([0; 4]);
    // The logical block stays 512 whatever the host's disk has, so that an image may move between hosts.
    space.extend(sector.to_le_bytes());
    // Topology: exponent, alignment offset, minimum and optimal I/O size in logical blocks.
    space.extend([PHYSICAL_BLOCK_EXP, 0]);
    space.extend((1u16 << PHYSICAL_BLOCK_EXP).to_le_bytes());
    space.extend(0u32.to_le_bytes());
    // Cache mode and number of queues: not offered.
    space.extend([0; 4]);
    space.extend(MAX_DISCARD_SECTORS.to_le_bytes());
    space.extend(MAX_DISCARD_RANGES.to_le_bytes());
    space.extend((1u32 << PHYSICAL_BLOCK_EXP).to_le_bytes());
    space.extend(MAX_ZEROES_SECTORS.to_le_bytes());
    space.extend(1u32.to_le_bytes());
    // Writing zeroes may give storage back.
    space.extend([1, 0, 0, 0]);
    space
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_bindings::virtio_blk::virtio_blk_config;

    /// The kernel's own structure says where each field lies.
    #[test]
    fn fields_lie_where_the_driver_reads_them() {
        let disk = Disk { sectors: 0x0102_0304_0506_0708, read_only: false, discards: true };
        let space = config(disk);
        assert_eq!(space.len(), CONFIG_BYTES);
        let at = |offset: usize, len: usize| {
            space[offset..offset + len].iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte))
        };
        let field = |offset, wanted: u32| assert_eq!(at(offset, 4), u64::from(wanted), "at {offset}");
        assert_eq!(at(std::mem::offset_of!(virtio_blk_config, capacity), 8), disk.sectors);
        field(std::mem::offset_of!(virtio_blk_config, size_max), MAX_SEGMENT_BYTES);
        field(std::mem::offset_of!(virtio_blk_config, seg_max), MAX_SEGMENTS);
        field(std::mem::offset_of!(virtio_blk_config, blk_size), 512);
        assert_eq!(at(std::mem::offset_of!(virtio_blk_config, physical_block_exp), 1), 3);
        assert_eq!(at(std::mem::offset_of!(virtio_blk_config, min_io_size), 2), 8);
        field(std::mem::offset_of!(virtio_blk_config, max_discard_sectors), MAX_DISCARD_SECTORS);
        field(std::mem::offset_of!(virtio_blk_config, max_discard_seg), MAX_DISCARD_RANGES);
        field(std::mem::offset_of!(virtio_blk_config, discard_sector_alignment), 8);
        field(std::mem::offset_of!(virtio_blk_config, max_write_zeroes_sectors), MAX_ZEROES_SECTORS);
        field(std::mem::offset_of!(virtio_blk_config, max_write_zeroes_seg), 1);
        assert_eq!(at(std::mem::offset_of!(virtio_blk_config, write_zeroes_may_unmap), 1), 1);
    }

    #[test]
    fn only_what_can_be_done_is_offered() {
        let disk = Disk { sectors: 1, read_only: false, discards: true };
        assert_eq!(features(disk), 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9 | 1 << 10 | 1 << 13 | 1 << 14);
        let solid = Disk { discards: false, ..disk };
        assert_eq!(features(solid), features(disk) & !(1 << 13));
        let fixed = Disk { read_only: true, ..disk };
        assert_eq!(features(fixed), 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 10);
    }
}
