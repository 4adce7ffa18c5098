//! The zone tree: who may hold how much of the host's memory, and who holds it.
//!
//! ```text
//! pool ── group ── group ── VM ── zone            what no node holds is the main zone
//!   └ shared zone    └ shared zone └ shared zone  a shared zone lies in what it is shared within
//! ```
//!
//! [`Tree`] owns the nodes with their limits and charges. The daemon settles into it what VMs and host report, asks it
//! before it starts or changes anything, and gives it to the policy; `ballast zones` shows it. The zone of each page is
//! the VMM's to know ([`Layout`](crate::frames::Layout)). Nothing here knows a clock, a file or another process. Callers serialize.
//!
//! - **Charges** come from snapshots ([`Tree::settle`]), never from differences: whatever is lost, repeated or late,
//!   the next snapshot makes good. At every moment a node's charge is its own bytes and the charges of its
//!   children, and the pool's capacity is the main zone and the pool's charge ([`Tree::main_bytes`] says what a
//!   main zone below nothing means). [`Tree::check`] recounts.
//! - **Limits** change together or not at all ([`Tree::change`]), and only to what the pool can keep: protected
//!   minimums fit in it, and so do maximums unless it may be overcommitted ([`Claims`]). Limits do not bound what is
//!   settled. Facts are booked; to enforce limits is the policy's and the kernel's work.
//! - **Protection** is Linux' own ([`Protection`]).
//! - **The end** of a VM makes orphans of its zones, which stay charged until settled to nothing
//!   ([`Tree::retire`]). Then they merge into the main zone, and their ids find nothing, for good.
//!
//! # Sharing and limits
//!
//! A shared zone is charged, whole, to the node that it is shared within, its *home*, and so to all above that. Below
//! it no charge, and so no limit, knows of it. How its bytes are divided among the VMs that map it
//! ([`Charging`]) is what users are shown and what footprints are made of ([`Footprints`]), not what limits look
//! at. The host's own limits agree: a VM's cgroup gets the size of the zones that it maps on top of its `max`.
//!
//! Hence this holds, whichever way of charging is chosen, now or later:
//!
//! > **No VM changes the charge of a node that it is not in by beginning to share, by touching shared pages, by
//! > ceasing to share or by ending.**
//!
//! - The home contains every VM that maps the zone: [`Tree::map`] refuses others, and when a VM is moved out,
//!   [`Tree::move_vm`] moves the home up until it contains the VM again. So the bytes of a zone are counted in common
//!   ancestors of its VMs only. A VM that touches more, or is the last to let go, changes these and no others,
//!   and all of them contain it.
//! - The home never moves down. Could it, a VM that had moved from `ci` to `web` would raise the charge of `ci`
//!   by ceasing to share.
//! - The ways of charging do not enter: shares are computed from the tree and not written into it.
//!
//! VMs in the home share its limits, for these pages as for any: a group in which one VM reads a large image may
//! reach its `high`, and of what the group is left, these pages take their part as a sibling's would. Who wants VMs apart gives them groups of their own, or shares per VM.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

mod admission;
mod charging;
mod check;
mod errors;
mod forest;
mod limits;
mod node;
mod preorder;
mod protection;
pub mod scope;
mod settle;
mod sharing;
#[cfg(test)]
mod tests;
mod tree;

pub use admission::{Claims, Pool};
pub use charging::{Charging, Footprints, Sharer, Touch};
pub use check::Imbalance;
pub use errors::Error;
pub use forest::Id;
pub use limits::{DEFAULT_WEIGHT, Limits, WEIGHTS};
pub use node::{Kind, Node};
pub use protection::{Effective, Protection};
pub use scope::{Scope, Share};
pub use settle::Settled;
pub use tree::{BOOT_ZONE, MAX_BYTES, MAX_ZONES, SECTION_BYTES, Tree};
