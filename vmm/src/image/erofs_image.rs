//! Reads EROFS images as `mkfs.erofs` writes them here: uncompressed, whole files, no chunks.
//!
//! Source: Linux `fs/erofs/erofs_fs.h`. Used to check a finished image, to look up in the layers below what a
//! layer's archive leaves out, and to find the attributes that must be renamed. The names and attributes in an
//! image come from archives, so every offset is checked. Pure over [`ReadAt`].
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::io;

use rustix::fs::FileType;
use thiserror::Error;

use super::member::Mtime;
use super::read_at::ReadAt;

/// Where the superblock starts.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`.
const FEATURE_CHECKSUM: u32 = 1;
/// An inode number counts slots of this size from the metadata area's start.
const SLOT_BYTES: u64 = 32;
const COMPACT_INODE_BYTES: u64 = 32;
const EXTENDED_INODE_BYTES: u64 = 64;
const XATTR_HEADER_BYTES: u64 = 12;
const DIRENT_BYTES: usize = 12;
const LAYOUT_PLAIN: u16 = 0;
const LAYOUT_INLINE: u16 = 2;
/// The largest directory that is read, in bytes: some ten million names.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;

/// Prefix numbers of attribute names.
pub mod xattr_index {
    /// `user.`
    pub const USER: u8 = 1;
    /// `trusted.`
    pub const TRUSTED: u8 = 4;
    /// `security.`
    #[cfg(test)]
    pub const SECURITY: u8 = 6;
}

/// Why an image cannot be read.
#[derive(Debug, Error)]
pub enum ErofsError {
    /// The file failed.
    #[error("the EROFS image cannot be read")]
    Read(#[source] io::Error),
    /// The file is no image, or none of this kind.
    #[error("the EROFS image is malformed: {0}")]
    Malformed(&'static str),
}

const TRUNCATED: ErofsError = ErofsError::Malformed("it is too short");

/// What an inode says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// File type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Modification time; that of the image where the inode has none.
    pub mtime: Mtime,
    /// Names of this inode.
    pub links: u32,
    /// Device number, or the first block of data.
    union: u32,
    layout: u16,
    offset: u64,
    /// Bytes of the inode itself and of its attributes.
    bytes: u64,
    xattr_bytes: u64,
}

impl Inode {
    /// What it is.
    pub fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Overlayfs' mark for "nothing here".
    #[cfg(test)]
    pub fn is_whiteout(&self) -> bool {
        self.file_type() == FileType::CharacterDevice && self.union == 0
    }
}

/// An attribute in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// One of [`xattr_index`].
    pub index: u8,
    /// The name after the prefix.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// Where the prefix number stands in the file.
    pub index_offset: u64,
}

/// An open image.
#[derive(Debug)]
pub struct ErofsImage<'a, S: ?Sized> {
    source: &'a S,
    superblock: Superblock,
}

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Of the file system, in bytes.
    pub block_bytes: u64,
    /// How many of them.
    pub blocks: u64,
    /// As stored: the order in which a UUID is written.
    pub uuid: [u8; 16],
    /// Whether a checksum stands at offset 4.
    pub has_checksum: bool,
    build_time: Mtime,
    root: u64,
    meta_offset: u64,
    xattr_offset: u64,
}

/// Numbers out of a fixed record.
struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N], ErofsError> {
        let end = offset.checked_add(N).ok_or(TRUNCATED)?;
        self.0.get(offset..end).and_then(|bytes| bytes.try_into().ok()).ok_or(TRUNCATED)
    }

    fn u8(&self, offset: usize) -> Result<u8, ErofsError> {
        self.bytes::<1>(offset).map(u8::from_le_bytes)
    }

    fn u16(&self, offset: usize) -> Result<u16, ErofsError> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: usize) -> Result<u32, ErofsError> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    fn u64(&self, offset: usize) -> Result<u64, ErofsError> {
        self.bytes(offset).map(u64::from_le_bytes)
    }
}

