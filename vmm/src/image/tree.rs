//! A directory tree that is worked on only through descriptors: nothing that stands in it leads out of it.
//!
//! Paths are resolved by `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, so that symbolic links, absolute
//! ones and those with `..` included, lead to where they would lead if the tree were the root. Used by the
//! unpacker, the merger of layers and the sweeper of leftovers. The kernel must be 5.6 or newer.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use super::entry::{LayerPath, Metadata};
use super::member::Mtime;

/// The attribute that marks a directory as opaque while it is staged.
///
/// Overlayfs wants `trusted.overlay.opaque`, which only the initial user namespace may set. So that a layer is the
/// same file whoever imports it, it is staged as `user.*` and renamed in the finished image.
pub const STAGED_OPAQUE: &str = "user.overlay.opaque";

/// The modification time that tells a layer's root whose archive does not describe it. A mark of another kind would make
/// another file of a layer that describes its root.
pub const UNDESCRIBED_ROOT: Mtime =
    Mtime { seconds: proto::UNDESCRIBED_ROOT.0, nanoseconds: proto::UNDESCRIBED_ROOT.1 };

const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The longest list of attribute names, and the longest value, that Linux has.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// A tree's root.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// That of `open`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::openat(
            CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self { root })
    }

    /// Opens `path` inside the tree.
    ///
    /// # Errors
    /// That of `openat2`.
    pub fn open_at(&self, path: &LayerPath, flags: OFlags) -> io::Result<OwnedFd> {
        loop {
            match rustix::fs::openat2(
                &self.root,
                path.as_os_str(),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
                RESOLVE,
            ) {
                // A concurrent rename somewhere on the system.
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Opens a directory to list it or to change its attributes; its last component must be no link.
    ///
    /// # Errors
    /// That of `openat2`.
    pub fn directory(&self, path: &LayerPath) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
    }

    /// A directory as the place to make something in; links on the way are followed inside the tree.
    ///
    /// # Errors
    /// That of `openat2`.
    pub fn parent(&self, path: &LayerPath) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY)
    }
}

/// The attributes of `name` itself, `None` if there is nothing of that name.
///
/// # Errors
/// That of `fstatat`.
pub fn stat(directory: impl AsFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a mode says.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether this is overlayfs' mark for "nothing here".
pub fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes overlayfs' mark for "nothing here". Since Linux 5.8 this needs no privilege.
///
/// # Errors
/// That of `mknodat`.
pub fn make_whiteout(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// The names in a directory, sorted.
///
/// # Errors
/// That of `getdents`.
pub fn list(directory: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes `name` and all below it; nothing of that name is fine. Links are removed, never followed.
///
/// Holds two descriptors however deep the tree is, and the names of what is left beside the way down.
///
/// # Errors
/// That of the call that failed.
pub fn remove(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    remove_listed(directory, name, |directory| list(directory))
}

/// The same, with directories read by `list`.
fn remove_listed(
    directory: impl AsFd,
    name: &OsStr,
    mut list: impl FnMut(&OwnedFd) -> io::Result<Vec<OsString>>,
) -> io::Result<()> {
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let open = |at: BorrowedFd<'_>, name: &OsStr| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty())
    };
    let mut current = open(directory.as_fd(), name)?;
    let mut above = Vec::new();
    let mut last = name.to_owned();
    let mut children = list(&current)?;
    loop {
        if let Some(child) = remove_until_deeper(&current, &mut children)? {
            current = open(current.as_fd(), &child)?;
            let siblings = std::mem::replace(&mut children, list(&current)?);
            above.push((std::mem::replace(&mut last, child), siblings));
            continue;
        }
        let Some((parent, siblings)) = above.pop() else {
            return Ok(rustix::fs::unlinkat(&directory, &last, AtFlags::REMOVEDIR)?);
        };
        current = open(current.as_fd(), OsStr::new(".."))?;
        rustix::fs::unlinkat(&current, &last, AtFlags::REMOVEDIR)?;
        (last, children) = (parent, siblings);
    }
}

/// Removes these children of a directory, up to one that is a directory with something in it, which it returns.
fn remove_until_deeper(directory: &OwnedFd, children: &mut Vec<OsString>) -> io::Result<Option<OsString>> {
    while let Some(child) = children.pop() {
        match rustix::fs::unlinkat(directory, &child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => match rustix::fs::unlinkat(directory, &child, AtFlags::REMOVEDIR) {
                Ok(()) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(child)),
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Gives an open file or directory these attributes. The order matters: a new owner clears set-id bits and
/// capabilities, and everything but the times changes the times of nothing else.
///
/// # Errors
/// An error number is that of `fchown`: `EINVAL` for an owner that the user namespace does not map, `EPERM` for one
/// that needs more privilege. All else that fails says in words what it was.
pub fn set_metadata(file: impl AsFd, metadata: &Metadata) -> io::Result<()> {
    let (uid, gid) = owner(metadata);
    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(metadata.mode)).map_err(doing(SET_MODE))?;
    for (name, value) in &metadata.xattrs {
        rustix::fs::fsetxattr(&file, OsStr::from_bytes(name), value, XattrFlags::empty())
            .map_err(|error| xattr_error(name, error))?;
    }
    rustix::fs::futimens(&file, &timestamps(metadata.mtime)).map_err(doing(SET_TIMES))?;
    Ok(())
}

const SET_MODE: &str = "cannot set its mode";
const SET_TIMES: &str = "cannot set its times";

/// An error that says in words what failed, and is of the same kind.
fn doing(what: impl std::fmt::Display) -> impl FnOnce(Errno) -> io::Error {
    move |error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{what}: {error}"))
    }
}

/// Why an extended attribute could not be stored.
fn xattr_error(name: &[u8], error: Errno) -> io::Error {
    let name = name.escape_ascii();
    match error {
        Errno::OPNOTSUPP => io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "the file system of the data directory does not take the extended attribute {name}: set \
                 BALLAST_DATA to a directory on ext4, xfs or btrfs"
            ),
        ),
        Errno::INVAL => io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the value of its extended attribute {name} is malformed"),
        ),
        error => doing(format_args!("cannot store its extended attribute {name}"))(error),
    }
}

