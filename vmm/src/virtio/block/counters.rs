//! What a disk did and what went wrong on it, for whoever looks from another thread.

#![forbid(unsafe_code)]

use super::request::Refusal;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since the device was made. Each is exact; two read together may be a request apart.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests answered, rightly or wrongly.
    pub requests: AtomicU64,
    /// Bytes read from the disk.
    pub read_bytes: AtomicU64,
    /// Bytes written to the disk.
    pub written_bytes: AtomicU64,
    /// Chains that break off, have no place for a status, or a header that cannot be read.
    pub malformed: AtomicU64,
    /// Requests for what the device does not know.
    pub unsupported: AtomicU64,
    /// Requests with too little or too much data.
    pub wrong_length: AtomicU64,
    /// Requests that would have changed a read-only disk.
    pub read_only: AtomicU64,
    /// Requests beyond the disk's end or an announced limit.
    pub out_of_range: AtomicU64,
    /// Requests with data outside guest memory.
    pub outside_memory: AtomicU64,
    /// Requests that failed because the host's file system is full.
    pub host_full: AtomicU64,
    /// Requests that the host failed for another reason.
    pub host_failed: AtomicU64,
}

/// Why a request was not carried out.
#[derive(Debug)]
pub enum Fault {
    /// Its chain or header cannot be read.
    Malformed,
    /// It asks for what cannot be.
    Refused(Refusal),
    /// Its data is outside guest memory.
    OutsideMemory,
    /// The host failed.
    Host(io::Error),
}

impl Fault {
    /// The status that the driver is told.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Refused(refusal) => refusal.status(),
            // The driver then stops asking for it: a host file system without holes, say.
            Self::Host(error) if error.kind() == io::ErrorKind::Unsupported => Refusal::Unsupported.status(),
            Self::Malformed | Self::OutsideMemory | Self::Host(_) => Refusal::Range.status(),
        }
    }
}

impl Counters {
    /// Counts `fault`.
    pub fn count(&self, fault: &Fault) {
        let counter = match fault {
            Fault::Malformed => &self.malformed,
            Fault::Refused(Refusal::Unsupported) => &self.unsupported,
            Fault::Refused(Refusal::Length) => &self.wrong_length,
            Fault::Refused(Refusal::ReadOnly) => &self.read_only,
            Fault::Refused(Refusal::Range) => &self.out_of_range,
            Fault::OutsideMemory => &self.outside_memory,
            Fault::Host(error) if is_full(error) => &self.host_full,
            Fault::Host(_) => &self.host_failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
