//! Everything about a microVM's memory that needs no KVM, so that all of it is testable on any machine.
//!
//! Owns the words and numbers of memory: sizes as people write them ([`size`]), likewise what a reclaim law works with
//! ([`working_set`]), how documents have such words ([`written`]), and pages by number ([`pages`]);
//! the virtio-balloon ([`device`]), the page books of a VM ([`frames`]), what releases its memory ([`backing`]),
//! what of it the host really holds ([`resident`]) and on which of its nodes ([`numa`]), what has the host swap it out
//! ([`page_out`]), and how a host's memory is divided among VMs ([`zone`]); the sockets by which people and programs hear of
//! it and say what is to be ([`control`]), the files and lines that it is recorded to ([`recording_file`],
//! [`recording_line`]), how files are opened that others may have made ([`regular_file`]), and what comes of one that may
//! not grow ([`file_size_limit`]). Used by the VMM and by the command line.
//!
//! ```text
//! driver's requests -> device -> runs -> backing -> receipt -> books      residency (slow) -> books corrected
//! ```

#![deny(unsafe_code)]

pub mod backing;
pub mod control;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod device;
pub mod file_size_limit;
pub mod frames;
pub mod logging;
pub mod numa;
pub mod page_out;
pub mod pages;
pub mod policy;
pub mod recording_file;
pub mod recording_line;
pub mod regular_file;
pub mod resident;
#[cfg(test)]
mod scratch;
pub mod size;
pub mod state;
pub mod wall_clock;
pub mod working_set;
pub mod written;
pub mod zone;

/// Bytes in a page, the unit in which guest and host kernels account for memory.
pub const PAGE_BYTES: u64 = 4096;

/// Bytes in a block, the smallest software zone: the kernel's largest buddy block, 1024 pages.
///
/// Guest memory begins, ends and is divided at multiples of it, so that a zone never shares a buddy block
/// (`MAX_PAGE_ORDER` in `include/linux/mmzone.h`) with its neighbour.
pub const BLOCK_BYTES: u64 = 4 << 20;
