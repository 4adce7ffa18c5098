//! Builds one EROFS image from a directory with the system's `mkfs.erofs`, ready to be mapped by guests.
//!
//! The image is uncompressed, no file shares a block with metadata (`noinline_data`), and its length is a multiple
//! of 2 MiB: so a guest maps it directly (DAX), in huge pages where the host has them. Works with erofs-utils 1.5
//! and newer. Called by [`super::import`] and [`super::directory`].
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::FileType;
use thiserror::Error;

use super::erofs_image::{ErofsError, ErofsImage, SUPERBLOCK_OFFSET, xattr_index};
use super::progress::{Event, Progress, Stage};
use crate::process::die_with_parent;

/// Guest memory slots and their huge pages come in this size.
pub const ALIGNMENT_BYTES: u64 = 2 << 20;

/// How often the growing image is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The most that is kept of what the tool says.
const STDERR_BYTES_MAX: usize = 4 << 10;

/// Why there is no image.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The tool is not there.
    #[error(
        "mkfs.erofs is not installed: run `apt install erofs-utils` (or your distribution's erofs-utils)"
    )]
    Missing,
    /// The tool could not be run.
    #[error("cannot run mkfs.erofs")]
    Run(#[source] io::Error),
    /// The tool gave up.
    #[error("mkfs.erofs failed ({status}): {stderr}")]
    Failed {
        /// How it ended.
        status: String,
        /// Its own words.
        stderr: String,
    },
    /// The tool claims success and the image says otherwise.
    #[error("mkfs.erofs wrote an image that cannot be used")]
    Image(#[from] ErofsError),
    /// The image could not be finished.
    #[error("cannot finish the image")]
    Finish(#[source] io::Error),
}

impl BuildError {
    /// Whether the disk is full.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Failed { stderr, .. } => stderr.contains("No space left on device"),
            Self::Run(error) | Self::Finish(error) => error.kind() == io::ErrorKind::StorageFull,
            Self::Missing | Self::Image(_) => false,
        }
    }
}

/// What to build.
#[derive(Debug)]
pub struct Build<'a> {
    /// The tree.
    pub directory: &'a Path,
    /// The image file; it must not exist.
    pub image: &'a Path,
    /// Goes into the superblock.
    pub uuid: [u8; 16],
    /// Not before the modification time of any file, in seconds since the epoch.
    ///
    /// The image's own time. The tool clamps files to it, and without it would put the present there, so that no
    /// two images were equal; its option `-T` would overwrite every file's time.
    pub newest: i64,
    /// Whether the tree has directories marked by [`super::tree::STAGED_OPAQUE`].
    pub opaque: bool,
    /// About how many bytes the image will have.
    pub expected_bytes: u64,
}

