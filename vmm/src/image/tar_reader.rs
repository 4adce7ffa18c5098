//! The members of a tar stream: ustar, PAX, GNU long names and GNU sparse files, read one after the other.
//!
//! Pure over [`Read`]: touches no file system. Called by the unpacker, by the index of container archives and by
//! the fuzz target. Header fields are the `tar` crate's; its iterator is not used, because it holds metadata
//! members of any size in memory, splits PAX records at newlines and knows no PAX sparse files.
//! As in Go's `archive/tar`, whose readers unpack the same layers elsewhere, links, directories, devices and
//! FIFOs carry no data whatever their size field says, and global PAX headers change nothing.
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::fs::File;
use std::io::{self, BufReader, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::member::{Kind, Member, Mtime, TarError};
use super::pax::{self, Records};

const BLOCK_BYTES: u64 = 512;

/// The most that one metadata member (PAX header, long name, sparse map) may hold: Go's limit as well.
const METADATA_BYTES_MAX: u64 = 1 << 20;

/// A stream that can leave bytes out.
pub trait Skip: Read {
    /// Leaves out `bytes`; one that cannot seek reads them.
    ///
    /// # Errors
    /// That of the stream, `UnexpectedEof` if it ends before.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// A stream whose skipped bytes are read: what hashes or decompresses needs every byte.
#[derive(Debug)]
pub struct Streamed<R>(pub R);

impl<R: Read> Read for Streamed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Skip for Streamed<R> {}

impl Skip for BufReader<File> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.seek_relative(i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?)
    }
}

/// Reads a tar stream member by member.
#[derive(Debug)]
pub struct Members<R> {
    source: R,
    /// Bytes consumed from the start of the stream.
    position: u64,
    /// Bytes of the current member's data not read yet.
    data_left: u64,
    /// Bytes from the end of that data to the next header.
    padding: u64,
    ended: bool,
}

impl<R: Skip> Members<R> {
    /// Starts at the first header.
    pub fn new(source: R) -> Self {
        Self { source, position: 0, data_left: 0, padding: 0, ended: false }
    }

