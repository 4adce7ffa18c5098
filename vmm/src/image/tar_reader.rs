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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::member::Segment;

    fn members(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
        let mut members = Members::new(Streamed(bytes));
        let mut all = Vec::new();
        while let Some(member) = members.next_member()? {
            let mut data = Vec::new();
            let mut chunk = [0u8; 100];
            loop {
                match members.read_data(&mut chunk)? {
                    0 => break,
                    read => data.extend_from_slice(&chunk[..read]),
                }
            }
            all.push((member, data));
        }
        Ok(all)
    }

    fn header(name: &str, kind: u8, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(9);
        header.set_cksum();
        header
    }

    fn block(data: &[u8]) -> Vec<u8> {
        let mut bytes = data.to_vec();
        bytes.resize(data.len().div_ceil(512) * 512, 0);
        bytes
    }

    fn member_bytes(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
        [header(name, kind, data.len() as u64).as_bytes().to_vec(), block(data)].concat()
    }

    #[test]
    fn plain_members() {
        let bytes =
            [member_bytes("a", b'0', b"hello"), member_bytes("d/", b'0', b""), vec![0; 1024]].concat();
        let all = members(&bytes).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].0.path.as_slice(), all[0].1.as_slice()), (&b"a"[..], &b"hello"[..]));
        assert_eq!((all[0].0.uid, all[0].0.gid, all[0].0.mtime.seconds, all[0].0.mode), (7, 8, 9, 0o644));
        assert_eq!(all[1].0.kind, Kind::Directory);
    }

    #[test]
    fn long_names_and_pax_records_describe_the_next_member_only() {
        let name = "n".repeat(300);
        let bytes = [
            member_bytes("././@LongLink", b'L', format!("{name}\0").as_bytes()),
            member_bytes("short", b'0', b"1"),
            member_bytes("x", b'x', b"21 mtime=1234567.125\n9 uid=70\n"),
            member_bytes("second", b'0', b"2"),
            member_bytes("g", b'g', b"12 path=abc\n"),
            member_bytes("third", b'0', b"3"),
        ]
        .concat();
        let all = members(&bytes).unwrap();
        assert_eq!(all[0].0.path, name.as_bytes());
        assert_eq!(all[1].0.path, b"second");
        assert_eq!(
            (all[1].0.uid, all[1].0.mtime),
            (70, Mtime { seconds: 1_234_567, nanoseconds: 125_000_000 })
        );
        assert_eq!((all[2].0.path.as_slice(), all[2].0.uid), (&b"third"[..], 7));
    }

    #[test]
    fn links_carry_no_data_whatever_their_size_says() {
        let mut link = header("l", b'2', 512);
        link.set_link_name("target").unwrap();
        link.set_cksum();
        let bytes = [link.as_bytes().to_vec(), member_bytes("after", b'0', b"x")].concat();
        let all = members(&bytes).unwrap();
        assert_eq!(all[0].0.link, b"target");
        assert_eq!(all[1].0.path, b"after");
    }

    #[test]
    fn old_gnu_sparse_member() {
        let mut sparse = header("s", b'S', 5);
        let gnu = sparse.as_gnu_mut().unwrap();
        gnu.set_real_size(1 << 20);
        gnu.sparse[0].set_offset(4096);
        gnu.sparse[0].set_length(5);
        gnu.sparse[1].set_offset(1 << 20);
        gnu.sparse[1].set_length(0);
        sparse.set_cksum();
        let bytes = [sparse.as_bytes().to_vec(), block(b"hello"), member_bytes("after", b'0', b"")].concat();
        let all = members(&bytes).unwrap();
        assert_eq!((all[0].0.size, all[0].0.stored), (1 << 20, 5));
        assert_eq!(all[0].0.segments.as_deref(), Some(&[Segment { offset: 4096, length: 5 }][..]));
        assert_eq!(all[0].1, b"hello");
        assert_eq!(all[1].0.path, b"after");
    }

    #[test]
    fn pax_sparse_members_of_every_version() {
        let pax = |records: &[(&str, &str)]| {
            let mut builder = tar::Builder::new(Vec::new());
            builder.append_pax_extensions(records.iter().map(|(k, v)| (*k, v.as_bytes()))).unwrap();
            let bytes = builder.into_inner().unwrap();
            bytes[..bytes.len() - 1024].to_vec()
        };
        let cases = [
            [
                pax(&[
                    ("GNU.sparse.size", "9000"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.offset", "4096"),
                    ("GNU.sparse.numbytes", "5"),
                ]),
                member_bytes("f", b'0', b"hello"),
            ],
            [
                pax(&[("GNU.sparse.size", "9000"), ("GNU.sparse.name", "f"), ("GNU.sparse.map", "4096,5")]),
                member_bytes("GNUSparseFile.1/f", b'0', b"hello"),
            ],
            [
                pax(&[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.name", "f"),
                    ("GNU.sparse.realsize", "9000"),
                ]),
                member_bytes(
                    "GNUSparseFile.1/f",
                    b'0',
                    &[block(b"1\n4096\n5\n"), b"hello".to_vec()].concat(),
                ),
            ],
        ];
        for case in cases {
            let all = members(&case.concat()).unwrap();
            assert_eq!((all[0].0.path.as_slice(), all[0].0.size), (&b"f"[..], 9000));
            assert_eq!(all[0].0.segments.as_deref(), Some(&[Segment { offset: 4096, length: 5 }][..]));
            assert_eq!(all[0].1, b"hello");
        }
    }

    #[test]
    fn damage_is_told() {
        let good = member_bytes("a", b'0', b"hello");
        assert!(matches!(members(&good[..600]), Err(TarError::Truncated)));
        assert!(matches!(members(&good[..100]), Err(TarError::Truncated)));
        let mut wrong = good.clone();
        wrong[0] ^= 1;
        assert!(matches!(members(&wrong), Err(TarError::Malformed(_))));
        assert!(matches!(members(&member_bytes("m", b'M', b"")), Err(TarError::UnknownType { .. })));
        let huge = header("x", b'x', 1 << 40);
        assert!(matches!(members(huge.as_bytes()), Err(TarError::MetadataTooLarge(_))));
        let dangling = member_bytes("x", b'x', b"9 uid=70\n");
        assert!(matches!(members(&dangling), Err(TarError::Truncated)));
    }

    #[test]
    fn size_near_the_end_of_64_bits_is_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("size", &b"18446744073709551615"[..])]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(1024);
        bytes.extend(member_bytes("a", b'0', b""));
        assert!(members(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn any_stream_ends(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = members(&bytes);
        }

        #[test]
        fn any_header_field_is_parsed_or_refused(at in 0usize..512, value: u8, kind in "[0-7SxgLKVM]") {
            let mut header = header("name", kind.as_bytes()[0], 600);
            if !(148..156).contains(&at) {
                header.as_mut_bytes()[at] = value;
            }
            header.set_cksum();
            let _ = members(&[header.as_bytes().to_vec(), vec![b'1'; 1536]].concat());
        }
    }
}
