//! From the addresses a guest names to host memory that the kernel can transfer to and from.
//!
//! What the device writes lies in RAM. What it reads may also lie in a read-only mapping: a program in the
//! guest may write a page of its own text with `O_DIRECT`, and that page is an image layer's. A slice is made
//! for whole ranges only, cut at the borders of regions, never from a start alone.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use crate::virtio::buffers::Buffer;
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};

/// Guest memory in this process.
pub type Slice<'m> = VolatileSlice<'m, ()>;

/// The slices of `buffers`, which the device writes, or nothing if any of it is not RAM.
pub fn writable<'m>(
    ram: &'m GuestMemoryMmap<()>,
    buffers: impl Iterator<Item = Buffer>,
) -> Option<Vec<Slice<'m>>> {
    let mut slices = Vec::new();
    for buffer in buffers {
        push(&mut slices, ram, buffer)?;
    }
    Some(slices)
}

/// The slices of `buffers`, which the device reads: each in RAM or in `read_only`, or nothing at all.
pub fn readable<'m>(
    ram: &'m GuestMemoryMmap<()>,
    read_only: &'m GuestMemoryMmap<()>,
    buffers: impl Iterator<Item = Buffer>,
) -> Option<Vec<Slice<'m>>> {
    let mut slices = Vec::new();
    for buffer in buffers {
        push(&mut slices, ram, buffer).or_else(|| push(&mut slices, read_only, buffer))?;
    }
    Some(slices)
}

/// Appends all of `buffer`, or nothing.
fn push<'m>(slices: &mut Vec<Slice<'m>>, memory: &'m GuestMemoryMmap<()>, buffer: Buffer) -> Option<()> {
    let before = slices.len();
    let len = usize::try_from(buffer.len).ok()?;
    for slice in GuestMemoryBackend::get_slices(memory, buffer.address, len) {
        let Ok(slice) = slice else {
            slices.truncate(before);
            return None;
        };
        slices.push(slice);
    }
    Some(())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    const RAM: u64 = 0x1_0000;
    const RAM_END: u64 = 0x4_0000;
    const LAYER: u64 = 0x8_0000;
    const LAYER_END: u64 = 0x9_0000;

    fn ram() -> GuestMemoryMmap<()> {
        let region = |start, end| (GuestAddress(start), (end - start) as usize);
        GuestMemoryMmap::from_ranges(&[region(RAM, 0x2_0000), region(0x2_0000, RAM_END)]).unwrap()
    }

    fn layer() -> GuestMemoryMmap<()> {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(LAYER), (LAYER_END - LAYER) as usize)]).unwrap()
    }

    fn within(buffer: &Buffer, start: u64, end: u64) -> bool {
        let last = u128::from(buffer.address.0) + u128::from(buffer.len);
        buffer.address.0 >= start && last <= u128::from(end)
    }

    proptest! {
        #[test]
        fn only_ranges_wholly_inside_are_found(
            buffers in prop::collection::vec(
                (prop_oneof![0u64..0xa_0000, u64::MAX - 0x100..=u64::MAX], 1u32..0x3_0000), 1..5),
        ) {
            let (ram, layer) = (ram(), layer());
            let buffers: Vec<_> =
                buffers.iter().map(|&(at, len)| Buffer { address: GuestAddress(at), len }).collect();
            let in_ram = |b: &Buffer| within(b, RAM, RAM_END);
            let in_either = |b: &Buffer| in_ram(b) || within(b, LAYER, LAYER_END);
            let len = |slices: Vec<Slice<'_>>| slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
            let total = crate::virtio::buffers::total(&buffers);
            prop_assert_eq!(
                writable(&ram, buffers.iter().copied()).map(len),
                buffers.iter().all(in_ram).then_some(total));
            prop_assert_eq!(
                readable(&ram, &layer, buffers.iter().copied()).map(len),
                buffers.iter().all(in_either).then_some(total));
        }
    }

    #[test]
    fn a_range_across_two_regions_is_cut_at_the_border() {
        let ram = ram();
        ram.write_slice(&[1, 2, 3, 4], GuestAddress(0x1_fffe)).unwrap();
        let buffer = Buffer { address: GuestAddress(0x1_fffe), len: 4 };
        let slices = writable(&ram, [buffer].into_iter()).unwrap();
        let mut bytes = [[0u8; 2]; 2];
        assert_eq!(slices.iter().zip(&mut bytes).map(|(s, b)| s.copy_to(b)).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(bytes, [[1, 2], [3, 4]]);
    }
}
