//! One layer's way from a stream of bytes to a staged tree, hashed as it passes; and what layers are called.
#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::path::Path;

use super::blobs::Extent;
use super::compression::{Compression, MAGIC_BYTES};
use super::digest::{Digest, Tally};
use super::limits::Budget;
use super::member_data;
use super::progress::{Event, Progress};
use super::tar_reader::{Members, Streamed};
use super::unpack::{self, Summary, UnpackError};

/// What came out of a stream.
#[derive(Debug)]
pub struct Unpacked {
    /// What it holds.
    pub summary: Summary,
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Digest of the bytes as stored, compressed or not.
    pub stored: Digest,
}

/// How a stored layer is compressed.
///
/// # Errors
/// That of reading its start.
pub fn compression(extent: Extent) -> io::Result<Compression> {
    let mut start = Vec::new();
    extent.take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
    Ok(Compression::detect(&start))
}

/// Unpacks a layer into the empty directory `root`, to the stream's last byte.
///
/// # Errors
/// [`UnpackError`]; the directory is then of no use.
pub fn unpack(
    extent: Extent,
    compression: Compression,
    root: &Path,
    budget: &Budget<'_>,
    progress: &dyn Progress,
) -> Result<Unpacked, UnpackError> {
    let (stored, plain) = (Tally::hashing(), Tally::hashing());
    let told = Told { inner: extent, progress, untold: 0 };
    // Uncompressed, the two digests are one: hash once.
    let stream = match compression {
        Compression::None => compression.decode(told, budget),
        _ => compression.decode(stored.reader(told), budget),
    };
    let mut members = Members::new(Streamed(plain.reader(stream)));
    let summary = unpack::unpack(&mut members, root, budget)?;
    member_data::drain(members.into_inner(), budget.limits())?;
    let diff_id = plain.digest();
    let stored = if compression == Compression::None { diff_id } else { stored.digest() };
    Ok(Unpacked { summary, diff_id, stored })
}

/// The key of a file that depends on the layers below it: merged layers, and layers whose archive leaves
/// directories undescribed.
pub fn chained_key(chain: &[Digest], group: &[Digest]) -> Digest {
    let mut text = String::from("ballast layers 1\n");
    for digest in chain {
        text.push_str(&format!("below {digest}\n"));
    }
    for digest in group {
        text.push_str(&format!("layer {digest}\n"));
    }
    Digest::of(text.as_bytes())
}

/// The diff id of a tar without members, which builders write for steps that changed nothing.
pub fn empty_tar() -> Digest {
    Digest::of(&[0; 1024])
}

/// A reader that tells how far it is.
struct Told<'a> {
    inner: Extent,
    progress: &'a dyn Progress,
    untold: u64,
}

impl Told<'_> {
    /// How much is read between two reports, in bytes.
    const STEP_BYTES: u64 = 1 << 20;
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.untold += read as u64;
        if self.untold >= Self::STEP_BYTES || read == 0 && self.untold > 0 {
            self.progress.report(Event::Advance { bytes: self.untold });
            self.untold = 0;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chained_key_depends_on_every_layer_and_its_place() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Digest::of(bytes));
        let keys = [
            chained_key(&[], &[a]),
            chained_key(&[a], &[b]),
            chained_key(&[], &[a, b]),
            chained_key(&[a], &[b, c]),
            chained_key(&[a, b], &[c]),
            chained_key(&[b, a], &[c]),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key) && *key != a);
        }
    }
}
