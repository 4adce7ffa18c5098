//! What of a VM's memory the host really holds: the truth beside the books.

pub mod smaps;

pub use smaps::{Mapping, parse_smaps};