/// The same for what cannot be opened: links and pipes. Their extended attributes are left out by the caller.
///
/// # Errors
/// As [`set_metadata`].
pub fn set_metadata_at(
    directory: impl AsFd,
    name: &OsStr,
    metadata: &Metadata,
    mode: bool,
) -> io::Result<()> {
    let (uid, gid) = owner(metadata);
    rustix::fs::chownat(&directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if mode {
        rustix::fs::chmodat(&directory, name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())
            .map_err(doing(SET_MODE))?;
    }
    rustix::fs::utimensat(&directory, name, &timestamps(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(doing(SET_TIMES))?;
    Ok(())
}

fn owner(metadata: &Metadata) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (rustix::fs::Uid::from_raw(metadata.uid), rustix::fs::Gid::from_raw(metadata.gid))
}

/// Modification time as given; the access time, which no image keeps, likewise.
pub fn timestamps(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets a file's modification time.
///
/// # Errors
/// That of `futimens`.
pub fn set_mtime(file: impl AsFd, mtime: Mtime) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &timestamps(mtime))?)
}

/// Reads the attributes that a layer keeps.
///
/// # Errors
/// That of the call that failed.
pub fn metadata(file: impl AsFd) -> io::Result<Metadata> {
    let stat = rustix::fs::fstat(&file)?;
    let mut xattrs = Vec::new();
    let mut names = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::flistxattr(&file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let kept = name == b"security.capability" || name.starts_with(b"user.");
        if kept && name != STAGED_OPAQUE.as_bytes() {
            let mut value = vec![0; XATTR_BYTES_MAX];
            let length = rustix::fs::fgetxattr(&file, OsStr::from_bytes(name), &mut value[..])?;
            value.truncate(length);
            xattrs.push((name.to_vec(), value));
        }
    }
    Ok(Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime(&stat),
        xattrs,
    })
}

/// Modification time.
pub fn mtime(stat: &Stat) -> Mtime {
    Mtime { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default() }
}

/// Marks a staged directory as opaque.
///
/// # Errors
/// That of `fsetxattr`, in words: a file system may have no attributes for users.
pub fn set_opaque(directory: impl AsFd) -> io::Result<()> {
    rustix::fs::fsetxattr(directory, STAGED_OPAQUE, b"y", XattrFlags::empty())
        .map_err(|error| xattr_error(STAGED_OPAQUE.as_bytes(), error))
}

/// Whether a staged directory is marked as opaque.
///
/// # Errors
/// That of `fgetxattr`.
pub fn is_opaque(directory: impl AsFd) -> io::Result<bool> {
    match rustix::fs::fgetxattr(directory, STAGED_OPAQUE, &mut [0u8; 8][..]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Creates a file that must not exist, readable by its owner only until its metadata is set.
///
/// # Errors
/// That of `openat`.
pub fn create_file(directory: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
