//! The primitives that messages and specs are made of: little-endian integers and counted byte strings.
//!
//! Used by the other modules of this library only. Reading and writing check the same limits, so that what
//! one side can write the other can read. A reader never takes memory for a length that the input only
//! announces.

use std::error::Error;
use std::ffi::{CStr, CString};
use std::fmt;

/// Why a field could not be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The input ends inside the field.
    Truncated,
    /// The input goes on after the last field.
    Trailing,
    /// More bytes or entries than the limit, which is given.
    OverLimit(usize),
    /// A value that the field cannot have.
    Invalid,
}

/// A field that is not as this library's format wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldError {
    /// Name of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field;
        match self.fault {
            Fault::Truncated => write!(f, "`{field}` is cut short"),
            Fault::Trailing => write!(f, "`{field}` is followed by stray bytes"),
            Fault::OverLimit(limit) => write!(f, "`{field}` is over its limit of {limit}"),
            Fault::Invalid => write!(f, "`{field}` has a value that is not allowed"),
        }
    }
}

impl Error for FieldError {}

/// Makes the error of one field; shorter at its many uses.
pub(crate) const fn bad(field: &'static str, fault: Fault) -> FieldError {
    FieldError { field, fault }
}

/// Takes fields off the front of a byte slice.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FieldError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(bad(field, Fault::Truncated))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, FieldError> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, FieldError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, FieldError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FieldError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, FieldError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(bad(field, Fault::Invalid)),
        }
    }

    /// A length or number of entries, at most `limit`.
    pub(crate) fn count(&mut self, field: &'static str, limit: usize) -> Result<usize, FieldError> {
        usize::try_from(self.u32(field)?)
            .ok()
            .filter(|count| *count <= limit)
            .ok_or(bad(field, Fault::OverLimit(limit)))
    }

    pub(crate) fn bytes(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], FieldError> {
        let length = self.count(field, limit)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(bad(field, Fault::Truncated))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn str(&mut self, field: &'static str, limit: usize) -> Result<&'a str, FieldError> {
        std::str::from_utf8(self.bytes(field, limit)?).map_err(|_| bad(field, Fault::Invalid))
    }

    pub(crate) fn c_string(&mut self, field: &'static str, limit: usize) -> Result<CString, FieldError> {
        CString::new(self.bytes(field, limit)?).map_err(|_| bad(field, Fault::Invalid))
    }

    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        limit: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T, FieldError>,
    ) -> Result<Vec<T>, FieldError> {
        // Grown by what really comes, not reserved by what is announced.
        (0..self.count(field, limit)?).map(|_| entry(self)).collect()
    }

    /// A field that may be absent, behind a byte that says whether it is there.
    pub(crate) fn option<T>(
        &mut self,
        field: &'static str,
        value: impl FnOnce(&mut Self) -> Result<T, FieldError>,
    ) -> Result<Option<T>, FieldError> {
        if self.bool(field)? { value(self).map(Some) } else { Ok(None) }
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left after the last field, which is named.
    pub(crate) fn end(&self, last: &'static str) -> Result<(), FieldError> {
        if self.rest.is_empty() { Ok(()) } else { Err(bad(last, Fault::Trailing)) }
    }
}

/// Appends fields to a byte vector.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn count(&mut self, field: &'static str, n: usize, limit: usize) -> Result<(), FieldError> {
        let over = bad(field, Fault::OverLimit(limit));
        let count = u32::try_from(n).map_err(|_| over)?;
        if n > limit {
            return Err(over);
        }
        self.u32(count);
        Ok(())
    }

    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        bytes: &[u8],
        limit: usize,
    ) -> Result<(), FieldError> {
        self.count(field, bytes.len(), limit)?;
        self.raw(bytes);
        Ok(())
    }

    pub(crate) fn c_str(&mut self, field: &'static str, text: &CStr, limit: usize) -> Result<(), FieldError> {
        self.bytes(field, text.to_bytes(), limit)
    }

    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        entries: &[T],
        limit: usize,
        mut entry: impl FnMut(&mut Self, &T) -> Result<(), FieldError>,
    ) -> Result<(), FieldError> {
        self.count(field, entries.len(), limit)?;
        entries.iter().try_for_each(|value| entry(self, value))
    }
}
