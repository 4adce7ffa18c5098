//! Decompression of what kernels and their modules are packed with, bounded in its output.
//!
//! Pure: bytes in, bytes out. The format is told by its magic number, never by a file's name. Called for the
//! payload of a bzImage and for `.ko.gz`, `.ko.xz` and `.ko.zst` files.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::io::{self, Read};

/// A compression format of `lib/decompress.c` that can be read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// The xz container, with or without the x86 branch filter.
    Xz,
    /// The older `.lzma` format.
    Lzma,
    /// RFC 8878.
    Zstd,
    /// LZ4's legacy frame, the only one that kernels are packed with.
    Lz4,
}

/// Why bytes cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    /// The stream is damaged or cut off.
    #[error("the {0:?} data is damaged or cut off")]
    Damaged(Compression, #[source] io::Error),
    /// The stream unpacks to more than was allowed.
    #[error("the {compression:?} data unpacks to more than {limit_bytes} bytes")]
    TooLarge {
        /// The stream's format.
        compression: Compression,
        /// What was allowed.
        limit_bytes: u64,
    },
}

/// What a decoder may hold beside its output: xz and lzma dictionaries, zstd windows. Kernels are packed with
/// up to 128 MiB (`zstd -22 --ultra`, `xz --lzma2=dict=128MiB`).
const MAX_DICTIONARY_BYTES: u64 = 128 << 20;

/// A dictionary of [`MAX_DICTIONARY_BYTES`] and the decoder's own tables, in the unit that lzma-rust2 takes.
const XZ_MEMORY_LIMIT_KIB: u32 = (128 << 10) + (4 << 10);

/// Largest output that is reserved in advance on the word of the input.
const MAX_RESERVED_BYTES: u64 = 128 << 20;

impl Compression {
    /// The format that `bytes` begin with, if it is one of these. The magic numbers are those of
    /// `lib/decompress.c`; bzip2 and lzo are not supported.
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        const MAGICS: [(&[u8], Compression); 5] = [
            (&[0x1f, 0x8b], Compression::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            (&[0x5d, 0, 0], Compression::Lzma),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4),
        ];
        MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, compression)| *compression)
    }

    /// Unpacks the one stream that `packed` starts with. `expected_bytes` is a hint for the allocation.
    ///
    /// # Errors
    /// The stream is damaged, or unpacks to more than `limit_bytes`. LZ4's legacy frame has no end mark: a
    /// stream that is cut at a block's edge unpacks to less, and only the caller can tell.
    pub fn decompress(
        self,
        packed: &[u8],
        expected_bytes: u64,
        limit_bytes: u64,
    ) -> Result<Vec<u8>, DecompressError> {
        let damaged = |error| DecompressError::Damaged(self, error);
        let reserved = expected_bytes.min(limit_bytes).min(MAX_RESERVED_BYTES);
        let mut unpacked = Vec::with_capacity(usize::try_from(reserved).unwrap_or(0));
        let mut read = |decoder: &mut dyn Read| -> Result<(), DecompressError> {
            decoder.take(limit_bytes.saturating_add(1)).read_to_end(&mut unpacked).map_err(damaged)?;
            if unpacked.len() as u64 > limit_bytes {
                return Err(DecompressError::TooLarge { compression: self, limit_bytes });
            }
            Ok(())
        };
        match self {
            Self::Gzip => read(&mut flate2::read::GzDecoder::new(packed))?,
            Self::Xz => {
                read(&mut lzma_rust2::XzReader::new_mem_limit(packed, false, XZ_MEMORY_LIMIT_KIB))?;
            }
            Self::Lzma => {
                let decoder = lzma_rust2::LzmaReader::new_mem_limit(packed, XZ_MEMORY_LIMIT_KIB, None);
                read(&mut decoder.map_err(damaged)?)?;
            }
            Self::Zstd => {
                let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
                    packed,
                    MAX_DICTIONARY_BYTES,
                );
                read(&mut decoder.map_err(|error| damaged(io::Error::other(error)))?)?;
            }
            Self::Lz4 => read(&mut lz4_flex::frame::FrameDecoder::new(packed))?,
        }
        Ok(unpacked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const ALL: [Compression; 5] =
        [Compression::Gzip, Compression::Xz, Compression::Lzma, Compression::Zstd, Compression::Lz4];

    fn pack(compression: Compression, bytes: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut options = lzma_rust2::XzOptions::with_preset(1);
                options.prepend_pre_filter(lzma_rust2::filter::FilterType::BcjX86, 0);
                let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Lzma => {
                let options = lzma_rust2::LzmaOptions::with_preset(1);
                let mut encoder = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => {
                ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
            }
            Compression::Lz4 => {
                let mut packed = 0x184C_2102u32.to_le_bytes().to_vec();
                for block in bytes.chunks(8 << 20) {
                    let block = lz4_flex::block::compress(block);
                    packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
                    packed.extend(block);
                }
                packed
            }
        }
    }

    /// Machine code for the branch filter, text, and more than one LZ4 block.
    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        for i in 0u32..900_000 {
            bytes.push(0xe8);
            bytes.extend((i.wrapping_mul(2_654_435_761) >> 12).to_le_bytes());
            bytes.extend(b"move");
            bytes.push(u8::try_from(i % 251).unwrap());
        }
        bytes
    }

    #[test]
    fn every_format_is_detected_and_unpacked() {
        let bytes = sample();
        for compression in ALL {
            let packed = pack(compression, &bytes);
            assert_eq!(Compression::detect(&packed), Some(compression));
            let unpacked = compression.decompress(&packed, bytes.len() as u64, 64 << 20).unwrap();
            assert!(unpacked == bytes, "{compression:?} changed the bytes");
        }
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let bytes = vec![7; 5000];
        for compression in ALL {
            let packed = pack(compression, &bytes);
            assert_eq!(compression.decompress(&packed, 0, 5000).unwrap().len(), 5000, "{compression:?}");
            let error = compression.decompress(&packed, 0, 4999).unwrap_err();
            assert!(matches!(error, DecompressError::TooLarge { limit_bytes: 4999, .. }), "{compression:?}");
        }
    }

    #[test]
    fn a_cut_stream_never_yields_the_whole() {
        let bytes = (0..3000u32).flat_map(|i| (i * i).to_le_bytes()).collect::<Vec<_>>();
        for compression in ALL {
            let packed = pack(compression, &bytes);
            for cut in [packed.len() / 2, packed.len() - 1] {
                let unpacked = compression.decompress(&packed[..cut], 0, 1 << 20);
                assert!(unpacked.map_or(true, |unpacked| unpacked != bytes), "{compression:?} at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_behind_a_magic_number_is_survived(which in 0usize..5, tail in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut packed = pack(ALL[which], b"");
            packed.truncate(6);
            packed.extend(tail);
            let _ = ALL[which].decompress(&packed, u64::MAX, 1 << 20);
        }

        #[test]
        fn a_damaged_stream_is_survived(which in 0usize..5, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut packed = pack(ALL[which], &b"the quick brown fox jumps over the lazy dog ".repeat(40));
            let at = at.index(packed.len());
            packed[at] ^= 1 << bit;
            let _ = ALL[which].decompress(&packed, 0, 1 << 20);
        }
    }
}
