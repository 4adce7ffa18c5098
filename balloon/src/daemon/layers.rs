//! Image layers as shared zones: which microVM maps which, by the host's word, and what that comes to in the zone tree.
//! Pure.
//!
//! Nothing here is what a VMM says. That it maps a file, how far, and whose scope the file is of, stands in the host's
//! list of its mappings; how much of the file is in memory says the page cache; what of that the VMM touched first its
//! cgroup. A layer is known by its file: one that was removed and made anew is another zone while both are mapped.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::control::fleet::{ShareDocument, SharedZoneDocument};
use crate::resident::{FileId, Mapping};
use crate::zone::scope::LayerFile;
use crate::zone::{Charging, Error, Id, Scope, Touch, Tree};
use std::collections::BTreeMap;

/// No machine has more: so many virtio-pmem devices fit its interrupt lines.
pub(super) const MOST_LAYERS: usize = 19;
/// What the host appends to the path of a mapped file that is removed.
const DELETED: &str = " (deleted)";

/// A layer that a process maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerUse {
    /// Its file.
    pub id: FileId,
    /// What the file is.
    pub file: LayerFile,
    /// Where it is; a file that was removed is nowhere.
    pub path: Option<String>,
    /// How long it is, as mapped.
    pub bytes: u64,
    /// What the process has mapped of it, in bytes.
    pub resident_bytes: u64,
    /// The same, each page divided by the number of those who have.
    pub proportional_bytes: u64,
}

/// Whether it is a mapping of a layer.
#[must_use]
pub fn is_layer(mapping: &Mapping) -> bool {
    let path = mapping.name.strip_suffix(DELETED).unwrap_or(&mapping.name);
    LayerFile::parse(path, "").is_some()
}

/// The layers among the mappings of a process, for the arbiter of the state directory that is called `state`
/// ([`state_name`](crate::zone::scope::state_name)). Those beyond what a machine has are passed over.
#[must_use]
pub fn uses(mappings: &[Mapping], state: &str) -> Vec<LayerUse> {
    let mut uses: Vec<LayerUse> = Vec::new();
    for mapping in mappings {
        let removed = mapping.name.strip_suffix(DELETED);
        let Some(file) = LayerFile::parse(removed.unwrap_or(&mapping.name), state) else { continue };
        // Advice cuts mappings.
        if let Some(known) = uses.iter_mut().find(|known| known.id == mapping.file) {
            known.bytes = known.bytes.saturating_add(mapping.bytes());
            known.resident_bytes = known.resident_bytes.saturating_add(mapping.rss);
            known.proportional_bytes = known.proportional_bytes.saturating_add(mapping.pss);
        } else if uses.len() < MOST_LAYERS {
            uses.push(LayerUse {
                id: mapping.file,
                file,
                path: removed.is_none().then(|| mapping.name.clone()),
                bytes: mapping.bytes(),
                resident_bytes: mapping.rss,
                proportional_bytes: mapping.pss,
            });
        }
    }
    uses
}

/// All layers that microVMs map.
#[derive(Debug, Default)]
pub struct Layers(BTreeMap<FileId, Layer>);

#[derive(Debug)]
struct Layer {
    zone: Id,
    file: LayerFile,
    bytes: u64,
    /// Number of the last snapshot.
    snapshot: u64,
    /// By microVM, in the tree's words; and what it has mapped.
    touches: BTreeMap<Id, (Touch, u64)>,
}

impl Layer {
    /// Nobody maps it any longer.
    fn end(&mut self, tree: &mut Tree) -> Result<(), Error> {
        if tree.get(self.zone).is_none() {
            return Ok(());
        }
        self.snapshot = self.snapshot.saturating_add(1);
        tree.settle(self.zone, self.snapshot, 0).map(drop)
    }
}

