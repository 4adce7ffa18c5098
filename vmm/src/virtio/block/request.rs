//! What a driver asks of the disk: requests and ranges as bytes, checked before anything is done.
//!
//! Pure: bytes, lengths and the disk's size in, an operation or a refusal out (virtio 1.3, 5.2.6).

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

use super::limits::{MAX_DISCARD_RANGES, MAX_DISCARD_SECTORS, MAX_REQUEST_BYTES, MAX_ZEROES_SECTORS};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// Bytes in a sector, the unit of every number in the protocol, whatever the disk's block size.
pub const SECTOR_BYTES: u64 = 512;

/// Bytes in a request's header: type, a reserved word, first sector.
pub const HEADER_BYTES: u32 = 16;

/// Bytes in one range of a discard or write-zeroes request: first sector, number of sectors, flags.
pub const RANGE_BYTES: usize = 16;

/// What a request is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size.
    pub sectors: u64,
    /// Nothing may change it.
    pub read_only: bool,
    /// Its storage can be given back in part.
    pub discards: bool,
}

/// A request that may be carried out. Lengths are those of the data beside header and status, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fill the writable data from the disk.
    Read {
        /// First byte of the disk.
        offset: u64,
        /// Bytes, a multiple of a sector.
        len: u32,
    },
    /// Write the readable data to the disk.
    Write {
        /// First byte of the disk.
        offset: u64,
        /// Bytes, a multiple of a sector.
        len: u32,
    },
    /// Make what was written durable.
    Flush,
    /// Fill the writable data with the serial number.
    Identify,
    /// Give ranges back. Their list, `len` bytes, is the readable data.
    Discard {
        /// Bytes of the list.
        len: u32,
    },
    /// Zero a range. Its list, `len` bytes, is the readable data.
    WriteZeroes {
        /// Bytes of the list.
        len: u32,
    },
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The device knows no such request, or no such flag.
    Unsupported,
    /// The data is missing, too much, or no whole number of sectors or ranges.
    Length,
    /// It would change a read-only disk.
    ReadOnly,
    /// It reaches beyond the end of the disk, or beyond a limit that the device announced.
    Range,
}

impl Refusal {
    /// The status that the driver is told.
    #[must_use]
    pub fn status(self) -> u8 {
        let status = match self {
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP,
            Self::Length | Self::ReadOnly | Self::Range => VIRTIO_BLK_S_IOERR,
        };
        status.to_le_bytes()[0]
    }
}

/// A checked range of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// The storage may be given back.
    pub unmap: bool,
}

/// Reads a request from its header, the number of bytes that follow the header in the device-readable part,
/// and the number of bytes that precede the status in the device-writable part.
///
/// # Errors
/// The request must be answered with [`Refusal::status`] and nothing else done.
pub fn parse(
    header: &[u8; HEADER_BYTES as usize],
    readable: u64,
    writable: u64,
    disk: Disk,
) -> Result<Request, Refusal> {
    let [a, b, c, d, _, _, _, _, sector @ ..] = *header;
    let sector = u64::from_le_bytes(sector);
    match u32::from_le_bytes([a, b, c, d]) {
        VIRTIO_BLK_T_IN => {
            only(readable == 0)?;
            let (offset, len) = transfer(sector, writable, disk)?;
            Ok(Request::Read { offset, len })
        }
        VIRTIO_BLK_T_OUT => {
            only(writable == 0)?;
            changeable(disk)?;
            let (offset, len) = transfer(sector, readable, disk)?;
            Ok(Request::Write { offset, len })
        }
        VIRTIO_BLK_T_FLUSH => only(readable == 0 && writable == 0).map(|()| Request::Flush),
        VIRTIO_BLK_T_GET_ID => only(readable == 0).map(|()| Request::Identify),
        VIRTIO_BLK_T_DISCARD => {
            only(writable == 0)?;
            changeable(disk)?;
            Ok(Request::Discard { len: list(readable, MAX_DISCARD_RANGES)? })
        }
        VIRTIO_BLK_T_WRITE_ZEROES => {
            only(writable == 0)?;
            changeable(disk)?;
            Ok(Request::WriteZeroes { len: list(readable, 1)? })
        }
        _ => Err(Refusal::Unsupported),
    }
}

fn only(lengths: bool) -> Result<(), Refusal> {
    lengths.then_some(()).ok_or(Refusal::Length)
}

fn changeable(disk: Disk) -> Result<(), Refusal> {
    if disk.read_only { Err(Refusal::ReadOnly) } else { Ok(()) }
}

fn transfer(sector: u64, len: u64, disk: Disk) -> Result<(u64, u32), Refusal> {
    only(len.is_multiple_of(SECTOR_BYTES))?;
    let len = u32::try_from(len).ok().filter(|&len| len <= MAX_REQUEST_BYTES).ok_or(Refusal::Range)?;
    let (offset, _) = inside(sector, u64::from(len) >> 9, disk)?;
    Ok((offset, len))
}

