//! What a member of a tar is: the plain data between reading ([`super::tar_reader`]) and deciding
//! ([`super::entry`]). Pure.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::io;

use tar::Header;
use thiserror::Error;

/// Why a tar stream cannot be read on.
#[derive(Debug, Error)]
pub enum TarError {
    /// The stream below failed.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// The stream ends inside a member.
    #[error("the archive ends in the middle of a member: it is truncated")]
    Truncated,
    /// What stands there is no tar.
    #[error("the archive is damaged or no tar: {0}")]
    Malformed(&'static str),
    /// A metadata member beyond any use.
    #[error("the archive holds a metadata member of {0} bytes, more than 1 MiB")]
    MetadataTooLarge(u64),
    /// A member type that cannot be unpacked faithfully.
    #[error("member {name:?} has the unknown type {kind:?}")]
    UnknownType {
        /// The member's name, lossily.
        name: String,
        /// The type byte.
        kind: char,
    },
}

/// Seconds and nanoseconds since the epoch; nanoseconds count forward also before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A run of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// Its length in bytes, not 0.
    pub length: u64,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, possibly sparse.
    File,
    /// A second name of an earlier member.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
    /// A volume label or an archive-wide header: nothing to unpack.
    Label,
}

/// One member's metadata. Names are as the archive spells them: nothing is checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub path: Vec<u8>,
    /// The target of a link, else empty.
    pub link: Vec<u8>,
    /// Permission bits and whatever else the field holds.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time.
    pub mtime: Mtime,
    /// Extended attributes: name, value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The file's length in bytes, holes included.
    pub size: u64,
    /// Bytes of data that follow in the archive.
    pub stored: u64,
    /// Where these bytes belong, when the file is sparse.
    pub segments: Option<Vec<Segment>>,
}

impl Kind {
    /// What a header says.
    ///
    /// # Errors
    /// [`TarError::UnknownType`].
    pub fn of(header: &Header, path: &[u8]) -> Result<Self, TarError> {
        Ok(match header.entry_type().as_byte() {
            // Before ustar, a directory was a file whose name ends in a slash.
            b'0' | 0 if path.last() == Some(&b'/') => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'V' => Kind::Label,
            other => {
                let name = String::from_utf8_lossy(path).into_owned();
                return Err(TarError::UnknownType { name, kind: char::from(other) });
            }
        })
    }
}
