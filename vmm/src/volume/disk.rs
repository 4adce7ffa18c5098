//! Opens a disk for a microVM: checked, locked, and past the host's page cache where that can be.

#![forbid(unsafe_code)]

use super::lock::{Sharing, try_lock};
use crate::virtio::block::direct::set_direct;
use crate::virtio::block::file::FileBackend;
use crate::virtio::block::request::SECTOR_BYTES;
use rustix::fs::{IFlags, Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// A disk that cannot be given to a microVM. `what` names it: `volume 'data'` or `disk /dev/sdb`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing of the name.
    #[error("there is no {what}: name a block device, or make a raw image with `truncate -s 8G FILE`")]
    Missing {
        /// The disk.
        what: String,
    },
    /// It cannot be opened, for a reason that the host gives.
    #[error("cannot open {what}")]
    Open {
        /// The disk.
        what: String,
        /// The host's answer.
        source: io::Error,
    },
    /// It can perhaps be read, but not written.
    #[error("{what} may not be written: add ':ro' to use it read only, or change who may write it")]
    NotWritable {
        /// The disk.
        what: String,
        /// The host's answer.
        source: io::Error,
    },
    /// It is a directory.
    #[error(
        "{what} is a directory, and directories of the host are not shared with a microVM: give a raw disk \
         image or block device, or use a volume (-v NAME:/PATH)"
    )]
    Directory {
        /// The disk.
        what: String,
    },
    /// It is a pipe, a socket or a character device.
    #[error("{what} is neither a file nor a block device")]
    Kind {
        /// The disk.
        what: String,
    },
    /// It has no bytes.
    #[error("{what} is empty: give it a size first, for example with `truncate -s 8G`")]
    Empty {
        /// The disk.
        what: String,
    },
    /// Its length shows that it is no raw image.
    #[error(
        "{what} has {len} bytes, which is no whole number of {SECTOR_BYTES}-byte sectors: it is no raw disk \
         image, or was cut short"
    )]
    Ragged {
        /// The disk.
        what: String,
        /// Its length in bytes.
        len: u64,
    },
    /// Another open file holds it.
    #[error(
        "{what} is in use by another microVM, or given twice: end that microVM, or let all of them use it \
         read only (':ro')"
    )]
    InUse {
        /// The disk.
        what: String,
    },
    /// Somebody has the block device for himself: a file system of the host, or who opened it exclusively as we do.
    #[error(
        "{what} is in use by this host or another microVM, or given twice: unmount it, end that microVM, or let all of \
         them use it read only (':ro')"
    )]
    Busy {
        /// The disk.
        what: String,
        /// The host's answer.
        source: io::Error,
    },
    /// It cannot be locked.
    #[error("cannot lock {what} against other microVMs: does its file system support locks?")]
    Lock {
        /// The disk.
        what: String,
        /// The host's answer.
        source: io::Error,
    },
}

/// A disk as the VMM needs it. The lock is the open file's: it lasts until the last copy of the descriptor,
/// the VMM's, is closed.
#[derive(Debug)]
pub struct OpenDisk {
    /// The disk, open for what the guest may do with it.
    pub file: File,
    /// What messages call it: `volume 'data'` or `disk /dev/sdb`.
    pub name: String,
    /// The guest may not write.
    pub read_only: bool,
    /// How much of this host's memory the guest can fill with what it writes: all of the disk, or nothing.
    pub memory_bytes: u64,
    /// What the user should know, in one line.
    pub notice: Option<String>,
}

/// Opens and locks the disk at `path`: alone, or together with other readers if it is `read_only`.
///
/// # Errors
/// There is no disk, or it may not be used now.
pub fn open(path: &Path, read_only: bool) -> Result<OpenDisk, Error> {
    open_as(format!("disk {}", path.display()), path, read_only)
}

