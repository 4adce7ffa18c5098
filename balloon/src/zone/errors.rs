//! What the tree refuses, with the numbers that decided it.

use super::{Kind, MAX_BYTES, Share, WEIGHTS};
use crate::size::Size;

/// A request that the tree refuses. It has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node has been removed: its memory went back to the main zone.
    #[error("this zone, VM or group is gone")]
    Gone,
    /// The node is of another kind than the request is for.
    #[error("{}", no_such_request(name, *kind))]
    Kind {
        /// The node.
        name: String,
        /// What it is.
        kind: Kind,
    },
    /// The node's VM has ended, and its memory is on the way back.
    #[error("'{name}' has ended: only its memory is still to come back")]
    Orphan {
        /// The node.
        name: String,
    },
    /// Not a name.
    #[error(
        "'{name}' cannot name a {kind}: use letters, digits, '-', '_' and '.', a letter or digit first, at most 64 in \
         all; parts of a group's path are joined by '/', at most 240 in all"
    )]
    Name {
        /// What was to be named.
        kind: Kind,
        /// The text.
        name: String,
    },
    /// The name is in use.
    #[error("there is a {kind} named '{name}' already: choose another name")]
    Taken {
        /// What was to be named.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// A group that is still in use.
    #[error("group '{name}' still holds {members} groups, VMs or zones: move them or end them first")]
    NotEmpty {
        /// The group.
        name: String,
        /// How many are in it.
        members: usize,
    },
    /// A VM outside the scope within which a zone's pages are shared.
    #[error(
        "VM '{vm}' is not in '{scope}', within which zone '{zone}' is shared: move it there, or share wider"
    )]
    OutOfScope {
        /// The VM.
        vm: String,
        /// The group or VM that bounds the sharing.
        scope: String,
        /// The shared zone.
        zone: String,
    },
    /// A group that is neither configured nor in use.
    #[error("there is no group '{path}': it appears with its first VM, or when it is configured")]
    NoGroup {
        /// Its path.
        path: String,
    },
    /// Wider sharing than a group allows.
    #[error(
        "VM '{vm}' cannot share its image so widely: {} says share = \"{}\"; wish for no more, or have that changed",
        if group.is_empty() { "the pool".into() } else { format!("group '{group}'") },
        match bound { Share::Vm => "vm", Share::Group => "group", Share::Host => "host" }
    )]
    Share {
        /// The VM.
        vm: String,
        /// The group that is configured so; the empty path is the pool.
        group: String,
        /// How far it lets its VMs share.
        bound: Share,
    },
    /// More than any memory.
    #[error("{bytes} bytes are more than any memory: at most {MAX_BYTES} can be counted")]
    TooLarge {
        /// What was to be counted.
        bytes: u64,
    },
    /// Limits of one node that contradict each other.
    #[error(
        "{lower} of '{name}' would be {} ({lower_bytes} bytes), more than its {upper} of {} ({upper_bytes} bytes): \
         limits must ascend from min over low and high to max",
        Size::from_bytes(*lower_bytes),
        Size::from_bytes(*upper_bytes)
    )]
    Order {
        /// The node.
        name: String,
        /// The limit that should be the lower one.
        lower: &'static str,
        /// Its value.
        lower_bytes: u64,
        /// The limit that should be the higher one.
        upper: &'static str,
        /// Its value.
        upper_bytes: u64,
    },
    /// Not a weight.
    #[error("weight of '{name}' cannot be {weight}: choose {} to {}", WEIGHTS.start(), WEIGHTS.end())]
    Weight {
        /// The node.
        name: String,
        /// What was asked for.
        weight: u32,
    },
    /// Protected memory that the pool does not have.
    #[error(
        "protected minimums would be {} in sum, {} more than the pool's {} ({} before){}: lower a min, end a VM or \
         enlarge the pool",
        Size::from_bytes(*bytes),
        Size::from_bytes(bytes.saturating_sub(*capacity_bytes)),
        Size::from_bytes(*capacity_bytes),
        Size::from_bytes(*before_bytes),
        most.as_ref().map(|(name, bytes)| format!("; of VMs '{name}' would have most, {}", Size::from_bytes(*bytes))).unwrap_or_default()
    )]
    Protected {
        /// The sum as it would be.
        bytes: u64,
        /// The sum as it is.
        before_bytes: u64,
        /// The pool's capacity.
        capacity_bytes: u64,
        /// The VM with the highest min, and that min.
        most: Option<(String, u64)>,
    },
    /// Protected memory that a group may not hold.
    #[error(
        "protected minimums in group '{group}' would be {} in sum, {} more than its max of {}: lower a min, raise the max or \
         end a VM",
        Size::from_bytes(*bytes),
        Size::from_bytes(bytes.saturating_sub(*max_bytes)),
        Size::from_bytes(*max_bytes)
    )]
    Crowded {
        /// The group's path.
        group: String,
        /// The sum as it would be.
        bytes: u64,
        /// What the group may hold.
        max_bytes: u64,
    },
    /// Maximums that exceed the pool, which may not be overcommitted.
    #[error(
        "maximums would be {} in sum, {} more than the pool's {} ({} before), and overcommit is off: lower a max, end \
         a VM, enlarge the pool or set overcommit = true",
        Size::from_bytes(*bytes),
        Size::from_bytes(bytes.saturating_sub(*capacity_bytes)),
        Size::from_bytes(*capacity_bytes),
        Size::from_bytes(*before_bytes)
    )]
    Committed {
        /// The sum as it would be.
        bytes: u64,
        /// The sum as it is.
        before_bytes: u64,
        /// The pool's capacity.
        capacity_bytes: u64,
    },
    /// A host that has no memory for another VM.
    #[error(
        "the host is short of memory: {} too much is held, {} of its {} are available; wait until what is idle has been \
         taken back, give back at once with `ballast trim --all`, or end a VM",
        Size::from_bytes(*deficit_bytes),
        Size::from_bytes(*available_bytes),
        Size::from_bytes(*total_bytes)
    )]
    Short {
        /// What is held too much.
        deficit_bytes: u64,
        /// What the host has available.
        available_bytes: u64,
        /// All its memory.
        total_bytes: u64,
    },
    /// A VM that could take everything, in a pool that may not be overcommitted.
    #[error(
        "VM '{name}' would have no max, nor would a group above it, and overcommit is off: give one of them a max, or \
         set overcommit = true (the pool has {}, of which {} are promised)",
        Size::from_bytes(*capacity_bytes),
        Size::from_bytes(*before_bytes)
    )]
    Unbounded {
        /// The VM.
        name: String,
        /// The sum of maximums as it is.
        before_bytes: u64,
        /// The pool's capacity.
        capacity_bytes: u64,
    },
}

/// Limits are asked for of whatever has a path, and the pool's is what somebody writes who leaves it out.
fn no_such_request(name: &str, kind: Kind) -> String {
    match kind {
        Kind::Pool => "the pool is no group, and its size is [pool] capacity in ballastd's configuration: name a group, such \
                       as ci/linux"
            .into(),
        _ => format!("'{name}' is a {kind}, for which there is no such request"),
    }
}
