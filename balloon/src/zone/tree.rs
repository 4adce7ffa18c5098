//! The tree: how its nodes come into being, are found and go.

use super::charging::Charging;
use super::forest::Forest;
use super::node::{Node, Role};
use super::{Error, Id, Kind, Limits, Pool};
use std::collections::BTreeMap;

/// The zone that every VM has: its boot memory, kernel and all.
pub const BOOT_ZONE: &str = "ram";

/// The most private zones that a VM has.
pub const MAX_ZONES: usize = 16;

/// What the zones of a VM that has several are multiples of: Linux gives memory to NUMA nodes by whole sections
/// (`SECTION_SIZE_BITS` in `arch/x86/include/asm/sparsemem.h`).
pub const SECTION_BYTES: u64 = 128 << 20;

/// The most bytes that can be counted: what is left of a pool, or missing in it, fits a signed number.
pub const MAX_BYTES: u64 = i64::MAX as u64;

const LONGEST_NAME: usize = 64;
/// Each group on a path is a node that has all of its own path: without a bound, one request would be gigabytes. With what
/// it is put after it names a directory, too.
const LONGEST_PATH: usize = 240;

/// Pool, groups, VMs and zones, with their limits and charges.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(super) nodes: Forest<Node>,
    pub(super) root: Id,
    pub(super) pool: Pool,
    pub(super) groups: BTreeMap<String, Id>,
    vms: BTreeMap<String, Id>,
    pub(super) shared: BTreeMap<String, Id>,
}

impl Tree {
    /// An empty pool.
    ///
    /// # Errors
    /// Its capacity is more than [`MAX_BYTES`].
    pub fn new(pool: Pool) -> Result<Self, Error> {
        pool.check()?;
        let mut nodes = Forest::new();
        let role = Role::Pool { charging: Charging::default() };
        let root = nodes.insert(Node::new(role, "", Limits::default()), None);
        let (groups, vms, shared) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { nodes, root, pool, groups, vms, shared })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Id {
        self.root
    }

    /// The node, if it is not gone.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// What the node lies in.
    #[must_use]
    pub fn parent(&self, id: Id) -> Option<Id> {
        self.nodes.parent(id)
    }

    /// What lies in the node, in order of arrival.
    pub fn children(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        self.nodes.children(id)
    }

    /// The node and all above it, upwards.
    pub fn path(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        self.nodes.path(id)
    }

    /// The group at a path such as `ci/linux`; the empty path is the pool.
    #[must_use]
    pub fn group(&self, path: &str) -> Option<Id> {
        if path.is_empty() { Some(self.root) } else { self.groups.get(path).copied() }
    }

    /// All groups, by their paths.
    pub fn groups(&self) -> impl Iterator<Item = (&str, Id)> {
        self.groups.iter().map(|(path, id)| (path.as_str(), *id))
    }

    /// The living VM of that name.
    #[must_use]
    pub fn vm(&self, name: &str) -> Option<Id> {
        self.vms.get(name).copied()
    }

    /// The private zone of that name in `vm`, unless it is an orphan.
    #[must_use]
    pub fn zone(&self, vm: Id, name: &str) -> Option<Id> {
        self.children(vm).find(|id| {
            let node = self.nodes.get(*id);
            node.is_some_and(|node| node.kind() == Kind::Zone && !node.orphan && node.name == name)
        })
    }

    /// The shared zone of that name.
    #[must_use]
    pub fn shared(&self, name: &str) -> Option<Id> {
        self.shared.get(name).copied()
    }

    /// Living VMs by name.
    pub fn vms(&self) -> impl Iterator<Item = (&str, Id)> + '_ {
        self.vms.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// Configures a group, which then stays without VMs too. Missing groups above it appear, unconfigured.
    ///
    /// # Errors
    /// The path is none, the group is configured already, or its limits cannot be had.
    pub fn create_group(&mut self, path: &str, limits: Limits) -> Result<Id, Error> {
        let taken = || Error::Taken { kind: Kind::Group, name: path.into() };
        if self.group(path).and_then(|id| self.nodes.get(id)).is_some_and(|node| !is_passing(node)) {
            return Err(taken());
        }
        let id = self.find_or_create_group(path)?;
        self.change(&[(id, limits)]).inspect_err(|_| {
            self.prune(id);
        })?;
        if let Some(Role::Group { configured, .. }) = self.nodes.get_mut(id).map(|node| &mut node.role) {
            *configured = true;
        }
        Ok(id)
    }

    /// Removes an empty group.
    ///
    /// # Errors
    /// It is not empty, or no group.
    pub fn remove_group(&mut self, id: Id) -> Result<(), Error> {
        let members = self.children(id).count();
        let node = self.nodes.get_mut(id).ok_or(Error::Gone)?;
        let Role::Group { configured, .. } = &mut node.role else { return Err(wrong_kind(node)) };
        if members > 0 {
            return Err(Error::NotEmpty { name: node.name.clone(), members });
        }
        *configured = false;
        self.prune(id);
        Ok(())
    }

