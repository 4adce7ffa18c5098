//! File systems by the kernel's mount API of descriptors (fsopen(2), fsmount(2), move_mount(2)).
//!
//! A file system is made first and attached to an open directory afterwards, so no path is resolved twice, and
//! the kernel's own words about a failure can be read back.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
};

/// A file system to make.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem<'a> {
    /// Its type, as in /proc/filesystems.
    pub kind: &'a str,
    /// Options with a value. The kernel takes at most 255 bytes each.
    pub options: &'a [(&'a str, &'a str)],
    /// Options without one.
    pub flags: &'a [&'a str],
    /// Attributes of the mount.
    pub attributes: MountAttrFlags,
}

impl Default for FileSystem<'_> {
    fn default() -> Self {
        Self { kind: "", options: &[], flags: &[], attributes: MountAttrFlags::empty() }
    }
}

/// Why a file system could not be made.
#[derive(Debug)]
pub struct MountError {
    /// What the call returned.
    pub errno: rustix::io::Errno,
    /// What the file system said.
    log: String,
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from(self.errno))?;
        if self.log.is_empty() { Ok(()) } else { write!(f, " ({})", self.log) }
    }
}

impl std::error::Error for MountError {}

impl From<MountError> for io::Error {
    fn from(error: MountError) -> Self {
        let kind = Self::from(error.errno).kind();
        Self::new(kind, error)
    }
}

impl FileSystem<'_> {
    /// Makes it, attached to nothing yet.
    pub fn make(&self) -> Result<OwnedFd, MountError> {
        let context = fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| MountError { errno, log: format!("no file system {}", self.kind) })?;
        let made = || {
            for (key, value) in self.options {
                fsconfig_set_string(&context, *key, *value)?;
            }
            for flag in self.flags {
                fsconfig_set_flag(&context, *flag)?;
            }
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes)
        };
        made().map_err(|errno| MountError { errno, log: words_of(&context) })
    }

    /// Makes it and attaches it at a path of the agent's own.
    pub fn mount(&self, path: &str) -> io::Result<OwnedFd> {
        let mount = self.make()?;
        let directory =
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        attach(&mount, &directory)?;
        Ok(mount)
    }
}

/// Attaches a made file system on top of an open directory.
pub fn attach(mount: impl AsFd, directory: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", directory, "", flags)?)
}

/// Makes a mounted file system read-only, wherever it is mounted: it is clean on its device afterwards.
pub fn make_read_only(mount: impl AsFd) -> io::Result<()> {
    let context = fspick(mount, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
    fsconfig_set_flag(&context, "ro")?;
    Ok(fsconfig_reconfigure(&context)?)
}

/// The messages that a file system left in its context, without their one-letter level.
fn words_of(context: &OwnedFd) -> String {
    let mut words = String::new();
    let mut record = [0; 256];
    // Reading takes one record off at a time and fails once there is none.
    while let Ok(n) = rustix::io::read(context, &mut record) {
        let record = String::from_utf8_lossy(record.get(..n).unwrap_or_default()).into_owned();
        if !words.is_empty() {
            words.push_str("; ");
        }
        words.push_str(record.get(2..).unwrap_or_default().trim());
    }
    words
}
