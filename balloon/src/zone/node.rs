//! One node of the tree: what it is, what it may hold, what it holds.

use super::charging::{Charging, Sharer};
use super::{Id, Limits};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The root: all memory that Ballast may use.
    Pool,
    /// VMs and groups under common limits.
    Group,
    /// One microVM.
    Vm,
    /// Private memory of one VM.
    Zone,
    /// Pages of one image file, mapped into several VMs.
    Shared,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pool => "pool",
            Self::Group => "group",
            Self::Vm => "VM",
            Self::Zone => "zone",
            Self::Shared => "shared zone",
        })
    }
}

/// What only some kinds have.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Pool {
        charging: Charging,
    },
    Group {
        /// Whether it stays when it is empty.
        configured: bool,
        charging: Option<Charging>,
    },
    Vm {
        /// Shared zones that it maps.
        maps: Vec<Id>,
    },
    Zone,
    Shared {
        /// VMs that map it, in the order in which they did.
        sharers: Vec<Sharer>,
    },
}

/// One node of the tree, to be read. It changes only through its [`Tree`](super::Tree).
#[derive(Clone, Debug)]
pub struct Node {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) orphan: bool,
    pub(super) own_bytes: u64,
    pub(super) charge_bytes: u64,
    pub(super) sequence: Option<u64>,
}

impl Node {
    pub(super) fn new(role: Role, name: &str, limits: Limits) -> Self {
        let (own_bytes, charge_bytes) = (0, 0);
        Self { role, name: name.into(), limits, orphan: false, own_bytes, charge_bytes, sequence: None }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.role {
            Role::Pool { .. } => Kind::Pool,
            Role::Group { .. } => Kind::Group,
            Role::Vm { .. } => Kind::Vm,
            Role::Zone => Kind::Zone,
            Role::Shared { .. } => Kind::Shared,
        }
    }

    /// Its name: of a group the whole path, of the pool nothing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it may hold.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes that count against its limits: its own and those of all nodes in it.
    #[must_use]
    pub fn charge_bytes(&self) -> u64 {
        self.charge_bytes
    }

    /// Bytes that it holds itself: of a VM, what is in none of its zones. Groups and the pool have none.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.own_bytes
    }

    /// Whether its VM, or the last that mapped it, is gone, and its memory is not yet back.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.orphan
    }

    /// Number of the last snapshot that was settled, of an orphan since it is one.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// VMs that map this shared zone, in the order in which they did; none of other nodes.
    #[must_use]
    pub fn sharers(&self) -> &[Sharer] {
        match &self.role {
            Role::Shared { sharers } => sharers,
            _ => &[],
        }
    }

    /// Shared zones that this VM maps; none of other nodes.
    #[must_use]
    pub fn maps(&self) -> &[Id] {
        match &self.role {
            Role::Vm { maps } => maps,
            _ => &[],
        }
    }
}
