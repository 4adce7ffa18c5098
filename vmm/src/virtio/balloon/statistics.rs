//! Reads the guest's statistics from the driver's buffer. What the numbers say is the device's to judge.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use crate::virtio::buffers::{self, Buffers};
use crate::virtio::device::Memory;
use crate::virtio::queue::Chain;
use balloon::backing::Kernel;
use balloon::device;

/// Descriptors of a buffer of statistics: one, of Linux.
const DESCRIPTORS: usize = 32;

/// Fills `bytes` with the numbers in `chain` and returns how long they are; nothing if the chain is unusable.
pub(super) fn read<K: Kernel>(
    device: &mut device::Balloon<K>,
    buffers: &mut Buffers,
    chain: Chain<'_>,
    memory: &Memory,
    bytes: &mut [u8],
) -> Option<u64> {
    if buffers.collect(chain, DESCRIPTORS).is_err() {
        device.malformed_chain();
        return None;
    }
    let len_bytes = buffers::total(buffers.readable());
    let read = usize::try_from(len_bytes).unwrap_or(usize::MAX).min(bytes.len());
    if !buffers.writable().is_empty()
        || !buffers::read(memory, buffers.readable(), 0, bytes.split_at_mut(read).0)
    {
        device.unusable_buffer();
        return None;
    }
    Some(len_bytes)
}