impl Build<'_> {
    /// Runs the tool and finishes the image: attributes renamed, padded, checked, read-only, on disk.
    ///
    /// # Errors
    /// [`BuildError`]; an unfinished file may be left at [`Build::image`].
    pub fn run(&self, progress: &dyn Progress) -> Result<File, BuildError> {
        progress.report(Event::Begin { stage: Stage::Build, total_bytes: Some(self.expected_bytes) });
        let result = self.make(progress).and_then(|()| self.finish());
        progress.report(Event::End);
        result
    }

    fn make(&self, progress: &dyn Progress) -> Result<(), BuildError> {
        let mut command = Command::new("mkfs.erofs");
        command
            .arg("--quiet")
            .arg("-Enoinline_data")
            .arg(format!("-U{}", hyphenated(&self.uuid)))
            .arg(path_argument(self.image))
            .arg(path_argument(self.directory))
            .env("SOURCE_DATE_EPOCH", self.newest.max(0).saturating_add(1).to_string())
            // Its messages are searched for "No space left".
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = die_with_parent(&mut command).spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BuildError::Missing,
            _ => BuildError::Run(error),
        })?;
        let mut child = Reaped(child);
        let stderr = child.0.stderr.take();
        // The tool would block on a full pipe, so it is read while the image is watched.
        let words = std::thread::spawn(move || stderr.map_or_else(Vec::new, last_words));
        let mut seen = 0;
        let status = loop {
            if let Some(status) = child.0.try_wait().map_err(BuildError::Run)? {
                break status;
            }
            std::thread::sleep(POLL);
            let bytes = self.image.metadata().map_or(0, |metadata| metadata.len());
            if bytes > seen {
                progress.report(Event::Advance { bytes: bytes - seen });
                seen = bytes;
            }
        };
        let words = words.join().unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&words);
        // After an argument that it rejects, the tool prints its whole manual.
        let stderr: Vec<&str> =
            stderr.lines().take_while(|line| !line.starts_with("usage:")).map(str::trim).collect();
        Err(BuildError::Failed { status: status.to_string(), stderr: stderr.join("; ") })
    }

    fn finish(&self) -> Result<File, BuildError> {
        let file = OpenOptions::new().read(true).write(true).open(self.image).map_err(BuildError::Finish)?;
        let length = file.metadata().map_err(BuildError::Finish)?.len();
        let image = ErofsImage::open(&file)?;
        let superblock = image.superblock();
        if superblock.uuid != self.uuid || superblock.blocks.saturating_mul(superblock.block_bytes) > length {
            return Err(ErofsError::Malformed("its superblock contradicts the file").into());
        }
        if self.opaque {
            trust_opaque(&file, &image)?;
        }
        file.set_len(length.next_multiple_of(ALIGNMENT_BYTES)).map_err(BuildError::Finish)?;
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::RGRP | rustix::fs::Mode::ROTH;
        rustix::fs::fchmod(&file, mode).map_err(|error| BuildError::Finish(error.into()))?;
        file.sync_all().map_err(BuildError::Finish)?;
        Ok(file)
    }
}

