//! bzImage, the file that distributions install as `vmlinuz`: its setup header and the ELF image inside.
//!
//! Pure. Follows `Documentation/arch/x86/boot.rst` of the Linux kernel; field offsets are those of its table.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use super::compression::{Compression, DecompressError};
use super::{image, version};

/// As much of a bzImage as [`release`] can need: the 16-bit pointer to the version string counts from 0x200.
pub const HEAD_BYTES: usize = 0x200 + 0x1_0000 + version::MAX_RELEASE_BYTES;

/// Largest kernel that is unpacked. Distribution kernels take 40 to 80 MiB, debug ones up to 400.
pub const MAX_KERNEL_BYTES: u64 = 512 << 20;

const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR_BYTES: usize = 512;

/// First boot protocol that says where the payload is.
const OLDEST_PROTOCOL: u16 = 0x208;

/// Why a file is not a bzImage that can be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum BzImageError {
    /// The boot flag or `HdrS` is not there.
    #[error("it is neither a bzImage nor an ELF image")]
    NoHeader,
    /// Older than Linux 2.6.26.
    #[error("its boot protocol is {}.{:02}, older than 2.08", .0 >> 8, .0 & 0xff)]
    OldProtocol(u16),
    /// The version string is missing or no release.
    #[error("it does not say its kernel's release")]
    NoRelease,
    /// The header points behind the end of the file.
    #[error("it is cut off: its payload ends at byte {end}, the file at byte {file_bytes}")]
    CutOff {
        /// Where the payload ends, from the start of the file.
        end: u64,
        /// The file's size.
        file_bytes: u64,
    },
    /// The payload starts with an unknown magic number.
    #[error("its payload is packed in a format that is not supported (gzip, xz, lzma, zstd and lz4 are)")]
    UnknownCompression,
    /// The payload does not unpack.
    #[error("its payload cannot be unpacked")]
    Payload(#[from] DecompressError),
    /// The payload unpacks to another size than it ends with.
    #[error(
        "its payload unpacks to {unpacked_bytes} bytes where it says {stated_bytes}: the file is damaged"
    )]
    WrongSize {
        /// Bytes that came out.
        unpacked_bytes: u64,
        /// Bytes that the payload's last word announces.
        stated_bytes: u64,
    },
    /// What came out is not a kernel.
    #[error("what its payload unpacks to is not a kernel")]
    NotAKernel(#[from] image::ImageError),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn check_header(bytes: &[u8]) -> Result<(), BzImageError> {
    let flagged = u16_at(bytes, BOOT_FLAG) == Some(0xaa55);
    let magic = bytes.get(HEADER_MAGIC..).is_some_and(|rest| rest.starts_with(b"HdrS"));
    match u16_at(bytes, VERSION) {
        Some(protocol) if flagged && magic && protocol < OLDEST_PROTOCOL => {
            Err(BzImageError::OldProtocol(protocol))
        }
        Some(_) if flagged && magic => Ok(()),
        _ => Err(BzImageError::NoHeader),
    }
}

/// The kernel's release, from a bzImage's first [`HEAD_BYTES`] bytes (or all, where there are fewer).
///
/// # Errors
/// The bytes do not begin a bzImage, or it does not name its release.
pub fn release(head: &[u8]) -> Result<&str, BzImageError> {
    check_header(head)?;
    let string = || {
        let pointer = u16_at(head, KERNEL_VERSION).filter(|pointer| *pointer != 0)?;
        let text = head.get(usize::from(pointer).checked_add(0x200)?..)?;
        // "6.1.0-9-amd64 (user@host) #1 SMP ..."
        let end = text.iter().position(|byte| matches!(byte, b' ' | 0))?;
        std::str::from_utf8(text.get(..end)?).ok().filter(|release| version::is_release(release))
    };
    string().ok_or(BzImageError::NoRelease)
}

/// The packed kernel inside a bzImage: `payload_offset` and `payload_length` of the setup header.
///
/// # Errors
/// The bytes are not a bzImage, or the payload is not all there.
pub fn payload(image: &[u8]) -> Result<&[u8], BzImageError> {
    check_header(image)?;
    // A setup of 0 sectors means 4, for compatibility; the boot sector itself comes on top.
    let sectors = image.get(SETUP_SECTS).map_or(4, |sectors| if *sectors == 0 { 4 } else { *sectors });
    let setup_bytes = u64::from(sectors).saturating_add(1).saturating_mul(SECTOR_BYTES as u64);
    let (offset, length) =
        u32_at(image, PAYLOAD_OFFSET).zip(u32_at(image, PAYLOAD_LENGTH)).ok_or(BzImageError::NoHeader)?;
    let start = setup_bytes.saturating_add(u64::from(offset));
    let end = start.saturating_add(u64::from(length));
    usize::try_from(start)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(start, end)| image.get(start..end))
        .ok_or(BzImageError::CutOff { end, file_bytes: image.len() as u64 })
}

/// Unpacks the kernel inside a bzImage and checks it: the uncompressed ELF image, followed by the relocations
/// that only the bzImage's own loader reads.
///
/// # Errors
/// What of the image is missing, damaged or not supported.
pub fn extract(image: &[u8]) -> Result<Vec<u8>, BzImageError> {
    let payload = payload(image)?;
    let kernel = if image::is_elf(payload) { payload.to_vec() } else { unpack(payload)? };
    image::check_kernel(&kernel)?;
    Ok(kernel)
}