impl Layers {
    /// Takes note that `vm` maps `uses` and no others, and that the host charges `first_bytes` of files to it, which are
    /// those that it touched first: it does not say of which file, so that they are divided as what it has mapped. True if
    /// anything of that is new.
    ///
    /// # Errors
    /// There is no such VM.
    pub fn observe(
        &mut self,
        tree: &mut Tree,
        vm: Id,
        uses: &[LayerUse],
        first_bytes: u64,
    ) -> Result<bool, Error> {
        let mut is_new = false;
        let mapped = uses.iter().fold(0u128, |sum, used| sum.saturating_add(used.resident_bytes.into()));
        let mut zones = Vec::new();
        for used in uses {
            let scope = match &used.file.scope {
                Scope::Host => None,
                Scope::Group(path) => tree.group(path),
                Scope::Vm(name) => tree.vm(name),
            };
            // Those who were in a scope that is gone are elsewhere now: its pages are everybody's.
            let scope = scope.unwrap_or(tree.root());
            let FileId { major, minor, inode } = used.id;
            let name = format!("{} {major}:{minor}:{inode}", used.file.label);
            let zone = tree.adopt_map(vm, scope, &name)?;
            zones.push(zone);
            let part = u128::from(first_bytes).saturating_mul(used.resident_bytes.into()).checked_div(mapped);
            let first_bytes = part.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
            let layer = self.0.entry(used.id).or_insert_with(|| Layer {
                zone,
                file: used.file.clone(),
                bytes: used.bytes,
                snapshot: 0,
                touches: BTreeMap::new(),
            });
            if layer.zone != zone {
                // Its zone ended meanwhile; this is the next one.
                layer.end(tree)?;
                (layer.zone, layer.snapshot) = (zone, 0);
                layer.touches.clear();
            }
            layer.bytes = layer.bytes.max(used.bytes);
            let touch = Touch { proportional_bytes: used.proportional_bytes, first_bytes };
            let now = (touch, used.resident_bytes);
            is_new |= layer.touches.insert(vm, now) != Some(now);
        }
        let maps = tree.get(vm).map_or(&[][..], |node| node.maps()).to_vec();
        for zone in maps.into_iter().filter(|zone| !zones.contains(zone)) {
            tree.unmap(vm, zone)?;
            is_new = true;
        }
        Ok(is_new)
    }

    /// Settles all layers: `resident` says what of a file is in memory; where it does not know, it is at least what one
    /// microVM has mapped. A layer that nobody maps is the main zone's at once: its pages are clean and the host takes
    /// them for whoever needs some.
    ///
    /// # Errors
    /// The pool would hold more than can be counted.
    pub fn settle(&mut self, tree: &mut Tree, resident: impl Fn(FileId) -> Option<u64>) -> Result<(), Error> {
        let mut result = Ok(());
        self.0.retain(|id, layer| {
            layer.snapshot = layer.snapshot.saturating_add(1);
            let sharers = tree.get(layer.zone).map_or(&[][..], |node| node.sharers());
            layer.touches.retain(|vm, _| sharers.iter().any(|sharer| sharer.vm == *vm));
            if layer.touches.is_empty() {
                return layer.end(tree).is_err();
            }
            let mapped = layer.touches.values().map(|(_, mapped)| *mapped).max().unwrap_or(0);
            let bytes = resident(*id).unwrap_or(mapped).min(layer.bytes);
            let touches: Vec<_> = layer.touches.iter().map(|(vm, (touch, _))| (*vm, *touch)).collect();
            if let Err(error) = tree.settle_shared(layer.zone, layer.snapshot, bytes, &touches) {
                result = Err(error);
            }
            true
        });
        result
    }

    /// Ends those that nobody maps any longer, as [`Self::settle`] does.
    pub fn end_unused(&mut self, tree: &mut Tree) {
        self.0.retain(|_, layer| {
            let is_used = tree.get(layer.zone).is_some_and(|node| !node.sharers().is_empty());
            is_used || layer.end(tree).is_err()
        });
    }

    /// Whether somebody maps the file.
    #[must_use]
    pub fn contains(&self, id: FileId) -> bool {
        self.0.contains_key(&id)
    }

    /// What users know a shared zone by.
    #[must_use]
    pub fn label(&self, zone: Id) -> Option<&str> {
        self.0.values().find(|layer| layer.zone == zone).map(|layer| layer.file.label.as_str())
    }

    /// Each layer and who pays for it, in the three ways.
    #[must_use]
    pub fn documents(&self, tree: &Tree) -> Vec<SharedZoneDocument> {
        let named = |id: Id| tree.get(id).map_or_else(String::new, |node| node.name().into());
        let document = |layer: &Layer| {
            let mut shares: BTreeMap<Id, ShareDocument> = BTreeMap::new();
            for (number, charging) in
                [Charging::Proportional, Charging::FirstTouch, Charging::Common].into_iter().enumerate()
            {
                tree.shares(layer.zone, charging, |payer, bytes| {
                    let Some(node) = tree.get(payer) else { return };
                    let share = shares
                        .entry(payer)
                        .or_insert_with(|| ShareDocument::new(node.name().into(), node.kind()));
                    *match number {
                        0 => &mut share.proportional_bytes,
                        1 => &mut share.first_touch_bytes,
                        _ => &mut share.common_bytes,
                    } = bytes;
                });
            }
            SharedZoneDocument {
                name: layer.file.label.clone(),
                scope: layer.file.scope.clone(),
                home: tree.parent(layer.zone).map_or_else(String::new, named),
                charging: tree.charging(layer.zone),
                size_bytes: layer.bytes,
                resident_bytes: tree.get(layer.zone).map_or(0, |node| node.own_bytes()),
                vms: layer.touches.len(),
                shares: shares.into_values().collect(),
            }
        };
        self.0.values().map(document).collect()
    }
}
