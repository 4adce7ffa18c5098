//! What image layers come to in the zone tree.

use super::layers::{LayerUse, Layers, MOST_LAYERS, uses};
use crate::control::fleet::{ShareDocument, SharedZoneDocument};
use crate::resident::{FileId, Mapping};
use crate::zone::scope::LayerFile;
use crate::zone::{Id, Scope, Tree};
use crate::zone::{Limits, Pool};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn file(inode: u64) -> FileId {
    FileId { major: 8, minor: 1, inode }
}

fn used(inode: u64, scope: Scope, resident: u64, share: u64) -> LayerUse {
    LayerUse {
        id: file(inode),
        file: LayerFile { label: "0123456789ab".into(), scope },
        path: None,
        bytes: 1000,
        resident_bytes: resident,
        proportional_bytes: share,
    }
}

fn tree() -> (Tree, [Id; 3]) {
    let mut tree = Tree::new(Pool { capacity_bytes: GIB, overcommit: true }).unwrap();
    let vms = [("ci/linux", "a"), ("ci", "b"), ("web", "c")]
        .map(|(path, name)| tree.create_vm(path, name, Limits::default()).unwrap());
    (tree, vms)
}

fn charge(tree: &Tree, path: &str) -> u64 {
    tree.group(path).and_then(|id| tree.get(id)).map_or(0, |node| node.charge_bytes())
}

#[test]
fn layers_are_those_mappings_that_are_layers() {
    let mapping = |path: &str, inode, bytes: u64, rss| Mapping {
        name: path.into(),
        file: file(inode),
        start: 4096,
        end: 4096 + bytes,
        rss,
        pss: rss / 2,
        ..Mapping::default()
    };
    let layer = format!("/d/scopes/s/group:ci/{KEY}.erofs");
    let found = uses(
        &[
            mapping("/usr/bin/ballast-vmm", 1, 100, 100),
            mapping(&layer, 2, 100, 50),
            mapping(&layer, 2, 100, 30),
            mapping(&format!("/d/layers/{KEY}.erofs (deleted)"), 3, 100, 8),
            mapping("[heap]", 0, 100, 100),
        ],
        "s",
    );
    assert_eq!(found.len(), 2);
    let sizes = (found[0].bytes, found[0].resident_bytes, found[0].proportional_bytes);
    assert_eq!((sizes, found[0].path.as_deref()), ((200, 80, 40), Some(layer.as_str())));
    assert_eq!((found[1].file.scope.clone(), found[1].path.clone()), (Scope::Host, None));
    let many: Vec<_> = (0..100).map(|inode| mapping(&layer, inode, 100, 1)).collect();
    assert_eq!(uses(&many, "s").len(), MOST_LAYERS);
}

#[test]
fn a_layer_is_charged_where_it_is_shared_and_divided_in_three_ways() {
    let (mut tree, [a, b, c]) = tree();
    let mut layers = Layers::default();
    let ci = Scope::Group("ci".into());
    layers
        .observe(&mut tree, a, &[used(1, ci.clone(), 600, 300), used(2, Scope::Host, 200, 100)], 400)
        .unwrap();
    layers.observe(&mut tree, b, &[used(1, ci, 600, 300)], 0).unwrap();
    layers.observe(&mut tree, c, &[used(2, Scope::Host, 200, 100)], 0).unwrap();
    let resident = |id: FileId| (id == file(1)).then_some(800);
    layers.settle(&mut tree, resident).unwrap();
    assert_eq!(["ci", "web", ""].map(|path| charge(&tree, path)), [800, 0, 1000]);
    let documents = layers.documents(&tree);
    let [one, two] = &documents[..] else { panic!("{documents:?}") };
    assert_eq!((one.home.as_str(), one.resident_bytes, one.vms), ("ci", 800, 2));
    let shares = |zone: &SharedZoneDocument| -> Vec<(String, [u64; 3])> {
        let shares = zone.shares.iter();
        let bytes =
            |share: &ShareDocument| [share.proportional_bytes, share.first_touch_bytes, share.common_bytes];
        shares.map(|share| (share.name.clone(), bytes(share))).collect()
    };
    let expected = [("ci", [0, 500, 800]), ("a", [400, 300, 0]), ("b", [400, 0, 0])];
    assert_eq!(shares(one), expected.map(|(name, bytes)| (name.to_owned(), bytes)));
    // Nobody knows how much of it is in memory: at least what one has.
    assert_eq!((two.home.as_str(), two.resident_bytes), ("", 200));
    // It lets go of one; the other's last user ends.
    layers.observe(&mut tree, a, &[used(2, Scope::Host, 200, 200)], 0).unwrap();
    tree.retire(c).unwrap();
    layers.settle(&mut tree, resident).unwrap();
    assert_eq!(["ci", ""].map(|path| charge(&tree, path)), [800, 1000]);
    tree.retire(b).unwrap();
    tree.retire(a).unwrap();
    layers.settle(&mut tree, resident).unwrap();
    assert_eq!((charge(&tree, ""), layers.documents(&tree)), (0, Vec::new()));
    assert!(!layers.contains(file(1)));
    tree.check().unwrap();
}

