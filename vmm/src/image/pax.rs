//! PAX extended header records and GNU sparse maps, as pure parsers.
//!
//! Called by [`super::tar_reader`] with the bytes of one metadata member, already limited in size. The `tar` crate's
//! own record iterator is not used: it splits at newlines, which a binary value (a file capability) may contain.
//! Source: POSIX.1-2017 `pax`, "pax Extended Header"; GNU tar manual, "Storing Sparse Files".
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use super::member::{Mtime, Segment, TarError};

/// The prefix of records that carry extended attributes.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What the records of one PAX header say about the next member.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// `path`.
    pub path: Option<Vec<u8>>,
    /// `linkpath`.
    pub link: Option<Vec<u8>>,
    /// `size`: bytes stored in the archive.
    pub size: Option<u64>,
    /// `uid`.
    pub uid: Option<u64>,
    /// `gid`.
    pub gid: Option<u64>,
    /// `mtime`.
    pub mtime: Option<Mtime>,
    /// `SCHILY.xattr.*`, in the archive's order: name, value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// `GNU.sparse.*`.
    pub sparse: Sparse,
}

/// The `GNU.sparse.*` records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    /// `GNU.sparse.name`: the real name where `path` holds a made-up one.
    pub name: Option<Vec<u8>>,
    /// `GNU.sparse.realsize` or `GNU.sparse.size`: the file's length in bytes.
    pub real_size: Option<u64>,
    /// Formats 0.0 and 0.1: offsets and lengths in turn.
    pub map: Vec<u64>,
    /// Format 1.0: the map stands before the data.
    pub map_in_data: bool,
}

impl Sparse {
    /// Whether any record said that the member is sparse.
    pub fn is_sparse(&self) -> bool {
        self.map_in_data || self.real_size.is_some() || !self.map.is_empty()
    }
}

/// Parses the records of one extended header.
///
/// # Errors
/// [`TarError::Malformed`] when a record's length, separator or a number is wrong.
pub fn parse(mut bytes: &[u8]) -> Result<Records, TarError> {
    let mut records = Records::default();
    while !bytes.is_empty() {
        let (key, value, rest) =
            split_record(bytes).ok_or(TarError::Malformed("a PAX record is malformed"))?;
        apply(&mut records, key, value)?;
        bytes = rest;
    }
    Ok(records)
}

/// Splits `"LENGTH KEY=VALUE\n"` off the front: key, value, rest.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(21).position(|&b| b == b' ')?;
    let length = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
    let record = bytes.get(..length)?;
    let body = record.get(space.checked_add(1)?..length.checked_sub(1)?)?;
    if record.last() != Some(&b'\n') {
        return None;
    }
    let equals = body.iter().position(|&b| b == b'=')?;
    Some((body.get(..equals)?, body.get(equals.checked_add(1)?..)?, bytes.get(length..)?))
}

