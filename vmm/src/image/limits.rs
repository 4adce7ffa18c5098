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

use std::cell::Cell;

use thiserror::Error;

use super::member::Member;

const GIB: u64 = 1 << 30;

/// Bounds on one import, all layers of an image together.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Members, and directories that no member describes.
    pub entries: u64,
    /// Length of all files together in bytes, holes included: what the image file will hold, uncompressed.
    pub layer_bytes: u64,
    /// Bytes of files that the archive does not store. EROFS as written here stores holes as zeros.
    pub hole_bytes: u64,
    /// Length in bytes of the paths of all directories: they are kept in memory until a layer is unpacked.
    pub path_bytes: u64,
    /// Bytes after an archive's end mark, which nobody uses but a layer's digest covers.
    pub trailer_bytes: u64,
    /// Bytes of an archive that comes by a pipe and is copied first.
    pub pipe_bytes: u64,
    /// Compressed streams may grow to this multiple of their size...
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
            path_bytes: GIB / 4,
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
    #[error("{name:?} brings the image to more than {limit} bytes")]
    Bytes {
        /// The member at which it happened.
        name: String,
        /// [`Limits::layer_bytes`].
        limit: u64,
    },
    /// A sparse file that is nearly all hole.
    #[error(
        "{name:?} claims {size} bytes and stores {stored}: holes may take {limit} bytes of an image in all"
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
    /// Too long paths of too many directories.
    #[error("the paths of the archive's directories take more than {0} bytes")]
    Paths(u64),
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

/// What an import has used of its limits so far.
#[derive(Debug)]
pub struct Budget<'a> {
    limits: &'a Limits,
    entries: Cell<u64>,
    bytes: Cell<u64>,
    holes: Cell<u64>,
    path_bytes: Cell<u64>,
    compressed: Cell<u64>,
    expanded: Cell<u64>,
}

impl<'a> Budget<'a> {
    /// Nothing used.
    pub fn new(limits: &'a Limits) -> Self {
        let zero = || Cell::new(0);
        let (entries, bytes, holes, path_bytes) = (zero(), zero(), zero(), zero());
        Self { limits, entries, bytes, holes, path_bytes, compressed: zero(), expanded: zero() }
    }

    /// What it may come to.
    pub fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Charges one member.
    ///
    /// # Errors
    /// [`LimitError`] when it exceeds a limit.
    pub fn charge(&self, member: &Member) -> Result<(), LimitError> {
        self.charge_entry()?;
        let name = || String::from_utf8_lossy(&member.path).into_owned();
        let (size, stored) = (member.size, member.stored);
        if add(&self.holes, size.saturating_sub(stored)) > self.limits.hole_bytes {
            return Err(LimitError::Holes { name: name(), size, stored, limit: self.limits.hole_bytes });
        }
        if add(&self.bytes, size) > self.limits.layer_bytes {
            return Err(LimitError::Bytes { name: name(), limit: self.limits.layer_bytes });
        }
        Ok(())
    }

    /// Charges something without data.
    ///
    /// # Errors
    /// [`LimitError::Entries`].
    pub fn charge_entry(&self) -> Result<(), LimitError> {
        let most = self.limits.entries;
        if add(&self.entries, 1) > most { Err(LimitError::Entries(most)) } else { Ok(()) }
    }

    /// Charges a path that is kept.
    ///
    /// # Errors
    /// [`LimitError::Paths`].
    pub fn charge_path(&self, path: &[u8]) -> Result<(), LimitError> {
        let most = self.limits.path_bytes;
        if add(&self.path_bytes, path.len() as u64) > most { Err(LimitError::Paths(most)) } else { Ok(()) }
    }

    /// Takes note of compressed bytes that are read.
    pub fn consume(&self, compressed: u64) {
        add(&self.compressed, compressed);
    }

    /// Charges bytes that came out of the compressed ones.
    ///
    /// # Errors
    /// [`LimitError::Expansion`].
    pub fn charge_expansion(&self, bytes: u64) -> Result<(), LimitError> {
        self.limits.check_expansion(self.compressed.get(), add(&self.expanded, bytes))
    }

    /// Bytes charged so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Entries charged so far.
    pub fn entries(&self) -> u64 {
        self.entries.get()
    }
}

/// Adds to a sum and returns it.
fn add(sum: &Cell<u64>, more: u64) -> u64 {
    sum.set(sum.get().saturating_add(more));
    sum.get()
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
        let budget = Budget::new(&limits);
        budget.charge(&file(60, 50)).unwrap();
        budget.charge(&file(40, 40)).unwrap();
        assert_eq!(budget.charge(&file(1, 1)), Err(LimitError::Bytes { name: "f".into(), limit: 100 }));
        assert_eq!(budget.charge(&file(0, 0)), Err(LimitError::Entries(3)));
        let budget = Budget::new(&limits);
        assert!(matches!(budget.charge(&file(11, 0)), Err(LimitError::Holes { .. })));
        assert!(matches!(Budget::new(&limits).charge(&file(u64::MAX, 0)), Err(LimitError::Holes { .. })));
    }

    #[test]
    fn paths_and_expansion_add_up() {
        let limits = Limits { path_bytes: 5, expansion: 10, expansion_floor_bytes: 0, ..Limits::default() };
        let budget = Budget::new(&limits);
        budget.charge_path(b"a/b").unwrap();
        budget.charge_path(b"a/").unwrap();
        assert_eq!(budget.charge_path(b"c"), Err(LimitError::Paths(5)));
        budget.consume(2);
        budget.charge_expansion(20).unwrap();
        budget.consume(1);
        budget.charge_expansion(10).unwrap();
        assert_eq!(budget.charge_expansion(1), Err(LimitError::Expansion { compressed: 3, limit: 30 }));
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