/// Every payload ends with the size it unpacks to: gzip's own trailer, or a word that `scripts/Makefile.lib`
/// appends behind the stream (`size_append`), which LZ4's legacy frame would take for a block.
fn unpack(payload: &[u8]) -> Result<Vec<u8>, BzImageError> {
    let compression = Compression::detect(payload).ok_or(BzImageError::UnknownCompression)?;
    let (stream, size) = payload.split_last_chunk().ok_or(BzImageError::UnknownCompression)?;
    let stated_bytes = u64::from(u32::from_le_bytes(*size));
    let stream = if compression == Compression::Gzip { payload } else { stream };
    let kernel = compression.decompress(stream, stated_bytes, MAX_KERNEL_BYTES)?;
    let unpacked_bytes = kernel.len() as u64;
    if unpacked_bytes != stated_bytes {
        return Err(BzImageError::WrongSize { unpacked_bytes, stated_bytes });
    }
    Ok(kernel)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// A bzImage around `payload`, with two setup sectors.
    pub(crate) fn image(release: &str, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 3 * SECTOR_BYTES + 32];
        bytes[SETUP_SECTS] = 2;
        bytes[BOOT_FLAG..][..2].copy_from_slice(&[0x55, 0xaa]);
        bytes[HEADER_MAGIC..][..4].copy_from_slice(b"HdrS");
        bytes[VERSION..][..2].copy_from_slice(&0x20fu16.to_le_bytes());
        bytes[KERNEL_VERSION..][..2].copy_from_slice(&0x100u16.to_le_bytes());
        let text = format!("{release} (builder@host) #1");
        bytes[0x300..][..text.len()].copy_from_slice(text.as_bytes());
        bytes[PAYLOAD_OFFSET..][..4].copy_from_slice(&32u32.to_le_bytes());
        bytes[PAYLOAD_LENGTH..][..4].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend(payload);
        bytes.extend([0; 100]);
        bytes
    }

    /// `bytes` packed as a kernel's payload is, by gzip.
    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let mut packed = ruzstd::encoding::compress_to_vec(bytes, level);
        packed.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        packed
    }

    #[test]
    fn the_kernel_comes_out_as_it_went_in() {
        let kernel = image::tests::image("6.1.0-9");
        for payload in [gzip(&kernel), zstd(&kernel), kernel.clone()] {
            let image = image("6.1.0-9", &payload);
            assert_eq!(release(&image).unwrap(), "6.1.0-9");
            assert_eq!(extract(&image).unwrap(), kernel);
        }
    }

    #[test]
    fn the_head_is_enough_for_the_release() {
        let image = image("6.1.0-9", &vec![0; 2 * HEAD_BYTES]);
        assert_eq!(release(&image[..HEAD_BYTES]).unwrap(), "6.1.0-9");
    }

    #[test]
    fn damage_is_named() {
        let kernel = image::tests::image("6.1.0");
        let good = image("6.1.0", &gzip(&kernel));
        assert!(matches!(extract(b"#!/bin/sh\n"), Err(BzImageError::NoHeader)));
        assert!(matches!(extract(&good[..good.len() - 101]), Err(BzImageError::CutOff { .. })));
        let mut old = good.clone();
        old[VERSION] = 7;
        old[VERSION + 1] = 2;
        assert_eq!(extract(&old).unwrap_err().to_string(), "its boot protocol is 2.07, older than 2.08");
        assert!(matches!(extract(&image("6.1.0", b"BZh9....")), Err(BzImageError::UnknownCompression)));
        assert!(matches!(extract(&image("6.1.0", &[])), Err(BzImageError::UnknownCompression)));
        assert!(matches!(extract(&image("6.1.0", &gzip(b"hello"))), Err(BzImageError::NotAKernel(_))));
        assert!(matches!(release(&image("../../../etc", b"")), Err(BzImageError::NoRelease)));
    }

    #[test]
    fn a_payload_that_lost_its_tail_is_found_by_its_size() {
        let kernel = image::tests::image("6.1.0");
        let mut payload = zstd(&kernel);
        let end = payload.len();
        payload[end - 4] ^= 1;
        let error = extract(&image("6.1.0", &payload)).unwrap_err();
        assert!(matches!(error, BzImageError::WrongSize { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = (release(&bytes), extract(&bytes));
        }

        #[test]
        fn any_header_is_survived(at in 0x1f1usize..0x260, value: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = image("6.1.0", &gzip(&image::tests::image("6.1.0")));
            bytes[at] = value;
            let _ = (release(&bytes), extract(&bytes));
            bytes.truncate(cut.index(bytes.len()));
            let _ = (release(&bytes), extract(&bytes));
        }

        #[test]
        fn the_payload_lies_in_the_image(offset: u32, length: u32) {
            let mut bytes = image("6.1.0", &[0; 64]);
            bytes[PAYLOAD_OFFSET..][..4].copy_from_slice(&offset.to_le_bytes());
            bytes[PAYLOAD_LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
            let end = 3 * 512 + u64::from(offset) + u64::from(length);
            prop_assert_eq!(payload(&bytes).is_ok(), end <= bytes.len() as u64);
        }
    }
}
