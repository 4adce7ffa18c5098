//! Where the pages of one region lie in this process, and what kind of memory they are.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::PAGE_BYTES;
use crate::frames::{Bitmap, Run};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What memory a mapping is made of.
#[derive(Debug)]
pub enum Kind {
    /// Private anonymous memory.
    Anonymous,
    /// A shared mapping of a memfd or of a file, from byte `offset` of it on.
    Shared {
        /// The memfd or file, writable.
        file: OwnedFd,
        /// Where in it the mapping begins.
        offset: u64,
    },
}

/// The mapping of one region of guest memory.
#[derive(Debug)]
pub struct Mapping {
    address: usize,
    bytes: u64,
    kind: Kind,
    small_pages: bool,
    /// What of private memory was mapped from a file, copy-on-write.
    image: Option<Image>,
}

/// A part of a mapping that was mapped from a file.
#[derive(Debug)]
struct Image {
    range: HostRange,
    /// A bit for each of its pages: no longer the file's.
    replaced: Bitmap,
}

/// Bytes of a mapping of guest memory, whole pages and never empty. Only a [`Mapping`] makes them, which is why
/// to discard one is safe. Laid out as the kernel's `struct iovec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HostRange {
    address: usize,
    bytes: usize,
}

impl HostRange {
    /// Its first byte, as a number: whoever dereferences it does so on their own account.
    #[must_use]
    pub fn address(self) -> usize {
        self.address
    }

    /// Its length, a multiple of the page size.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// At most `bytes` bytes of it from its byte `offset` on, if it has any there. Both are multiples of the page size.
    #[must_use]
    pub fn part(self, offset: usize, bytes: usize) -> Option<Self> {
        let bytes = self.bytes.checked_sub(offset)?.min(bytes);
        let address = self.address.checked_add(offset)?;
        (bytes > 0).then_some(Self { address, bytes })
    }
}

impl Image {
    fn new(range: HostRange) -> Self {
        Self { range, replaced: Bitmap::new(pages(range.bytes)) }
    }

    fn left_in(&self, range: HostRange) -> Option<HostRange> {
        let (first, count) = self.pages_in(range)?;
        let is_left = |page: &u64| self.replaced.count(*page, 1) == 0;
        let mut pages = first..first.saturating_add(count);
        let start = pages.find(is_left)?;
        let last = pages.rfind(is_left).unwrap_or(start);
        let bytes = |pages: u64| usize::try_from(pages.checked_mul(PAGE_BYTES)?).ok();
        self.range.part(bytes(start)?, bytes(last.checked_sub(start)?.checked_add(1)?)?)
    }

    fn replaced(&mut self, range: HostRange) {
        if let Some((first, count)) = self.pages_in(range) {
            self.replaced.set(first, count);
        }
    }

    /// First page and number of pages of what `range` has of it.
    fn pages_in(&self, range: HostRange) -> Option<(u64, u64)> {
        let start = self.range.address.max(range.address);
        let end = self.range.address.checked_add(self.range.bytes)?;
        let end = end.min(range.address.checked_add(range.bytes)?);
        Some((pages(start.checked_sub(self.range.address)?), pages(end.checked_sub(start)?)))
    }
}

fn pages(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX) / PAGE_BYTES
}

impl Mapping {
    /// The mapping of `bytes` bytes at host address `address`.
    ///
    /// # Safety
    /// The range is page-aligned and mapped as `kind` says until the value is dropped. It is guest memory:
    /// nothing in this process relies on its contents, so that they may become zeroes at any time.
    #[must_use]
    #[expect(unsafe_code)] // The promise that makes every `HostRange` safe to discard.
    pub unsafe fn new(address: usize, bytes: u64, kind: Kind) -> Self {
        Self { address, bytes, kind, small_pages: false, image: None }
    }

    /// The same, of which `bytes` bytes from its byte `offset` on, both multiples of the page size, are mapped from a file
    /// copy-on-write: discarding them would bring the file's content back. Unchanged where there are no such bytes.
    #[must_use]
    pub fn with_image(self, offset: u64, bytes: u64) -> Self {
        let part = |whole: HostRange| {
            let (offset, bytes) = (usize::try_from(offset).ok()?, usize::try_from(bytes).ok()?);
            whole.part(offset, bytes).filter(|part| part.bytes == bytes)
        };
        let image = self.whole().and_then(part).map(Image::new);
        Self { image: image.or(self.image), ..self }
    }

    /// The part of `range` that holds all of it that is mapped from a file copy-on-write.
    #[must_use]
    pub fn image_in(&self, range: HostRange) -> Option<HostRange> {
        self.image.as_ref()?.left_in(range)
    }

    /// `range` is mapped from a file no more, if it was.
    pub(super) fn replaced(&mut self, range: HostRange) {
        self.image.iter_mut().for_each(|image| image.replaced(range));
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of it.
    #[must_use]
    pub fn whole(&self) -> Option<HostRange> {
        let bytes = usize::try_from(self.bytes).ok().filter(|&bytes| bytes > 0)?;
        Some(HostRange { address: self.address, bytes })
    }

    /// Whether releasing it needs no file.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        matches!(self.kind, Kind::Anonymous)
    }

    /// Has the host never use huge pages for it, which it has been told already.
    pub(super) fn keep_small_pages(&mut self) {
        self.small_pages = true;
    }

    /// Whether the host may use huge pages for it where the balloon does not forbid it.
    #[must_use]
    pub fn may_be_huge(&self) -> bool {
        self.is_anonymous() && !self.small_pages
    }

    /// The file behind a shared mapping, and where in it `run` begins.
    #[must_use]
    pub fn file(&self, run: Run) -> Option<(BorrowedFd<'_>, u64)> {
        match &self.kind {
            Kind::Anonymous => None,
            Kind::Shared { file, offset } => {
                Some((file.as_fd(), offset.checked_add(run.first().checked_mul(PAGE_BYTES)?)?))
            }
        }
    }

    /// Where `run` lies, if all of it lies in this mapping.
    #[must_use]
    pub fn range(&self, run: Run) -> Option<HostRange> {
        let offset = run.first().checked_mul(PAGE_BYTES)?;
        let bytes = run.count().checked_mul(PAGE_BYTES)?;
        if bytes == 0 || offset.checked_add(bytes)? > self.bytes {
            return None;
        }
        let address = self.address.checked_add(usize::try_from(offset).ok()?)?;
        Some(HostRange { address, bytes: usize::try_from(bytes).ok()? })
    }
}