    /// Starts the books of a VM with one zone, [`BOOT_ZONE`], in the group at `path`. Groups that are missing appear
    /// with it and go with their last member.
    ///
    /// # Errors
    /// The name or path is none, the name is taken, or the pool does not admit the limits.
    pub fn create_vm(&mut self, path: &str, name: &str, limits: Limits) -> Result<Id, Error> {
        let before = self.claims();
        let id = self.adopt_vm(path, name, limits)?;
        self.admit(before).inspect_err(|_| {
            let group = self.parent(id);
            self.forget_vm_name(name);
            self.children(id).chain([id]).collect::<Vec<_>>().into_iter().for_each(|id| {
                self.nodes.remove(id);
            });
            if let Some(group) = group {
                self.prune(group);
            }
        })?;
        Ok(id)
    }

    /// As [`Self::create_vm`] for a VM that is there already and whom nobody asked this tree to admit: the pool takes
    /// it in whatever it has promised.
    ///
    /// # Errors
    /// The name or path is none, the name is taken, or the limits contradict each other.
    pub fn adopt_vm(&mut self, path: &str, name: &str, limits: Limits) -> Result<Id, Error> {
        check_name(Kind::Vm, name)?;
        limits.check(name)?;
        if self.vms.contains_key(name) {
            return Err(Error::Taken { kind: Kind::Vm, name: name.into() });
        }
        let group = self.find_or_create_group(path)?;
        let id = self.nodes.insert(Node::new(Role::Vm { maps: Vec::new() }, name, limits), Some(group));
        self.nodes.insert(Node::new(Role::Zone, BOOT_ZONE, Limits::default()), Some(id));
        self.vms.insert(name.into(), id);
        Ok(id)
    }

    /// Adds a private zone to a living VM.
    ///
    /// # Errors
    /// The name is none or taken, there is no such VM, or the pool does not admit the limits.
    pub fn create_zone(&mut self, vm: Id, name: &str, limits: Limits) -> Result<Id, Error> {
        self.living_vm(vm)?;
        check_name(Kind::Zone, name)?;
        limits.check(name)?;
        if self.zone(vm, name).is_some() {
            return Err(Error::Taken { kind: Kind::Zone, name: name.into() });
        }
        let before = self.claims();
        let id = self.nodes.insert(Node::new(Role::Zone, name, limits), Some(vm));
        self.admit(before).inspect_err(|_| drop(self.nodes.remove(id)))?;
        Ok(id)
    }

    /// The VM `id`, if it lives.
    pub(super) fn living_vm(&self, id: Id) -> Result<&Node, Error> {
        let node = self.nodes.get(id).ok_or(Error::Gone)?;
        match node.role {
            Role::Vm { .. } if node.orphan => Err(Error::Orphan { name: node.name.clone() }),
            Role::Vm { .. } => Ok(node),
            _ => Err(wrong_kind(node)),
        }
    }

    pub(super) fn forget_vm_name(&mut self, name: &str) {
        self.vms.remove(name);
    }

    /// Whoever asks for a shared zone of this name gets another one.
    pub(super) fn forget_shared_name(&mut self, id: Id) {
        let name = self.nodes.get(id).map_or("", |node| &node.name);
        if self.shared.get(name) == Some(&id) {
            self.shared.remove(name);
        }
    }

    pub(super) fn find_or_create_group(&mut self, path: &str) -> Result<Id, Error> {
        if let Some(id) = self.group(path) {
            return Ok(id);
        }
        let is_good =
            path.len() <= LONGEST_PATH && path.split('/').all(|part| check_name(Kind::Group, part).is_ok());
        if !is_good {
            return Err(no_name(Kind::Group, path));
        }
        let mut parent = self.root;
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for path in ends.filter_map(|end| path.get(..end)) {
            parent = self.group(path).unwrap_or_else(|| {
                let role = Role::Group { configured: false, charging: None };
                let id = self.nodes.insert(Node::new(role, path, Limits::default()), Some(parent));
                self.groups.insert(path.into(), id);
                id
            });
        }
        Ok(parent)
    }

    /// Removes the node if nothing keeps it, and then whatever above it nothing keeps any longer. Returns whether
    /// it removed the node.
    pub(super) fn prune(&mut self, id: Id) -> bool {
        let mut next = Some(id);
        while let Some(id) = next {
            let Some(node) = self.nodes.get(id) else { break };
            let done = is_passing(node) || (node.orphan && node.charge_bytes == 0);
            if !done || self.nodes.first_child(id).is_some() {
                break;
            }
            next = self.nodes.parent(id);
            self.forget_shared_name(id);
            if let Some(Node { role: Role::Group { .. }, name, .. }) = self.nodes.remove(id) {
                self.groups.remove(&name);
            }
        }
        self.nodes.get(id).is_none()
    }
}

/// Whether it is a group that goes with its last member.
fn is_passing(node: &Node) -> bool {
    matches!(node.role, Role::Group { configured: false, .. })
}

pub(super) fn wrong_kind(node: &Node) -> Error {
    Error::Kind { name: node.name.clone(), kind: node.kind() }
}

/// Names become parts of cgroup paths and of commands.
fn check_name(kind: Kind, name: &str) -> Result<(), Error> {
    let mut bytes = name.bytes();
    let good = name.len() <= LONGEST_NAME
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if good { Ok(()) } else { Err(no_name(kind, name)) }
}

/// Of what is no name as much is repeated as a name may have.
fn no_name(kind: Kind, name: &str) -> Error {
    Error::Name { kind, name: name.chars().take(LONGEST_PATH).collect() }
}
