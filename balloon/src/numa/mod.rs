//! Which of the host's NUMA nodes guest memory comes from, and its way from one to another while the guest runs.
//!
//! [`Mover`] moves the ranges of a zone piece by piece, so that whoever calls it stays free for others in between, and
//! counts what could not be moved. [`Nodes`] is the host's side of it, [`Host`] the Linux that this process runs on.
//!
//! | step | call | while it lasts |
//! |---|---|---|
//! | what is touched from now on | `mbind(MPOL_PREFERRED)` of the whole zone | microseconds |
//! | what there is | `mbind(MPOL_PREFERRED, MPOL_MF_MOVE, MPOL_MF_STRICT)` a piece | a guest that touches a page on its way waits for it |
//! | where it lies now | `move_pages` without nodes, which moves nothing | nobody waits |
//!
//! A page keeps its content and its guest-physical address: the kernel unmaps it, KVM's mappings included, copies it, and
//! the next touch finds the copy.

mod host;
mod mover;

pub(crate) use host::Policy;
pub use host::{Host, Nodes};
pub use mover::{Mover, Placed, prefer};
