//! Which compression a stream has, told by its first bytes, and decoders for it. Pure over [`Read`].
//!
//! Media types and file names are not believed. Streams of several frames or members (pigz, pzstd, `zstd:chunked`
//! layers) are read to their end. What comes out is held against the limits as it comes.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::limits::Budget;

/// How many bytes [`Compression::detect`] wants to see.
pub const MAGIC_BYTES: usize = 6;

/// Reads from the compressed side, in bytes.
const BUFFER_BYTES: usize = 128 << 10;

/// An xz stream may ask for this much memory: `xz -9` needs 65 MiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all, or in no way known here.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz format.
    Xz,
}

impl Compression {
    /// Tells by the stream's first [`MAGIC_BYTES`] (fewer if the stream is shorter).
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame before the first one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }

    /// Decodes `source` to its end; expansion beyond the budget is an error of the reader.
    pub fn decode<'a>(self, source: impl Read + 'a, budget: &'a Budget<'_>) -> Box<dyn Read + 'a> {
        let counted = |source| BufReader::with_capacity(BUFFER_BYTES, Counted { inner: source, budget });
        let inner: Box<dyn Read + 'a> = match self {
            Self::None => return Box::new(BufReader::with_capacity(BUFFER_BYTES, source)),
            Self::Gzip => Box::new(MultiGzDecoder::new(counted(source))),
            Self::Zstd => {
                let source = counted(source);
                Box::new(ZstdFrames { source, decoder: FrameDecoder::new(), in_frame: false })
            }
            Self::Xz => Box::new(XzReader::new_mem_limit(counted(source), true, XZ_MEMORY_KIB)),
        };
        Box::new(Expanding { inner, budget })
    }
}

struct Counted<'a, R> {
    inner: R,
    budget: &'a Budget<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.budget.consume(read as u64);
        Ok(read)
    }
}

struct Expanding<'a> {
    inner: Box<dyn Read + 'a>,
    budget: &'a Budget<'a>,
}

impl Read for Expanding<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer).map_err(told)?;
        self.budget.charge_expansion(read as u64).map_err(io::Error::other)?;
        Ok(read)
    }
}

/// Decoders say in words of their own that there should be more.
fn told(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "its compressed data ends too early: fetch or make it again")
        }
        _ => error,
    }
}

/// The frames of a zstd stream one after the other: the crate decodes one.
struct ZstdFrames<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    /// Enters the next frame; false at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && (buffer.is_empty() || !self.next_frame()?) {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let stated = self.decoder.get_checksum_from_data();
            if stated.is_some() && stated != self.decoder.get_calculated_checksum() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a zstd frame's checksum is wrong"));
            }
            self.in_frame = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::limits::Limits;
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn decode(bytes: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Compression::detect(bytes).decode(bytes, &Budget::new(limits)).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn streams_of_several_members_are_read_to_the_end() {
        let limits = Limits::default();
        let text = b"hello ".repeat(40_000);
        assert_eq!(
            decode(&[gzip(&text), gzip(b"two")].concat(), &limits).unwrap(),
            [&text[..], b"two"].concat()
        );
        let skippable = [&[0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let frames = [skippable.clone(), zstd(&text), skippable.clone(), zstd(b"two"), skippable].concat();
        assert_eq!(decode(&frames, &limits).unwrap(), [&text[..], b"two"].concat());
        assert_eq!(decode(b"plain", &limits).unwrap(), b"plain");
        assert_eq!(decode(b"", &limits).unwrap(), b"");
    }

    #[test]
    fn truncation_and_damage_are_errors() {
        let limits = Limits::default();
        let text = b"some text that does not repeat itself: 1234567890".repeat(3);
        for packed in [gzip(&text), zstd(&text)] {
            for cut in 7..packed.len() - 1 {
                assert!(decode(&packed[..cut], &limits).is_err(), "cut at {cut} of {}", packed.len());
            }
        }
        let packed = gzip(&text);
        let cut = decode(&packed[..packed.len() / 2], &limits).unwrap_err();
        assert_eq!(cut.to_string(), "its compressed data ends too early: fetch or make it again");
        let mut wrong = gzip(&text);
        let crc = wrong.len() - 6;
        wrong[crc] ^= 1;
        assert!(decode(&wrong, &limits).is_err());
    }

    #[test]
    fn a_bomb_is_stopped_where_it_passes_the_limit() {
        let limits = Limits { expansion: 10, expansion_floor_bytes: 1 << 20, ..Limits::default() };
        let bomb = gzip(&vec![0; 8 << 20]);
        let budget = Budget::new(&limits);
        let mut reader = Compression::Gzip.decode(bomb.as_slice(), &budget);
        let mut out = 0;
        let mut chunk = [0; 8192];
        let error = loop {
            match reader.read(&mut chunk) {
                Ok(read) => out += read,
                Err(error) => break error,
            }
        };
        assert!(out <= 1 << 20, "{out}");
        assert!(error.to_string().contains("bomb"), "{error}");
    }
}