fn apply(records: &mut Records, key: &[u8], value: &[u8]) -> Result<(), TarError> {
    let number =
        || decimal(value).ok_or(TarError::Malformed("a PAX record holds no number where one belongs"));
    match key {
        b"path" => records.path = Some(value.to_vec()),
        b"linkpath" => records.link = Some(value.to_vec()),
        b"size" => records.size = Some(number()?),
        b"uid" => records.uid = Some(number()?),
        b"gid" => records.gid = Some(number()?),
        b"mtime" => {
            records.mtime = Some(timestamp(value).ok_or(TarError::Malformed("a PAX time is malformed"))?);
        }
        b"GNU.sparse.name" => records.sparse.name = Some(value.to_vec()),
        b"GNU.sparse.realsize" | b"GNU.sparse.size" => records.sparse.real_size = Some(number()?),
        b"GNU.sparse.major" => records.sparse.map_in_data = number()? == 1,
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => records.sparse.map.push(number()?),
        b"GNU.sparse.map" => {
            for part in value.split(|&b| b == b',').filter(|part| !part.is_empty()) {
                records
                    .sparse
                    .map
                    .push(decimal(part).ok_or(TarError::Malformed("a sparse map is malformed"))?);
            }
        }
        _ => {
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                records.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}

/// Turns offsets and lengths into checked segments: in order, apart, inside `real_size`, and together exactly
/// `stored` bytes.
///
/// # Errors
/// [`TarError::Malformed`] when one of these does not hold.
pub fn segments(map: &[u64], real_size: u64, stored: u64) -> Result<Vec<Segment>, TarError> {
    const BAD: TarError = TarError::Malformed("a sparse map contradicts the file's size");
    let mut segments = Vec::new();
    let (mut end, mut total) = (0u64, 0u64);
    for pair in map.chunks(2) {
        let &[offset, length] = pair else { return Err(BAD) };
        let next =
            offset.checked_add(length).filter(|&next| offset >= end && next <= real_size).ok_or(BAD)?;
        total = total.checked_add(length).ok_or(BAD)?;
        end = next;
        if length != 0 {
            segments.push(Segment { offset, length });
        }
    }
    if total != stored {
        return Err(BAD);
    }
    Ok(segments)
}

/// An unsigned decimal number and nothing else.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut off.
fn timestamp(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&b| b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanoseconds = 0u32;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    for place in 0..9 {
        let digit = fraction.get(place).map_or(0, |&b| u32::from(b.saturating_sub(b'0')));
        nanoseconds = nanoseconds.checked_mul(10)?.checked_add(digit)?;
    }
    if !negative {
        return Some(Mtime { seconds, nanoseconds });
    }
    // -1.25 s is two seconds before the epoch and 0.75 s on.
    let seconds = seconds.checked_neg()?;
    if nanoseconds == 0 {
        return Some(Mtime { seconds, nanoseconds });
    }
    Some(Mtime { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000u32.checked_sub(nanoseconds)? })
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length.to_string().len() + body != length {
            length += 1;
        }
        [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
    }

    #[test]
    fn value_may_hold_newlines_and_equals_signs() {
        let bytes = [
            record(b"SCHILY.xattr.security.capability", b"\x01\n\n12 path=evil\n="),
            record(b"path", b"a=b\nc"),
        ]
        .concat();
        let records = parse(&bytes).unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a=b\nc"[..]));
        assert_eq!(records.xattrs, [(b"security.capability".to_vec(), b"\x01\n\n12 path=evil\n=".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [&b"5 a=b\n"[..], b"99 a=b\n", b"6 a=bX", b" a=b\n", b"0 a=b\n", b"6 abc\n", b"x", b"1 "]
        {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        assert!(parse(&record(b"size", b"-1")).is_err());
        assert!(parse(&record(b"size", b"18446744073709551616")).is_err());
        assert!(parse(&record(b"mtime", b"1.x")).is_err());
    }

    #[test]
    fn times() {
        let at = |text: &[u8]| timestamp(text).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(at(b"12"), Some((12, 0)));
        assert_eq!(at(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(at(b"12.1234567891"), Some((12, 123_456_789)));
        assert_eq!(at(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(at(b"-3"), Some((-3, 0)));
        assert_eq!(at(b""), None);
        assert_eq!(at(b"--1"), None);
    }

    #[test]
    fn sparse_maps_are_checked() {
        assert_eq!(segments(&[0, 4, 8, 4], 16, 8).unwrap().len(), 2);
        assert_eq!(segments(&[0, 4, 16, 0], 16, 4).unwrap().len(), 1, "an end marker holds no data");
        for (map, size, stored) in [
            (&[0u64, 4, 2, 4][..], 16, 8), // overlap
            (&[8, 4, 0, 4], 16, 8),        // order
            (&[0, 17], 16, 17),            // beyond the end
            (&[u64::MAX, 2], u64::MAX, 2), // overflow
            (&[0, 4], 16, 5),              // data left over
            (&[0], 16, 0),                 // half a pair
        ] {
            assert!(segments(map, size, stored).is_err(), "{map:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn records_round_trip(records in prop::collection::vec(("[a-z]{1,9}", any::<Vec<u8>>()), 0..6)) {
            let bytes: Vec<u8> =
                records.iter().flat_map(|(k, v)| record(format!("SCHILY.xattr.{k}").as_bytes(), v)).collect();
            let expected: Vec<_> = records.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            prop_assert_eq!(parse(&bytes).unwrap().xattrs, expected);
        }
    }
}