/// The bytes of the sectors, if all of them are on the disk.
fn inside(sector: u64, sectors: u64, disk: Disk) -> Result<(u64, u64), Refusal> {
    let end = sector.checked_add(sectors).ok_or(Refusal::Range)?;
    if end > disk.sectors {
        return Err(Refusal::Range);
    }
    let bytes = |sectors: u64| sectors.checked_mul(SECTOR_BYTES).ok_or(Refusal::Range);
    Ok((bytes(sector)?, bytes(sectors)?))
}

fn list(len: u64, ranges: u32) -> Result<u32, Refusal> {
    let len = u32::try_from(len).map_err(|_| Refusal::Length)?;
    let most = u64::from(ranges).saturating_mul(RANGE_BYTES as u64);
    only(len > 0 && (len as usize).is_multiple_of(RANGE_BYTES) && u64::from(len) <= most)?;
    Ok(len)
}

/// Reads the ranges of a discard, all of them before any is used.
///
/// # Errors
/// As in 5.2.6.2: an unknown flag or the unmap flag is unsupported, a range beyond the disk or larger than
/// announced an error.
pub fn discards(list: &[u8], disk: Disk) -> Result<impl Iterator<Item = Range>, Refusal> {
    checked(list, disk, MAX_DISCARD_SECTORS, 0)
}

/// Reads the ranges of a write-zeroes request, all of them before any is used.
///
/// # Errors
/// As in 5.2.6.2: an unknown flag is unsupported, a range beyond the disk or larger than announced an error.
pub fn zeroes(list: &[u8], disk: Disk) -> Result<impl Iterator<Item = Range>, Refusal> {
    checked(list, disk, MAX_ZEROES_SECTORS, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)
}

fn checked(
    list: &[u8],
    disk: Disk,
    max_sectors: u32,
    known_flags: u32,
) -> Result<impl Iterator<Item = Range>, Refusal> {
    let (entries, rest) = list.as_chunks::<RANGE_BYTES>();
    only(rest.is_empty())?;
    let read = move |entry: &[u8; RANGE_BYTES]| range(entry, disk, max_sectors, known_flags);
    if let Some(refusal) = entries.iter().find_map(|entry| read(entry).err()) {
        return Err(refusal);
    }
    Ok(entries.iter().filter_map(move |entry| read(entry).ok()))
}