/// As [`open`], for a disk called `what`.
pub(super) fn open_as(what: String, path: &Path, read_only: bool) -> Result<OpenDisk, Error> {
    // Before it is opened: opening a pipe waits, and opening a device may do things.
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing { what }),
        Err(source) => return Err(Error::Open { what, source }),
    };
    if let Some(error) = refuse_kind(&what, &metadata) {
        return Err(error);
    }
    let exclusive = !read_only && metadata.file_type().is_block_device();
    let file = match open_direct(path, read_only, exclusive) {
        Ok(file) => file,
        Err(source) => return Err(refuse_open(what, read_only, source)),
    };
    let sharing = if read_only { Sharing::Shared } else { Sharing::Exclusive };
    match try_lock(&file, sharing) {
        Ok(true) => {}
        Ok(false) => return Err(Error::InUse { what }),
        Err(source) => return Err(Error::Lock { what, source }),
    }
    let Contents { len, is_memory, is_cached } = match examine(&file) {
        Ok(contents) => contents,
        Err(source) => return Err(Error::Open { what, source }),
    };
    if len == 0 {
        return Err(Error::Empty { what });
    }
    if len % SECTOR_BYTES != 0 {
        return Err(Error::Ragged { what, len });
    }
    let notice = is_cached.then(|| {
        format!(
            "{what} cannot bypass this host's page cache: what the guest caches of it, the host caches too"
        )
    });
    let memory_bytes = if is_memory && !read_only { len } else { 0 };
    Ok(OpenDisk { file, name: what, read_only, memory_bytes, notice })
}

fn refuse_kind(what: &str, metadata: &Metadata) -> Option<Error> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Some(Error::Directory { what: what.into() })
    } else if kind.is_file() || kind.is_block_device() {
        None
    } else {
        Some(Error::Kind { what: what.into() })
    }
}

fn refuse_open(what: String, read_only: bool, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if !read_only => {
            Error::NotWritable { what, source }
        }
        io::ErrorKind::ResourceBusy => Error::Busy { what, source },
        _ => Error::Open { what, source },
    }
}

/// Opens with direct I/O, or without where the file system has none.
fn open_direct(path: &Path, read_only: bool, exclusive: bool) -> io::Result<File> {
    let mut flags = OFlags::CLOEXEC | if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    if exclusive {
        // For a block device: fail if it is mounted or another microVM's, and keep others from mounting it.
        flags |= OFlags::EXCL;
    }
    match rustix::fs::open(path, flags | OFlags::DIRECT, Mode::empty()) {
        Ok(fd) => Ok(fd.into()),
        Err(rustix::io::Errno::INVAL) => Ok(rustix::fs::open(path, flags, Mode::empty())?.into()),
        Err(error) => Err(error.into()),
    }
}

/// A disk's contents, as the device will find them.
struct Contents {
    len: u64,
    /// They are this host's memory.
    is_memory: bool,
    /// The host caches them.
    is_cached: bool,
}

/// Measures the disk, and settles whether the host caches it.
fn examine(file: &File) -> io::Result<Contents> {
    let len = (&*file).seek(SeekFrom::End(0))?;
    let is_memory = is_memory(file)?;
    // A tmpfs takes the flag, but its files are page cache and nothing else.
    if is_memory || is_checksummed(file)? {
        set_direct(file, false)?;
    }
    let is_cached = !FileBackend::new(file.try_clone()?)?.is_direct();
    Ok(Contents { len, is_memory, is_cached })
}

/// Whether a disk is a file on a btrfs that has checksums of what is in it. Direct I/O takes what is written from the
/// guest's memory twice, for the checksum and for the disk: what the guest changes in between cannot be read any more.
/// Newer kernels see to it themselves (commit 968f19c5b1b7).
fn is_checksummed(file: &File) -> io::Result<bool> {
    let is_btrfs = file.metadata()?.is_file() && rustix::fs::fstatfs(file)?.f_type == libc::BTRFS_SUPER_MAGIC;
    Ok(is_btrfs && !rustix::fs::ioctl_getflags(file)?.contains(IFlags::NOCOW))
}

/// Has a new and empty file on a btrfs go without checksums and copies, so that direct I/O can be had. Other file systems
/// know no such thing.
pub(super) fn write_in_place(file: &File) {
    // Where it cannot be had the host caches.
    let _ = rustix::fs::ioctl_getflags(file)
        .and_then(|flags| rustix::fs::ioctl_setflags(file, flags | IFlags::NOCOW));
}