#[test]
fn a_layer_of_one_microvm_ends_with_it() {
    let (mut tree, [a, b, _]) = tree();
    let mut layers = Layers::default();
    let own = |name: &str| used(1, Scope::Vm(name.into()), 600, 600);
    layers.observe(&mut tree, a, &[own("a")], 600).unwrap();
    layers.settle(&mut tree, |_| Some(700)).unwrap();
    assert_eq!(tree.get(a).unwrap().charge_bytes(), 700);
    assert_eq!(layers.documents(&tree)[0].home, "a");
    // Whoever maps what is another's shares it, whatever the file is called.
    layers.observe(&mut tree, b, &[own("a")], 0).unwrap();
    assert_eq!((tree.get(a).unwrap().charge_bytes(), charge(&tree, "ci")), (0, 700));
    tree.retire(b).unwrap();
    tree.retire(a).unwrap();
    layers.settle(&mut tree, |_| Some(700)).unwrap();
    assert_eq!((charge(&tree, ""), tree.get(a).is_none()), (0, true));
    // The same file again, before anybody has looked.
    let (mut tree, [a, b, _]) = self::tree();
    let mut layers = Layers::default();
    layers.observe(&mut tree, a, &[own("a")], 0).unwrap();
    layers.settle(&mut tree, |_| Some(700)).unwrap();
    tree.retire(a).unwrap();
    layers.observe(&mut tree, b, &[own("a")], 0).unwrap();
    for _ in 0..3 {
        layers.settle(&mut tree, |_| Some(500)).unwrap();
    }
    assert_eq!((layers.documents(&tree).len(), charge(&tree, "")), (1, 500));
    tree.check().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Uses(usize, Vec<(u64, u8, u64)>),
    Settle(u64),
    Retire(usize),
    Move(usize, &'static str),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3usize, prop::collection::vec((0..4u64, 0..4u8, 0..2000u64), 0..4)).prop_map(|(vm, uses)| Step::Uses(vm, uses)),
        4 => (0..2000u64).prop_map(Step::Settle),
        1 => (0..3usize).prop_map(Step::Retire),
        2 => (0..3usize, prop::sample::select(vec!["ci", "web", "", "ci/linux"])).prop_map(|(vm, to)| Step::Move(vm, to)),
    ]
}

proptest! {
    /// Whatever microVMs map and let go, whatever their files are called: nobody's own charge has a byte of it
    /// unless the file is its own, and the books hold.
    #[test]
    fn sharing_charges_no_neighbour(steps in prop::collection::vec(step(), 0..40)) {
        let (mut tree, vms) = tree();
        let mut layers = Layers::default();
        for step in steps {
            match step {
                Step::Uses(vm, uses) => {
                    let uses: Vec<_> = uses.into_iter().map(|(inode, scope, bytes)| {
                        let scope = match scope {
                            0 => Scope::Host,
                            1 => Scope::Group("ci".into()),
                            2 => Scope::Group("web".into()),
                            _ => Scope::Vm(["a", "b", "c", "x"][inode as usize].into()),
                        };
                        used(inode, scope, bytes, bytes / 2)
                    }).collect();
                    let before: Vec<_> = vms.iter().map(|vm| tree.get(*vm).map(|node| node.charge_bytes())).collect();
                    let observed = layers.observe(&mut tree, vms[vm], &uses, 100);
                    prop_assert!(observed.is_ok() || tree.get(vms[vm]).is_none_or(|node| node.is_orphan()));
                    for (number, before) in before.into_iter().enumerate().filter(|(number, _)| *number != vm) {
                        let after = tree.get(vms[number]).map(|node| node.charge_bytes());
                        prop_assert!(after <= before, "{:?} grew to {:?}", before, after);
                    }
                }
                Step::Settle(bytes) => {
                    layers.settle(&mut tree, |id| (id.inode > 0).then_some(bytes)).unwrap();
                    for vm in vms {
                        let Some(node) = tree.get(vm) else { continue };
                        let own = tree.children(vm).filter(|id| !tree.get(*id).unwrap().sharers().is_empty());
                        let only = own.filter(|id| tree.get(*id).unwrap().sharers().iter().any(|sharer| sharer.vm != vm));
                        prop_assert_eq!(only.count(), 0, "{} pays for another", node.name());
                    }
                }
                Step::Retire(vm) => drop(tree.retire(vms[vm])),
                Step::Move(vm, to) => drop(tree.move_vm(vms[vm], to)),
            }
            prop_assert_eq!(tree.check(), Ok(()));
        }
        for vm in vms {
            let _ = tree.retire(vm);
        }
        layers.settle(&mut tree, |_| Some(5)).unwrap();
        prop_assert_eq!(tree.get(tree.root()).unwrap().charge_bytes(), 0);
    }
}
