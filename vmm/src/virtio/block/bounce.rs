//! Copies between guest memory and a buffer that direct I/O accepts.
//!
//! Used where a transfer is not aligned as the file wants it: a program in the guest may read into any
//! address, and a disk may have larger blocks than 512 bytes.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::lookup::Slice;

/// Bytes of the buffer: large enough that a transfer costs few calls, small beside the VMM.
pub const BOUNCE_BYTES: usize = 64 << 10;

/// A buffer of [`BOUNCE_BYTES`] at an aligned address.
#[derive(Debug)]
pub struct Bounce {
    bytes: Vec<u8>,
    start: usize,
}

impl Bounce {
    /// A buffer whose address is a multiple of `alignment`, a power of two.
    #[must_use]
    pub fn new(alignment: usize) -> Self {
        let bytes = vec![0; BOUNCE_BYTES.saturating_add(alignment)];
        let start = bytes.as_ptr().align_offset(alignment);
        Self { bytes, start }
    }

    /// The buffer's first `len` bytes.
    pub fn get(&mut self, len: usize) -> &mut [u8] {
        let end = self.start.saturating_add(len.min(BOUNCE_BYTES));
        self.bytes.get_mut(self.start..end).unwrap_or_default()
    }
}

/// A position in the run of bytes that slices are, in order.
#[derive(Debug)]
pub struct Cursor<'a, 'm> {
    slices: &'a [Slice<'m>],
    within: usize,
}

impl<'a, 'm> Cursor<'a, 'm> {
    /// The start of `slices`.
    #[must_use]
    pub fn new(slices: &'a [Slice<'m>]) -> Self {
        Self { slices, within: 0 }
    }

    /// Fills `bytes` from the slices and moves on; stops at their end.
    pub fn read(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while let Some(slice) = self.piece(rest.len()) {
            let (now, later) = rest.split_at_mut(slice.len().min(rest.len()));
            slice.copy_to(now);
            rest = later;
        }
    }

    /// Writes `bytes` to the slices and moves on; stops at their end.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(slice) = self.piece(rest.len()) {
            let (now, later) = rest.split_at(slice.len().min(rest.len()));
            slice.copy_from(now);
            rest = later;
        }
    }

    /// The next contiguous piece, at most `max` bytes; nothing at the end or if no more is wanted.
    fn piece(&mut self, max: usize) -> Option<Slice<'m>> {
        if max == 0 {
            return None;
        }
        loop {
            let slice = self.slices.first()?;
            let left = slice.len().saturating_sub(self.within);
            if left == 0 {
                self.slices = self.slices.split_first()?.1;
                self.within = 0;
                continue;
            }
            let len = left.min(max);
            let piece = slice.subslice(self.within, len).ok()?;
            self.within = self.within.saturating_add(len);
            return Some(piece);
        }
    }
}

/// One round through the buffer: `len` bytes of the file from `start` on, both aligned, of which those
/// between `from` and `to` are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First byte in the file.
    pub start: u64,
    /// Bytes in the file and in the buffer.
    pub len: usize,
    /// First byte wanted, from the start of the buffer.
    pub from: usize,
    /// One past the last byte wanted.
    pub to: usize,
}

impl Window {
    /// Some bytes of it are not wanted, so a write must read them first.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.from != 0 || self.to != self.len
    }

    /// The wanted bytes of `buffer`, which holds the window.
    pub fn wanted<'b>(&self, buffer: &'b mut [u8]) -> &'b mut [u8] {
        buffer.get_mut(self.from..self.to).unwrap_or_default()
    }
}

/// The windows that cover `len` bytes of a file from `offset` on, where the file takes only multiples of
/// `alignment`, a power of two of at most [`BOUNCE_BYTES`].
pub fn windows(alignment: u64, offset: u64, len: u64) -> impl Iterator<Item = Window> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    std::iter::from_fn(move || {
        let before = at.checked_rem(alignment)?;
        let start = at.checked_sub(before)?;
        let stop = end.min(start.checked_add(BOUNCE_BYTES as u64)?);
        let wanted = stop.checked_sub(at).filter(|&wanted| wanted > 0)?;
        at = stop;
        let to = before.checked_add(wanted)?;
        Some(Window {
            start,
            len: usize::try_from(to.checked_next_multiple_of(alignment)?).ok()?,
            from: usize::try_from(before).ok()?,
            to: usize::try_from(to).ok()?,
        })
    })
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_aligned() {
        for alignment in [1, 512, 4096, 1 << 16] {
            let mut bounce = Bounce::new(alignment);
            assert_eq!(bounce.get(BOUNCE_BYTES + 1).len(), BOUNCE_BYTES);
            assert_eq!(bounce.get(10).as_ptr() as usize % alignment, 0);
        }
    }

    proptest! {
        #[test]
        fn windows_cover_a_range_once(
            exponent in 0u32..=16,
            offset in 0u64..1 << 20,
            len in 0u64..1 << 19,
        ) {
            let alignment = 1 << exponent;
            let mut at = offset;
            for window in windows(alignment, offset, len) {
                prop_assert!(window.start.is_multiple_of(alignment));
                prop_assert!((window.len as u64).is_multiple_of(alignment));
                prop_assert!(window.len <= BOUNCE_BYTES);
                prop_assert!(window.from < window.to && window.to <= window.len);
                prop_assert_eq!(window.start + window.from as u64, at);
                prop_assert!((window.from as u64) < alignment);
                prop_assert!(((window.len - window.to) as u64) < alignment);
                at = window.start + window.to as u64;
            }
            prop_assert_eq!(at, offset + len);
        }

        #[test]
        fn slices_are_one_run(
            lens in prop::collection::vec(0usize..20, 0..6),
            cuts in prop::collection::vec(0usize..30, 0..8),
        ) {
            let mut backing: Vec<Vec<u8>> = lens.iter().map(|&len| vec![0; len]).collect();
            let total: usize = lens.iter().sum();
            let data: Vec<u8> = (1..=total as u8).collect();
            let slices: Vec<Slice<'_>> =
                backing.iter_mut().map(|bytes| Slice::from(bytes.as_mut_slice())).collect();
            let mut writer = Cursor::new(&slices);
            let mut reader = Cursor::new(&slices);
            let mut rest = data.as_slice();
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                writer.write(now);
                let mut back = vec![0; now.len()];
                reader.read(&mut back);
                prop_assert_eq!(back, now);
                rest = later;
            }
            writer.write(rest);
            drop(slices);
            prop_assert_eq!(backing.concat(), data);
        }
    }
}