/// Kills the tool if the import is given up while it runs.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The first part of what comes: the tool's error, not the manual after it.
fn last_words(mut stderr: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(read) = stderr.read(&mut chunk) {
        if read == 0 {
            break;
        }
        let room = STDERR_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
    kept
}

/// A path that cannot be taken for an option.
fn path_argument(path: &Path) -> OsString {
    if path.is_absolute() { path.into() } else { Path::new(".").join(path).into() }
}

/// Renames `user.overlay.opaque` of every directory to `trusted.overlay.opaque`, in place: the two differ by the
/// number of their prefix.
fn trust_opaque(file: &File, image: &ErofsImage<'_, File>) -> Result<(), BuildError> {
    let mut directories = vec![image.root()];
    while let Some(number) = directories.pop() {
        let inode = image.inode(number)?;
        for xattr in image.xattrs(&inode)? {
            if xattr.index == xattr_index::USER && xattr.name == b"overlay.opaque" {
                file.write_all_at(&[xattr_index::TRUSTED], xattr.index_offset).map_err(BuildError::Finish)?;
            }
        }
        for (_, child) in image.directory(&inode)? {
            if image.inode(child)?.file_type() == FileType::Directory {
                directories.push(child);
            }
        }
    }
    let superblock = image.superblock();
    if superblock.has_checksum {
        // What was renamed may stand in the block that the checksum covers.
        let bytes = superblock.block_bytes.saturating_sub(SUPERBLOCK_OFFSET);
        let mut block = vec![0; usize::try_from(bytes).unwrap_or_default()];
        file.read_exact_at(&mut block, SUPERBLOCK_OFFSET).map_err(BuildError::Finish)?;
        let checksum = superblock_checksum(&block);
        file.write_all_at(&checksum.to_le_bytes(), SUPERBLOCK_OFFSET + 4).map_err(BuildError::Finish)?;
    }
    Ok(())
}

/// A UUID as it is written.
pub fn hyphenated(uuid: &[u8; 16]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The checksum that belongs into a superblock's second word: CRC-32C without the final inversion, over the first
/// block from the superblock on, the word itself taken as zero.
fn superblock_checksum(block: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for (at, &byte) in block.iter().enumerate() {
        crc ^= if (4..8).contains(&at) { 0 } else { u32::from(byte) };
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::digest::Digest;
    use super::super::progress::Silent;
    use super::*;

    fn build(directory: &Path, image: &Path, opaque: bool) -> Result<File, BuildError> {
        let uuid = Digest::of(b"test").uuid();
        Build { directory, image, uuid, newest: 4_000_000_000, opaque, expected_bytes: 1 << 20 }.run(&Silent)
    }

    #[test]
    fn checksum_is_that_of_crc32c() {
        // "123456789" -> 0xe3069283, here without the final inversion; the word at 4..8 is zeroed first.
        assert_eq!(superblock_checksum(b"1234\0\0\0\x009"), superblock_checksum(b"1234abcd9"));
        let mut crc = u32::MAX;
        for byte in *b"1234\0\0\0\x009" {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        assert_eq!(superblock_checksum(b"1234\0\0\0\x009"), crc);
    }

    #[test]
    fn uuids_are_written_with_hyphens() {
        assert_eq!(hyphenated(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    }

    #[test]
    fn an_image_is_aligned_checked_and_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let names: Vec<_> = (0..5).map(|n| root.join(format!("d{n}"))).collect();
        for name in &names {
            fs::create_dir_all(name.join("below")).unwrap();
            super::super::tree::set_opaque(fs::File::open(name).unwrap()).unwrap();
        }
        // A file whose data looks like the attribute must stay as it is.
        let decoy = b"\x0e\x01\x01\0overlay.opaquey".repeat(400);
        fs::write(root.join("decoy"), &decoy).unwrap();
        let image_path = dir.path().join("image");
        let file = build(&root, &image_path, true).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len() % ALIGNMENT_BYTES, 0);
        assert!(metadata.len() > 0);
        let image = ErofsImage::open(&file).unwrap();
        assert_eq!(image.superblock().uuid, Digest::of(b"test").uuid());
        let root = image.inode(image.root()).unwrap();
        let mut opaque = 0;
        for (name, number) in image.directory(&root).unwrap() {
            let inode = image.inode(number).unwrap();
            if name == b"decoy" {
                assert_eq!(image.read_data(&inode, 0, inode.size).unwrap(), decoy);
                continue;
            }
            let xattrs = image.xattrs(&inode).unwrap();
            assert_eq!(xattrs.len(), 1);
            assert_eq!(
                (xattrs[0].index, xattrs[0].name.as_slice()),
                (xattr_index::TRUSTED, &b"overlay.opaque"[..])
            );
            opaque += 1;
        }
        assert_eq!(opaque, 5);
        let mut block = vec![0; 3072];
        file.read_exact_at(&mut block, 1024).unwrap();
        assert_eq!(superblock_checksum(&block).to_le_bytes(), block[4..8]);
        let fsck = Command::new("fsck.erofs").arg(&image_path).output().unwrap();
        assert!(fsck.status.success(), "{fsck:?}");
    }

    #[test]
    fn the_tools_checksum_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let file = build(&dir.path().join("root"), &dir.path().join("image"), false).unwrap();
        let mut block = vec![0; 3072];
        file.read_exact_at(&mut block, 1024).unwrap();
        assert_eq!(superblock_checksum(&block).to_le_bytes(), block[4..8]);
    }

    #[test]
    fn the_tools_own_words_are_passed_on_without_its_manual() {
        let dir = tempfile::tempdir().unwrap();
        let error = build(dir.path(), &dir.path().join("none/image"), false).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("none/image") && !text.contains("usage"), "{text}");
        let error = build(&dir.path().join("none"), &dir.path().join("image"), false).unwrap_err();
        assert!(matches!(error, BuildError::Failed { .. }), "{error}");
    }
}
