//! How much one archive may claim: entries, bytes, holes, and how far it may expand.
//!
//! Pure. The unpacker charges every member before it writes anything, so that a claim of terabytes is refused
//! before the first byte; the decompressor charges what comes out of it.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use thiserror::Error;

use super::member::Member;

const GIB: u64 = 1 << 30;

/// Bounds on one layer.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Members.
    pub entries: u64,
    /// Length of all files together in bytes, holes included: what the image file will hold, uncompressed.
    pub layer_bytes: u64,
    /// Bytes of files that the archive does not store. EROFS as written here stores holes as zeros.
    pub hole_bytes: u64,
    /// Bytes after an archive's end mark, which nobody uses but a layer's digest covers.
    pub trailer_bytes: u64,
    /// Bytes of an archive that comes by a pipe and is copied first.
    pub pipe_bytes: u64,
    /// A compressed stream may grow to this multiple of its size...
    pub expansion: u64,
    /// ...or to this many bytes, whichever is more.
    pub expansion_floor_bytes: u64,
}

impl Default for Limits {
    /// Far above real images (the largest published layers hold some 20 GiB, the fullest root file systems half
    /// a million files) and far below what hurts a host: deflate alone could expand 1,032 times. `tar` fills its last
    /// record, by default of 10 KiB and on tapes of a few MiB, with zeros. A piped archive may hold two of the
    /// largest layers.
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            layer_bytes: 64 * GIB,
            hole_bytes: GIB,
            trailer_bytes: 64 << 20,
            pipe_bytes: 128 * GIB,
            expansion: 200,
            expansion_floor_bytes: GIB,
        }
    }
}

/// A limit that an archive exceeds.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LimitError {
    /// Too many members.
    #[error("the archive holds more than {0} entries")]
    Entries(u64),
    /// Too much data.
    #[error("{name:?} brings the layer to more than {limit} bytes")]
    Bytes {
        /// The member at which it happened.
        name: String,
        /// [`Limits::layer_bytes`].
        limit: u64,
    },
    /// A sparse file that is nearly all hole.
    #[error(
        "{name:?} claims {size} bytes and stores {stored}: holes may take {limit} bytes of a layer in all"
    )]
    Holes {
        /// The member.
        name: String,
        /// The claimed length in bytes.
        size: u64,
        /// Bytes of data in the archive.
        stored: u64,
        /// [`Limits::hole_bytes`].
        limit: u64,
    },
    /// No end after the end.
    #[error("more than {0} bytes follow the archive's end mark: they belong to no file")]
    Trailer(u64),
    /// A pipe that does not end.
    #[error("more than {0} bytes come out of the pipe: write the archive to a file and import that")]
    Pipe(u64),
    /// A decompression bomb.
    #[error("{compressed} compressed bytes expand to more than {limit} bytes: this is taken for a bomb")]
    Expansion {
        /// Bytes consumed so far.
        compressed: u64,
        /// Bytes they may yield.
        limit: u64,
    },
}

/// What is used of the limits so far.
#[derive(Debug)]
pub struct Budget<'a> {
    limits: &'a Limits,
    entries: u64,
    bytes: u64,
    holes: u64,
}

impl<'a> Budget<'a> {
    /// Nothing used.
    pub fn new(limits: &'a Limits) -> Self {
        Self { limits, entries: 0, bytes: 0, holes: 0 }
    }

    /// Charges one member.
    ///
    /// # Errors
    /// [`LimitError`] when it exceeds a limit.
    pub fn charge(&mut self, member: &Member) -> Result<(), LimitError> {
        self.entries = self.entries.saturating_add(1);
        if self.entries > self.limits.entries {
            return Err(LimitError::Entries(self.limits.entries));
        }
        let name = || String::from_utf8_lossy(&member.path).into_owned();
        let (size, stored) = (member.size, member.stored);
        self.holes = self.holes.saturating_add(size.saturating_sub(stored));
        if self.holes > self.limits.hole_bytes {
            return Err(LimitError::Holes { name: name(), size, stored, limit: self.limits.hole_bytes });
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.layer_bytes {
            return Err(LimitError::Bytes { name: name(), limit: self.limits.layer_bytes });
        }
        Ok(())
    }

    /// Bytes charged so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Members charged so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }
}

impl Limits {
    /// Checks that `expanded` bytes may come out of `compressed` ones.
    ///
    /// # Errors
    /// [`LimitError::Expansion`].
    pub fn check_expansion(&self, compressed: u64, expanded: u64) -> Result<(), LimitError> {
        let limit = compressed.saturating_mul(self.expansion).max(self.expansion_floor_bytes);
        if expanded > limit { Err(LimitError::Expansion { compressed, limit }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::member::{Kind, Mtime};

    fn file(size: u64, stored: u64) -> Member {
        Member {
            kind: Kind::File,
            path: b"f".to_vec(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            xattrs: Vec::new(),
            size,
            stored,
            segments: None,
        }
    }

    #[test]
    fn each_limit_holds_to_the_byte() {
        let limits = Limits { entries: 3, layer_bytes: 100, hole_bytes: 10, ..Limits::default() };
        let mut budget = Budget::new(&limits);
        budget.charge(&file(60, 50)).unwrap();
        budget.charge(&file(40, 40)).unwrap();
        assert_eq!(budget.charge(&file(1, 1)), Err(LimitError::Bytes { name: "f".into(), limit: 100 }));
        assert_eq!(budget.charge(&file(0, 0)), Err(LimitError::Entries(3)));
        let mut budget = Budget::new(&limits);
        assert!(matches!(budget.charge(&file(11, 0)), Err(LimitError::Holes { .. })));
        assert!(matches!(Budget::new(&limits).charge(&file(u64::MAX, 0)), Err(LimitError::Holes { .. })));
    }

    #[test]
    fn expansion_is_bounded_above_the_floor() {
        let limits = Limits { expansion: 10, expansion_floor_bytes: 1000, ..Limits::default() };
        assert!(limits.check_expansion(1, 1000).is_ok());
        assert!(limits.check_expansion(1, 1001).is_err());
        assert!(limits.check_expansion(200, 2000).is_ok());
        assert!(limits.check_expansion(200, 2001).is_err());
        assert!(limits.check_expansion(u64::MAX, u64::MAX).is_ok());
    }
}
