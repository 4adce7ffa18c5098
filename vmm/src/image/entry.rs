//! What a tar member means for a layer: pure decisions about names, whiteouts, links and attributes.
//!
//! [`plan_entry`] turns one [`Member`] into an [`Entry`] that [`super::unpack`] carries out, or refuses it.
//! Nothing here touches a file system. Whiteouts follow the OCI image specification, "Whiteouts", whatever kind
//! of archive they stand in: one tar makes one layer, wherever it came from.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use thiserror::Error;

use super::member::{Kind, Member, Mtime};

/// Longest path in bytes, one less than the kernel's PATH_MAX, which counts the NUL.
pub(super) const PATH_BYTES_MAX: usize = 4095;
/// The kernel's NAME_MAX.
const NAME_BYTES_MAX: usize = 255;
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// A member that no layer may contain.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    /// A name that climbs.
    #[error("{0:?} has a \"..\" in its name")]
    ParentDirectory(String),
    /// A name with a NUL byte.
    #[error("{0:?} has a NUL byte in its name")]
    Nul(String),
    /// A name that no file system takes.
    #[error("{0:?} is too long a name")]
    TooLong(String),
    /// `.wh.` and nothing, or nothing that can be a name.
    #[error("{0:?} is a whiteout of no name")]
    EmptyWhiteout(String),
    /// A link to nowhere.
    #[error("link {0:?} has no target")]
    EmptyLink(String),
    /// The archive's root as something else than a directory.
    #[error("the archive's root is no directory")]
    RootNotDirectory,
    /// An owner that Linux cannot express.
    #[error("{name:?} has the owner {uid}:{gid}, which is no Linux id")]
    Owner {
        /// The member's name, lossily.
        name: String,
        /// Its owner.
        uid: u64,
        /// Its group.
        gid: u64,
    },
}

/// A path inside the layer: components joined by one `/`, none of them empty, `.` or `..`; empty is the root.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LayerPath(Vec<u8>);

impl LayerPath {
    /// Cleans a name as archives spell it: leading `/`, `./` and doubled slashes go.
    ///
    /// # Errors
    /// [`EntryError`] for `..`, NUL bytes, and names that no file system takes.
    pub fn clean(name: &[u8]) -> Result<Self, EntryError> {
        let lossy = || String::from_utf8_lossy(name.get(..200).unwrap_or(name)).into_owned();
        let mut path = Vec::with_capacity(name.len());
        for component in name.split(|&b| b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(EntryError::ParentDirectory(lossy())),
                _ if component.contains(&0) => return Err(EntryError::Nul(lossy())),
                _ if component.len() > NAME_BYTES_MAX => return Err(EntryError::TooLong(lossy())),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(EntryError::TooLong(lossy()));
        }
        Ok(Self(path))
    }

    /// The path as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for system calls; "." for the root.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(if self.0.is_empty() { b"." } else { &self.0 })
    }

    /// Whether this is the layer's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Directory and last component; `None` for the root.
    pub fn split(&self) -> Option<(LayerPath, &OsStr)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => (self.0.get(..slash)?, self.0.get(slash.checked_add(1)?..)?),
            None => (&[][..], self.0.as_slice()),
        };
        Some((Self(parent.to_vec()), OsStr::from_bytes(name)))
    }

    /// This path with one more component, which must be a single name that a directory listing gave.
    #[must_use]
    pub fn join(&self, name: &OsStr) -> Self {
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        Self(path)
    }

    /// The path's components from the root on.
    pub fn components(&self) -> impl Iterator<Item = &OsStr> {
        self.0.split(|&b| b == b'/').filter(|component| !component.is_empty()).map(OsStr::from_bytes)
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0).escape_debug())
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Owner, mode, times and attributes of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Extended attributes that a layer keeps: `user.*` and `security.capability`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What to do for one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Make a directory, or give one these attributes.
    Directory(LayerPath, Metadata),
    /// Make a file of the member's data.
    File(LayerPath, Metadata),
    /// Make a symbolic link to these bytes, wherever they lead.
    Symlink(LayerPath, Metadata, Vec<u8>),
    /// Make another name for an entry of this layer.
    HardLink {
        /// The new name.
        path: LayerPath,
        /// The name that must exist.
        target: LayerPath,
    },
    /// Make a named pipe.
    Fifo(LayerPath, Metadata),
    /// Hide what layers below call this.
    Whiteout(LayerPath),
    /// Hide everything that layers below have in this directory.
    Opaque(LayerPath),
    /// A device node: the guest has its own.
    Device(LayerPath),
    /// Bookkeeping of the archive: nothing.
    Ignored,
}