fn range(
    entry: &[u8; RANGE_BYTES],
    disk: Disk,
    max_sectors: u32,
    known_flags: u32,
) -> Result<Range, Refusal> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *entry;
    let sector = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    let sectors = u32::from_le_bytes([i, j, k, l]);
    let flags = u32::from_le_bytes([m, n, o, p]);
    if flags & !known_flags != 0 {
        return Err(Refusal::Unsupported);
    }
    if sectors > max_sectors {
        return Err(Refusal::Range);
    }
    let (offset, len) = inside(sector, u64::from(sectors), disk)?;
    Ok(Range { offset, len, unmap: flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 })
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DISK: Disk = Disk { sectors: 1000, read_only: false, discards: true };
    const FIXED: Disk = Disk { read_only: true, ..DISK };

    fn header(kind: u32, sector: u64) -> [u8; 16] {
        let mut bytes = [0xee; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        bytes
    }

    fn entry(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
        [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    }

    #[test]
    fn transfers() {
        for (kind, readable, writable, wanted) in [
            (VIRTIO_BLK_T_IN, 0, 1024, Ok(Request::Read { offset: 998 * 512, len: 1024 })),
            (VIRTIO_BLK_T_IN, 0, 0, Ok(Request::Read { offset: 998 * 512, len: 0 })),
            (VIRTIO_BLK_T_IN, 0, 1536, Err(Refusal::Range)),
            (VIRTIO_BLK_T_IN, 0, 1023, Err(Refusal::Length)),
            (VIRTIO_BLK_T_IN, 1, 1024, Err(Refusal::Length)),
            (VIRTIO_BLK_T_OUT, 512, 0, Ok(Request::Write { offset: 998 * 512, len: 512 })),
            (VIRTIO_BLK_T_OUT, 1536, 0, Err(Refusal::Range)),
            (VIRTIO_BLK_T_OUT, 512, 512, Err(Refusal::Length)),
            (VIRTIO_BLK_T_FLUSH, 0, 0, Ok(Request::Flush)),
            (VIRTIO_BLK_T_FLUSH, 0, 4, Err(Refusal::Length)),
            (VIRTIO_BLK_T_GET_ID, 0, 20, Ok(Request::Identify)),
            (VIRTIO_BLK_T_GET_ID, 3, 20, Err(Refusal::Length)),
            (VIRTIO_BLK_T_DISCARD, 32, 0, Ok(Request::Discard { len: 32 })),
            (VIRTIO_BLK_T_DISCARD, 0, 0, Err(Refusal::Length)),
            (VIRTIO_BLK_T_DISCARD, 17, 0, Err(Refusal::Length)),
            (VIRTIO_BLK_T_DISCARD, 16 * 17, 0, Err(Refusal::Length)),
            (VIRTIO_BLK_T_WRITE_ZEROES, 16, 0, Ok(Request::WriteZeroes { len: 16 })),
            (VIRTIO_BLK_T_WRITE_ZEROES, 32, 0, Err(Refusal::Length)),
            (14, 16, 0, Err(Refusal::Unsupported)),
            (u32::MAX, 0, 0, Err(Refusal::Unsupported)),
        ] {
            let label = format!("type {kind}, {readable} bytes out, {writable} in");
            assert_eq!(parse(&header(kind, 998), readable, writable, DISK), wanted, "{label}");
        }
        let large = Disk { sectors: u64::MAX, ..DISK };
        let most = u64::from(MAX_REQUEST_BYTES);
        assert!(parse(&header(VIRTIO_BLK_T_IN, 0), 0, most, large).is_ok());
        assert_eq!(parse(&header(VIRTIO_BLK_T_IN, 0), 0, most + 512, large), Err(Refusal::Range));
    }

    #[test]
    fn a_read_only_disk_refuses_every_change() {
        for (kind, readable) in
            [(VIRTIO_BLK_T_OUT, 512), (VIRTIO_BLK_T_DISCARD, 16), (VIRTIO_BLK_T_WRITE_ZEROES, 16)]
        {
            assert_eq!(parse(&header(kind, 0), readable, 0, FIXED), Err(Refusal::ReadOnly));
        }
        assert!(parse(&header(VIRTIO_BLK_T_IN, 0), 0, 512, FIXED).is_ok());
        assert!(parse(&header(VIRTIO_BLK_T_FLUSH, 0), 0, 0, FIXED).is_ok());
        assert_eq!(Refusal::ReadOnly.status(), 1);
        assert_eq!(Refusal::Unsupported.status(), 2);
    }

    #[test]
    fn ranges() {
        let two = [entry(0, 8, 0), entry(992, 8, 0)].concat();
        let wanted = [(0, 4096), (992 * 512, 4096)].map(|(offset, len)| Range { offset, len, unmap: false });
        assert_eq!(discards(&two, DISK).unwrap().collect::<Vec<_>>(), wanted);
        let second_is_wrong = [entry(0, 8, 0), entry(993, 8, 0)].concat();
        assert_eq!(discards(&second_is_wrong, DISK).err(), Some(Refusal::Range));
        assert_eq!(discards(&entry(0, 8, 1), DISK).err(), Some(Refusal::Unsupported));
        let unmap = zeroes(&entry(1, 8, 1), DISK).unwrap().next();
        assert_eq!(unmap, Some(Range { offset: 512, len: 4096, unmap: true }));
        assert_eq!(zeroes(&entry(0, 8, 2), DISK).err(), Some(Refusal::Unsupported));
        assert_eq!(zeroes(&entry(u64::MAX, 8, 0), DISK).err(), Some(Refusal::Range));
        let large = Disk { sectors: u64::MAX, ..DISK };
        assert_eq!(zeroes(&entry(0, MAX_ZEROES_SECTORS + 1, 0), large).err(), Some(Refusal::Range));
        assert_eq!(discards(&entry(0, MAX_DISCARD_SECTORS + 1, 0), large).err(), Some(Refusal::Range));
        assert_eq!(discards(&entry(0, 8, 0)[1..], DISK).err(), Some(Refusal::Length));
    }

    proptest! {
        /// Whatever is accepted lies on the disk.
        #[test]
        fn nothing_beyond_the_end(
            kind in 0u32..16,
            sector in prop_oneof![0u64..1100, any::<u64>()],
            readable in prop_oneof![(0u64..2100).prop_map(|n| n * 512), any::<u64>()],
            writable in prop_oneof![Just(0), (0u64..2100).prop_map(|n| n * 512), any::<u64>()],
            read_only: bool,
        ) {
            let disk = Disk { read_only, ..DISK };
            if let Ok(request) = parse(&header(kind, sector), readable, writable, disk) {
                match request {
                    Request::Read { offset, len } | Request::Write { offset, len } => {
                        prop_assert_eq!(u64::from(len), readable.max(writable));
                        prop_assert!(u128::from(offset) + u128::from(len) <= 1000 * 512);
                        let reads = matches!(request, Request::Read { .. });
                        prop_assert!(reads || !read_only);
                    }
                    Request::Discard { .. } | Request::WriteZeroes { .. } => prop_assert!(!read_only),
                    Request::Flush | Request::Identify => {}
                }
            }
        }

        #[test]
        fn no_range_beyond_the_end(bytes in prop::collection::vec(any::<u8>(), 0..64), sectors in any::<u64>()) {
            let disk = Disk { sectors, ..DISK };
            for ranges in [discards(&bytes, disk).map(Vec::from_iter), zeroes(&bytes, disk).map(Vec::from_iter)] {
                for range in ranges.into_iter().flatten() {
                    prop_assert!(
                        u128::from(range.offset) + u128::from(range.len) <= u128::from(sectors) * 512);
                }
            }
        }
    }
}