impl<'a, S: ReadAt + ?Sized> ErofsImage<'a, S> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// [`ErofsError`] if this is no image of the expected kind.
    pub fn open(source: &'a S) -> Result<Self, ErofsError> {
        let mut bytes = [0; 128];
        source.fill_at(SUPERBLOCK_OFFSET, &mut bytes).map_err(ErofsError::Read)?;
        let record = Record(&bytes);
        if record.u32(0)? != MAGIC {
            return Err(ErofsError::Malformed("there is no EROFS superblock"));
        }
        let bits = record.u8(12)?;
        if !(9..=16).contains(&bits) {
            return Err(ErofsError::Malformed("the block size is out of range"));
        }
        let block_bytes = 1u64 << bits;
        let superblock = Superblock {
            block_bytes,
            blocks: u64::from(record.u32(36)?),
            uuid: record.bytes(48)?,
            has_checksum: record.u32(8)? & FEATURE_CHECKSUM != 0,
            build_time: Mtime { seconds: record.u64(24)?.cast_signed(), nanoseconds: record.u32(32)? },
            root: u64::from(record.u16(14)?),
            meta_offset: u64::from(record.u32(40)?).saturating_mul(block_bytes),
            xattr_offset: u64::from(record.u32(44)?).saturating_mul(block_bytes),
        };
        Ok(Self { source, superblock })
    }

    /// The superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The number of the root directory.
    pub fn root(&self) -> u64 {
        self.superblock.root
    }

    /// Reads the inode of this number.
    ///
    /// # Errors
    /// [`ErofsError`].
    pub fn inode(&self, number: u64) -> Result<Inode, ErofsError> {
        let offset =
            number.checked_mul(SLOT_BYTES).and_then(|at| at.checked_add(self.superblock.meta_offset));
        let offset = offset.ok_or(TRUNCATED)?;
        let mut bytes = [0; 64];
        let (compact, extended) = bytes.split_at_mut(32);
        self.read(offset, compact)?;
        let format = Record(compact).u16(0)?;
        let is_extended = format & 1 != 0;
        if is_extended {
            self.read(offset.checked_add(COMPACT_INODE_BYTES).ok_or(TRUNCATED)?, extended)?;
        }
        let record = Record(&bytes);
        let slots = u64::from(record.u16(2)?);
        // The first slot is the header, of three words.
        let xattr_bytes = slots
            .checked_sub(1)
            .map_or(0, |words| words.saturating_mul(4).saturating_add(XATTR_HEADER_BYTES));
        let mode = u32::from(record.u16(4)?);
        let union = record.u32(16)?;
        let layout = format >> 1 & 7;
        Ok(if is_extended {
            Inode {
                mode,
                uid: record.u32(24)?,
                gid: record.u32(28)?,
                size: record.u64(8)?,
                mtime: Mtime { seconds: record.u64(32)?.cast_signed(), nanoseconds: record.u32(40)? },
                links: record.u32(44)?,
                union,
                layout,
                offset,
                bytes: EXTENDED_INODE_BYTES,
                xattr_bytes,
            }
        } else {
            Inode {
                mode,
                uid: u32::from(record.u16(24)?),
                gid: u32::from(record.u16(26)?),
                size: u64::from(record.u32(8)?),
                mtime: self.superblock.build_time,
                links: u32::from(record.u16(6)?),
                union,
                layout,
                offset,
                bytes: COMPACT_INODE_BYTES,
                xattr_bytes,
            }
        })
    }

    /// Reads part of a file, a link or a directory; less at its end.
    ///
    /// # Errors
    /// [`ErofsError`], also for compressed and chunked files.
    pub fn read_data(&self, inode: &Inode, position: u64, length: u64) -> Result<Vec<u8>, ErofsError> {
        let length = length.min(inode.size.saturating_sub(position));
        let start = u64::from(inode.union).checked_mul(self.superblock.block_bytes).ok_or(TRUNCATED)?;
        let in_blocks = match inode.layout {
            LAYOUT_PLAIN => inode.size,
            // The last part block follows the inode.
            LAYOUT_INLINE => inode.size & !self.superblock.block_bytes.saturating_sub(1),
            _ => return Err(ErofsError::Malformed("a file is compressed or in chunks")),
        };
        let mut data = vec![0; usize::try_from(length).map_err(|_| TRUNCATED)?];
        let head = in_blocks.saturating_sub(position).min(length);
        let (head, tail) = data.split_at_mut(usize::try_from(head).map_err(|_| TRUNCATED)?);
        if !head.is_empty() {
            self.read(start.checked_add(position).ok_or(TRUNCATED)?, head)?;
        }
        if !tail.is_empty() {
            let skipped = position.saturating_add(head.len() as u64).saturating_sub(in_blocks);
            let inline =
                inode.offset.checked_add(inode.bytes).and_then(|at| at.checked_add(inode.xattr_bytes));
            self.read(inline.and_then(|at| at.checked_add(skipped)).ok_or(TRUNCATED)?, tail)?;
        }
        Ok(data)
    }

    /// Names and inode numbers in a directory, `.` and `..` left out.
    ///
    /// # Errors
    /// [`ErofsError`].
    pub fn directory(&self, inode: &Inode) -> Result<Vec<(Vec<u8>, u64)>, ErofsError> {
        const BAD: ErofsError = ErofsError::Malformed("a directory is damaged");
        if inode.file_type() != FileType::Directory || inode.size > DIRECTORY_BYTES_MAX {
            return Err(BAD);
        }
        let data = self.read_data(inode, 0, inode.size)?;
        let mut entries = Vec::new();
        let block_bytes = usize::try_from(self.superblock.block_bytes).map_err(|_| BAD)?;
        for block in data.chunks(block_bytes) {
            let name_offset = |entry: usize| -> Result<usize, ErofsError> {
                let at = entry.checked_mul(DIRENT_BYTES).and_then(|at| at.checked_add(8)).ok_or(BAD)?;
                Record(block).u16(at).map(usize::from)
            };
            let count = name_offset(0)?.checked_div(DIRENT_BYTES).ok_or(BAD)?;
            for entry in 0..count {
                let start = name_offset(entry)?;
                let next = entry.saturating_add(1);
                let end = if next < count { name_offset(next)? } else { block.len() };
                let name = block.get(start..end).ok_or(BAD)?;
                let name = name.split(|&b| b == 0).next().unwrap_or_default();
                if name != b"." && name != b".." {
                    let number = Record(block).u64(entry.checked_mul(DIRENT_BYTES).ok_or(BAD)?)?;
                    entries.push((name.to_vec(), number));
                }
            }
        }
        Ok(entries)
    }

    /// The inode's extended attributes, those shared with other inodes included.
    ///
    /// # Errors
    /// [`ErofsError`].
    pub fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr>, ErofsError> {
        if inode.xattr_bytes == 0 {
            return Ok(Vec::new());
        }
        let base = inode.offset.checked_add(inode.bytes).ok_or(TRUNCATED)?;
        let mut area = vec![0; usize::try_from(inode.xattr_bytes).map_err(|_| TRUNCATED)?];
        self.read(base, &mut area)?;
        let shared = u64::from(Record(&area).u8(4)?);
        let mut xattrs = Vec::new();
        let mut at = XATTR_HEADER_BYTES;
        for _ in 0..shared {
            let id = Record(&area).u32(usize::try_from(at).map_err(|_| TRUNCATED)?)?;
            let offset = u64::from(id).saturating_mul(4).checked_add(self.superblock.xattr_offset);
            xattrs.push(self.xattr(offset.ok_or(TRUNCATED)?)?.0);
            at = at.saturating_add(4);
        }
        while at.saturating_add(4) <= inode.xattr_bytes {
            let (xattr, bytes) = self.xattr(base.checked_add(at).ok_or(TRUNCATED)?)?;
            at = at.saturating_add(bytes.next_multiple_of(4));
            xattrs.push(xattr);
        }
        Ok(xattrs)
    }

    /// One attribute entry and its length in bytes.
    fn xattr(&self, offset: u64) -> Result<(Xattr, u64), ErofsError> {
        let mut head = [0; 4];
        self.read(offset, &mut head)?;
        let record = Record(&head);
        let (name_bytes, value_bytes) = (usize::from(record.u8(0)?), usize::from(record.u16(2)?));
        let mut name = vec![0; name_bytes.saturating_add(value_bytes)];
        self.read(offset.checked_add(4).ok_or(TRUNCATED)?, &mut name)?;
        let value = name.split_off(name_bytes);
        let length = (name.len() as u64).saturating_add(value.len() as u64).saturating_add(4);
        let index_offset = offset.checked_add(1).ok_or(TRUNCATED)?;
        Ok((Xattr { index: record.u8(1)?, name, value, index_offset }, length))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ErofsError> {
        self.source.fill_at(offset, buffer).map_err(ErofsError::Read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(bytes: &[u8]) -> Result<(), ErofsError> {
        let image = ErofsImage::open(bytes)?;
        let root = image.inode(image.root())?;
        image.xattrs(&root)?;
        for (_, number) in image.directory(&root)? {
            let inode = image.inode(number)?;
            let _ = image.xattrs(&inode);
            let _ = image.read_data(&inode, 0, 100);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 1152..8192), root in 0u16..100) {
            bytes[1024..1028].copy_from_slice(&MAGIC.to_le_bytes());
            bytes[1036] = 12;
            bytes[1038..1040].copy_from_slice(&root.to_le_bytes());
            bytes[1064..1072].fill(0);
            let _ = walk(&bytes);
        }
    }
}
