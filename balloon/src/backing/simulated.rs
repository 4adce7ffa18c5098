//! A host for tests: remembers what it was asked to release, and answers as a script says.

use super::kernel::Kernel;
use super::mapping::{HostRange, Kind, Mapping};
use super::release::Backing;
use crate::BLOCK_BYTES;
use crate::frames::{Layout, Run};
use proptest::prelude::*;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;

/// How one system call goes. Those beyond the script succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Success,
    Errno(i32),
    /// A vector is done up to this byte; another call succeeds.
    Bytes(usize),
}

impl Answer {
    pub fn any() -> impl Strategy<Value = Self> {
        let errno = [libc::ENOMEM, libc::EINVAL, libc::EAGAIN, libc::EINTR, libc::EIO, libc::EPERM];
        prop_oneof![
            2 => Just(Self::Success),
            2 => prop::sample::select(errno.to_vec()).prop_map(Self::Errno),
            1 => (0usize..40).prop_map(|half_pages| Self::Bytes(half_pages * 2048)),
        ]
    }
}

#[derive(Debug, Default)]
pub struct Simulated {
    answers: VecDeque<Answer>,
    /// Addresses of released pages.
    released: BTreeSet<usize>,
    /// Instead of the balloon's own.
    pub page_bytes: Option<u64>,
    /// Addresses of pages where huge ones are forbidden.
    small: BTreeSet<usize>,
    /// Where huge pages were split.
    pub split: Vec<HostRange>,
    /// Addresses of pages that were replaced.
    pub replaced: BTreeSet<usize>,
    pub vectors: u64,
    pub longest_vector: usize,
}

impl Simulated {
    pub fn with_answers(answers: &[Answer]) -> Self {
        Self { answers: answers.iter().copied().collect(), ..Self::default() }
    }

    pub fn script(&mut self, answers: &[Answer]) {
        self.answers = answers.iter().copied().collect();
    }

    pub fn mapping(address: usize, bytes: u64) -> Mapping {
        // SAFETY: a `Simulated` touches no memory.
        unsafe { Mapping::new(address, bytes, Kind::Anonymous) }
    }

    pub fn released_pages(&self) -> usize {
        self.released.len()
    }

    pub fn forget(&mut self) {
        self.released.clear();
    }

    pub fn is_released(&self, range: HostRange) -> bool {
        pages(range, range.bytes()).all(|page| self.released.contains(&page))
    }

    pub fn is_small(&self, range: HostRange) -> bool {
        pages(range, range.bytes()).all(|page| self.small.contains(&page))
    }

    fn answer(&mut self) -> io::Result<()> {
        match self.answers.pop_front() {
            Some(Answer::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn one(&mut self, range: HostRange) -> io::Result<()> {
        self.answer()?;
        self.released.extend(pages(range, range.bytes()));
        Ok(())
    }
}

fn pages(range: HostRange, bytes: usize) -> impl Iterator<Item = usize> {
    (0..bytes / 4096).map(move |page| range.address() + page * 4096)
}

impl Kernel for Simulated {
    fn discard(&mut self, range: HostRange) -> io::Result<()> {
        self.one(range)
    }

    fn replace(&mut self, range: HostRange) -> io::Result<()> {
        self.answer()?;
        self.replaced.extend(pages(range, range.bytes()));
        Ok(())
    }

    fn discard_all(&mut self, ranges: &[HostRange]) -> io::Result<usize> {
        self.vectors += 1;
        let total = ranges.iter().map(|range| range.bytes()).sum();
        self.longest_vector = self.longest_vector.max(total);
        let done = match self.answers.pop_front() {
            Some(Answer::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Answer::Bytes(bytes)) => bytes.min(total),
            _ => total,
        };
        let mut left = done;
        for range in ranges {
            let bytes = range.bytes().min(left);
            self.released.extend(pages(*range, bytes));
            left -= bytes;
        }
        Ok(done)
    }

    fn allow_huge_pages(&mut self, range: HostRange, allow: bool) -> io::Result<()> {
        self.answer()?;
        for page in pages(range, range.bytes()) {
            if allow {
                self.small.remove(&page);
            } else {
                self.small.insert(page);
            }
        }
        Ok(())
    }

    fn split_huge_pages(&mut self, range: HostRange) -> io::Result<()> {
        self.answer()?;
        self.split.push(range);
        Ok(())
    }

    fn page_bytes(&self) -> u64 {
        self.page_bytes.unwrap_or(crate::PAGE_BYTES)
    }

    fn takes_vectors(&mut self) -> bool {
        true
    }

    fn punch_hole(&mut self, _file: BorrowedFd<'_>, _offset: u64, range: HostRange) -> io::Result<()> {
        self.one(range)
    }
}

/// Memory behind `layout` at made-up addresses; the regions numbered in `shared` are files.
pub fn backing(layout: &Layout, shared: &[usize], kernel: Simulated) -> Backing<Simulated> {
    Backing::new(kernel, layout, mappings(layout, shared)).unwrap()
}

pub fn mappings(layout: &Layout, shared: &[usize]) -> Vec<Mapping> {
    let mapping = |(number, pages): (usize, crate::pages::PageRange)| {
        let kind = if shared.contains(&number) {
            Kind::Shared { file: std::fs::File::open("/dev/null").unwrap().into(), offset: 0 }
        } else {
            Kind::Anonymous
        };
        // SAFETY: a `Simulated` touches no memory.
        unsafe { Mapping::new((number + 1) << 40, pages.count() * 4096, kind) }
    };
    layout.regions().enumerate().map(mapping).collect()
}

/// Two anonymous regions of two huge pages each and a shared one.
pub fn layout() -> Layout {
    Layout::new(&[(0, BLOCK_BYTES), (2 * BLOCK_BYTES, BLOCK_BYTES), (4 * BLOCK_BYTES, BLOCK_BYTES)]).unwrap()
}

pub fn runs(runs: &[(usize, u64, u64)]) -> Vec<Run> {
    runs.iter().map(|&(region, first, count)| layout().run(region, first, count).unwrap()).collect()
}

pub fn subject(answers: &[Answer]) -> Backing<Simulated> {
    backing(&layout(), &[2], Simulated::with_answers(answers))
}
