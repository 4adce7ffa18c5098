//! What a disk is to the block device: a run of bytes that can be read, written and given back.

#![forbid(unsafe_code)]

use super::lookup::Slice;
use std::io;

/// A disk's contents. Offsets and lengths are in bytes; the caller checks that they lie within
/// [`len_bytes`](Self::len_bytes) and are multiples of 512.
///
/// Each operation is done wholly or fails; after a failure the range holds old bytes, new bytes or a mixture.
pub trait Backend: Send {
    /// The length of the disk. Never changes.
    fn len_bytes(&self) -> u64;

    /// Whether [`discard`](Self::discard) ever does anything. Never changes.
    fn can_discard(&self) -> bool;

    /// Fills the slices, in order, from `offset` on.
    ///
    /// # Errors
    /// The host could not read all of it.
    fn read_at(&mut self, offset: u64, into: &[Slice<'_>]) -> io::Result<()>;

    /// Writes the slices, in order, from `offset` on. They may lie in mappings that only allow reading.
    ///
    /// # Errors
    /// The host could not write all of it.
    fn write_at(&mut self, offset: u64, from: &[Slice<'_>]) -> io::Result<()>;

    /// Makes all that was written survive a crash of the host.
    ///
    /// # Errors
    /// The host could not.
    fn flush(&mut self) -> io::Result<()>;

    /// Gives the storage of a range back, as far as the host can; what it holds then is undefined.
    ///
    /// # Errors
    /// The host failed in it.
    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes a range read zero, giving its storage back if `unmap` is set.
    ///
    /// # Errors
    /// The host could not.
    fn write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) -> io::Result<()>;
}