    /// The next member, whatever of the last one's data was read; `None` at the end mark or the end of the stream.
    ///
    /// # Errors
    /// [`TarError`]; the stream is of no use afterwards.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut records: Option<Records> = None;
        let (mut long_name, mut long_link) = (None, None);
        while !self.ended {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else {
                self.ended = true;
                break;
            };
            let size = header.entry_size().map_err(|_| TarError::Malformed("a size field is malformed"))?;
            match header.entry_type().as_byte() {
                b'x' | b'X' if records.is_none() => records = Some(pax::parse(&self.read_metadata(size)?)?),
                b'L' if long_name.is_none() => long_name = Some(until_nul(self.read_metadata(size)?)),
                b'K' if long_link.is_none() => long_link = Some(until_nul(self.read_metadata(size)?)),
                b'x' | b'X' | b'L' | b'K' => {
                    return Err(TarError::Malformed("two metadata members describe one member"));
                }
                b'g' => {
                    self.read_metadata(size)?;
                }
                _ => {
                    return self
                        .member(&header, size, records.unwrap_or_default(), long_name, long_link)
                        .map(Some);
                }
            }
        }
        if records.is_some() || long_name.is_some() || long_link.is_some() {
            return Err(TarError::Truncated);
        }
        Ok(None)
    }

    /// Reads from the current member's data; 0 at its end.
    ///
    /// # Errors
    /// [`TarError::Truncated`] when the stream ends before the data does.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let wanted = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.source.read(buffer.get_mut(..wanted).unwrap_or_default()).map_err(TarError::Read)?;
        if read == 0 {
            return Err(TarError::Truncated);
        }
        let bytes = read as u64;
        self.data_left = self.data_left.saturating_sub(bytes);
        self.position = self.position.saturating_add(bytes);
        Ok(read)
    }

    /// Where the next byte of data stands in the stream.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The stream below, to read what follows the end mark.
    pub fn into_inner(self) -> R {
        self.source
    }

    fn member(
        &mut self,
        header: &Header,
        size: u64,
        records: Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member, TarError> {
        let field =
            |value: io::Result<u64>| value.map_err(|_| TarError::Malformed("a number field is malformed"));
        let path = records.path.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned());
        let path = records.sparse.name.clone().unwrap_or(path);
        let link = records.link.or(long_link);
        let link = link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        let kind = Kind::of(header, &path)?;
        let mtime = match records.mtime {
            Some(mtime) => mtime,
            // The field is signed where it is binary: the crate hands over its 64 bits.
            None => Mtime { seconds: field(header.mtime())?.cast_signed(), nanoseconds: 0 },
        };
        let mut member = Member {
            kind,
            path,
            link,
            mode: header.mode().map_err(|_| TarError::Malformed("a mode field is malformed"))?,
            uid: records.uid.map_or_else(|| field(header.uid()), Ok)?,
            gid: records.gid.map_or_else(|| field(header.gid()), Ok)?,
            mtime,
            xattrs: records.xattrs,
            size: 0,
            stored: 0,
            segments: None,
        };
        match kind {
            Kind::File => {}
            Kind::Label => {
                self.expect_data(size)?;
                return Ok(member);
            }
            _ => return Ok(member),
        }
        self.expect_data(records.size.unwrap_or(size))?;
        if header.entry_type().is_gnu_sparse() {
            let gnu = header.as_gnu().ok_or(TarError::Malformed("a sparse member without a GNU header"))?;
            let stored = self.data_left;
            let map = self.read_gnu_map(gnu.sparse.as_slice(), gnu.is_extended())?;
            member.size = gnu.real_size().map_err(|_| TarError::Malformed("a sparse size is malformed"))?;
            member.segments = Some(pax::segments(&map, member.size, stored)?);
            self.expect_data(stored)?;
        } else if records.sparse.is_sparse() {
            let map = if records.sparse.map_in_data { self.read_data_map()? } else { records.sparse.map };
            member.size =
                records.sparse.real_size.ok_or(TarError::Malformed("a sparse member without a size"))?;
            member.segments = Some(pax::segments(&map, member.size, self.data_left)?);
        } else {
            member.size = self.data_left;
        }
        member.stored = self.data_left;
        Ok(member)
    }

    fn expect_data(&mut self, bytes: u64) -> Result<(), TarError> {
        self.data_left = bytes;
        self.padding = match bytes % BLOCK_BYTES {
            0 => 0,
            over => BLOCK_BYTES.saturating_sub(over),
        };
        let end = self.position.checked_add(bytes).and_then(|end| end.checked_add(self.padding));
        end.map(|_| ()).ok_or(TarError::Malformed("a size is beyond 64 bits"))
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.data_left.saturating_add(self.padding);
        if rest > 0 {
            self.source.skip(rest).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => TarError::Truncated,
                _ => TarError::Read(error),
            })?;
            self.position = self.position.saturating_add(rest);
            (self.data_left, self.padding) = (0, 0);
        }
        Ok(())
    }

    /// The next block if it is a valid header; `None` at the end mark or the end of the stream.
    fn read_header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        if !self.read_block(header.as_mut_bytes())? || header.as_bytes().iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let stated = header.cksum().map_err(|_| TarError::Malformed("a header has no checksum"))?;
        // Old tars summed signed bytes.
        let (mut unsigned, mut signed) = (0u32, 0i32);
        for (at, &byte) in header.as_bytes().iter().enumerate() {
            let byte = if (148..156).contains(&at) { b' ' } else { byte };
            unsigned = unsigned.saturating_add(u32::from(byte));
            signed = signed.saturating_add(i32::from(byte.cast_signed()));
        }
        if stated != unsigned && i64::from(stated) != i64::from(signed) {
            return Err(TarError::Malformed("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// Fills one block; false at the end of the stream.
    fn read_block(&mut self, block: &mut [u8]) -> Result<bool, TarError> {
        let mut filled = 0usize;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        self.position = self.position.saturating_add(filled as u64);
        Ok(true)
    }

    fn read_metadata(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > METADATA_BYTES_MAX {
            return Err(TarError::MetadataTooLarge(size));
        }
        self.expect_data(size)?;
        let mut bytes = Vec::new();
        let mut chunk = [0u8; 4096];
        loop {
            match self.read_data(&mut chunk)? {
                0 => return Ok(bytes),
                read => bytes.extend_from_slice(chunk.get(..read).unwrap_or_default()),
            }
        }
    }

    /// The map of an old GNU sparse member: a few pairs in the header, more in blocks after it.
    fn read_gnu_map(&mut self, first: &[GnuSparseHeader], mut more: bool) -> Result<Vec<u64>, TarError> {
        let mut map = Vec::new();
        push_gnu_pairs(&mut map, first)?;
        let mut blocks_bytes = 0u64;
        while more {
            blocks_bytes = blocks_bytes.saturating_add(BLOCK_BYTES);
            if blocks_bytes > METADATA_BYTES_MAX {
                return Err(TarError::MetadataTooLarge(blocks_bytes));
            }
            let mut block = GnuExtSparseHeader::new();
            if !self.read_block(block.as_mut_bytes())? {
                return Err(TarError::Truncated);
            }
            push_gnu_pairs(&mut map, block.sparse())?;
            more = block.is_extended();
        }
        Ok(map)
    }

    /// The map of a PAX 1.0 sparse member: decimal lines before the data, padded to a block.
    fn read_data_map(&mut self) -> Result<Vec<u64>, TarError> {
        const BAD: TarError = TarError::Malformed("a sparse map is malformed");
        let mut numbers = Vec::new();
        let mut digits: Vec<u8> = Vec::new();
        let mut bytes_read = 0u64;
        loop {
            let mut block = [0u8; 512];
            let mut filled = 0usize;
            while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match self.read_data(rest)? {
                    0 => return Err(BAD),
                    read => filled = filled.saturating_add(read),
                }
            }
            bytes_read = bytes_read.saturating_add(BLOCK_BYTES);
            if bytes_read > METADATA_BYTES_MAX {
                return Err(TarError::MetadataTooLarge(bytes_read));
            }
            for &byte in &block {
                if byte == b'\n' {
                    numbers.push(pax::decimal(&digits).ok_or(BAD)?);
                    digits.clear();
                    // The first number counts the pairs.
                    if let Some((&pairs, map)) = numbers.split_first()
                        && pairs.checked_mul(2) == Some(map.len() as u64)
                    {
                        return Ok(map.to_vec());
                    }
                } else {
                    digits.push(byte);
                }
            }
        }
    }
}

fn push_gnu_pairs(map: &mut Vec<u64>, headers: &[GnuSparseHeader]) -> Result<(), TarError> {
    for pair in headers.iter().filter(|pair| !pair.is_empty()) {
        let (Ok(offset), Ok(length)) = (pair.offset(), pair.length()) else {
            return Err(TarError::Malformed("a sparse map is malformed"));
        };
        map.extend([offset, length]);
    }
    Ok(())
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(nul) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(nul);
    }
    bytes
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
#[path = "tar_reader_tests.rs"]
mod tests;
