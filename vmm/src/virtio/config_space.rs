//! A device's configuration space as the bytes that the driver reads (virtio 1.3, 2.5).
//!
//! Devices compose theirs once or on each read; the transport passes reads of any offset and width on.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

/// Fills `data` with `space` from byte `offset` on. What lies beyond its end reads zero.
pub fn read(space: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|offset| space.get(offset..)).unwrap_or_default();
    let present = rest.len().min(data.len());
    let (head, tail) = data.split_at_mut(present);
    head.copy_from_slice(rest.split_at(present).0);
    tail.fill(0);
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_like_a_space_with_endless_zeros(
            space in prop::collection::vec(any::<u8>(), 0..64),
            offset in prop_oneof![0u64..80, any::<u64>()],
            len in 0usize..16,
        ) {
            let mut data = vec![0xaa; len];
            read(&space, offset, &mut data);
            for (i, byte) in data.iter().enumerate() {
                let at = usize::try_from(u128::from(offset) + i as u128).ok();
                prop_assert_eq!(*byte, at.and_then(|at| space.get(at)).copied().unwrap_or(0));
            }
        }
    }
}