/// Whether a disk is memory of this host. A block device is not, though its node lies on a tmpfs, as all in `/dev`.
fn is_memory(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.is_file() && rustix::fs::fstatfs(file)?.f_type == libc::TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::lock::eventually;
    use std::process::Command;

    fn image(directory: &Path, len: u64) -> std::path::PathBuf {
        let path = directory.join("disk.img");
        File::create(&path).unwrap().set_len(len).unwrap();
        path
    }

    fn here() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    #[test]
    fn a_disk_in_use_is_refused_until_it_is_closed() {
        let directory = here();
        let path = image(directory.path(), 1 << 20);
        let writer = open(&path, false).unwrap();
        assert_eq!(writer.name, format!("disk {}", path.display()));
        assert!(matches!(open(&path, false), Err(Error::InUse { .. })));
        let message = open(&path, true).unwrap_err().to_string();
        assert!(message.contains("disk.img is in use") && message.contains(":ro"), "{message}");
        drop(writer);
        let _readers = [eventually(|| open(&path, true).ok()), open(&path, true).unwrap()];
        assert!(matches!(open(&path, false), Err(Error::InUse { .. })));
    }

    #[test]
    fn bypasses_the_cache_where_the_file_system_can() {
        let directory = here();
        let path = image(directory.path(), 1 << 20);
        let disk = open(&path, false).unwrap();
        let direct = FileBackend::new(disk.file).unwrap().is_direct();
        assert_eq!((disk.notice.is_none(), disk.memory_bytes), (direct, 0));
        if Path::new("/dev/shm").is_dir() {
            let directory = tempfile::tempdir_in("/dev/shm").unwrap();
            let path = image(directory.path(), 1 << 20);
            assert_eq!(open(&path, true).unwrap().memory_bytes, 0, "nothing is written");
            let disk = eventually(|| open(&path, false).ok());
            assert_eq!(disk.memory_bytes, 1 << 20);
            assert!(disk.notice.unwrap().contains("page cache"));
            assert!(!FileBackend::new(disk.file).unwrap().is_direct());
        }
    }

    #[test]
    fn what_a_device_holds_is_no_memory_though_its_node_is() {
        let device = File::open("/dev/null").unwrap();
        assert_eq!(rustix::fs::fstatfs(&device).unwrap().f_type, libc::TMPFS_MAGIC);
        assert!(!is_memory(&device).unwrap());
    }

    #[test]
    fn a_btrfs_has_checksums_unless_it_writes_in_place() {
        let file = tempfile::tempfile().unwrap();
        let is_btrfs = rustix::fs::fstatfs(&file).unwrap().f_type == libc::BTRFS_SUPER_MAGIC;
        assert_eq!(is_checksummed(&file).unwrap(), is_btrfs);
        write_in_place(&file);
        file.set_len(1 << 20).unwrap();
        assert!(!is_checksummed(&file).unwrap());
    }

    #[test]
    fn what_is_no_disk_is_refused_in_words() {
        let directory = here();
        let told = |path: &Path| open(path, false).unwrap_err().to_string();
        assert!(told(directory.path()).contains("directory"));
        assert!(told(Path::new("/dev/null")).contains("neither a file nor a block device"));
        assert!(told(&image(directory.path(), 0)).contains("truncate -s"));
        assert!(told(&image(directory.path(), 513)).contains("513 bytes"));
        assert!(told(&directory.path().join("missing")).contains("there is no disk"));
        let through_a_file = directory.path().join("disk.img/x");
        assert!(told(&through_a_file).starts_with("cannot open disk"));
        let pipe = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(told(&pipe).contains("neither"), "and does not wait for a writer");
    }

    #[test]
    fn answers_of_the_host_lead_to_a_next_step() {
        let refused = |errno, read_only| {
            refuse_open("disk x".into(), read_only, io::Error::from_raw_os_error(errno)).to_string()
        };
        for errno in [libc::EACCES, libc::EROFS, libc::EPERM] {
            assert!(refused(errno, false).contains("add ':ro'"));
            assert!(refused(errno, true).starts_with("cannot open"));
        }
        let busy = refused(libc::EBUSY, false);
        assert!(busy.contains("unmount") && busy.contains("end that microVM"), "{busy}");
    }
}