/// A planned member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What to do.
    pub entry: Entry,
    /// Extended attributes that were left out because a layer keeps none of their kind.
    pub xattrs_dropped: u64,
}

/// Decides what a member means.
///
/// # Errors
/// [`EntryError`] for a member that no well-made archive contains.
pub fn plan_entry(member: &Member) -> Result<Planned, EntryError> {
    let plain = |entry| Ok(Planned { entry, xattrs_dropped: 0 });
    if member.kind == Kind::Label {
        return plain(Entry::Ignored);
    }
    let path = LayerPath::clean(&member.path)?;
    // aufs keeps its own books under such names.
    let meta = |name: &OsStr| name.as_bytes().starts_with(WHITEOUT_META_PREFIX);
    if path.components().any(|name| meta(name) && name.as_bytes() != WHITEOUT_OPAQUE) {
        return plain(Entry::Ignored);
    }
    if let Some((parent, name)) = path.split() {
        if name.as_bytes() == WHITEOUT_OPAQUE {
            return plain(Entry::Opaque(parent));
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            return match hidden {
                b"" | b"." | b".." => Err(EntryError::EmptyWhiteout(path.to_string())),
                _ => plain(Entry::Whiteout(parent.join(OsStr::from_bytes(hidden)))),
            };
        }
    } else if member.kind != Kind::Directory {
        return Err(EntryError::RootNotDirectory);
    }
    let (metadata, xattrs_dropped) = metadata(member)?;
    let entry = match member.kind {
        Kind::Directory => Entry::Directory(path, metadata),
        Kind::File => Entry::File(path, metadata),
        Kind::Fifo => Entry::Fifo(path, metadata),
        Kind::Device => Entry::Device(path),
        Kind::Symlink => {
            let target = member.link.clone();
            if target.is_empty() {
                return Err(EntryError::EmptyLink(path.to_string()));
            }
            if target.contains(&0) {
                return Err(EntryError::Nul(path.to_string()));
            }
            if target.len() > PATH_BYTES_MAX {
                return Err(EntryError::TooLong(path.to_string()));
            }
            Entry::Symlink(path, metadata, target)
        }
        Kind::HardLink => {
            let target = LayerPath::clean(&member.link)?;
            if target.is_root() {
                return Err(EntryError::EmptyLink(path.to_string()));
            }
            Entry::HardLink { path, target }
        }
        Kind::Label => Entry::Ignored,
    };
    Ok(Planned { entry, xattrs_dropped })
}

fn metadata(member: &Member) -> Result<(Metadata, u64), EntryError> {
    // -1 means "leave it" to chown and "nobody mapped" to the kernel.
    let id = |value: u64| u32::try_from(value).ok().filter(|&id| id != u32::MAX);
    let (Some(uid), Some(gid)) = (id(member.uid), id(member.gid)) else {
        let name = String::from_utf8_lossy(&member.path).into_owned();
        return Err(EntryError::Owner { name, uid: member.uid, gid: member.gid });
    };
    let kept: Vec<_> = member.xattrs.iter().filter(|(name, _)| keeps_xattr(name)).cloned().collect();
    let dropped = (member.xattrs.len() as u64).saturating_sub(kept.len() as u64);
    let metadata = Metadata { mode: member.mode & 0o7777, uid, gid, mtime: member.mtime, xattrs: kept };
    Ok((metadata, dropped))
}

/// Attributes that mean the same in the guest: not labels of another system's policy, and above all not
/// overlayfs' own, with which a layer could redirect a directory.
fn keeps_xattr(name: &[u8]) -> bool {
    if name.contains(&0) || name.len() > NAME_BYTES_MAX {
        return false;
    }
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
