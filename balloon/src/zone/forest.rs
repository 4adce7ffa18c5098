//! Where the tree keeps its nodes: slots with links, named by numbers that are never given twice.

use std::iter::successors;
use std::num::NonZeroU64;

/// Names one node of the tree for as long as the tree lives. Once the node is removed, the id finds nothing, though
/// another node takes its place. Ids are ordered by creation. An id means nothing to another tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Of all nodes that ever were, which. 2^64 are not used up in the life of a machine.
    serial: NonZeroU64,
    index: usize,
}

impl Id {
    /// The slot of the node, which after its removal may be another's.
    pub(crate) fn index(self) -> usize {
        self.index
    }
}

/// A slot's number, with room for none: small, as a pass over the tree follows them from one slot to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link(u32);

impl Link {
    const NONE: Self = Self(u32::MAX);

    /// Four thousand million nodes do not fit the memory of a host.
    fn to(id: Option<Id>) -> Self {
        id.and_then(|id| u32::try_from(id.index).ok()).map_or(Self::NONE, Self)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// None if it is free.
    serial: Option<NonZeroU64>,
    parent: Link,
    first: Link,
    last: Link,
    before: Link,
    after: Link,
}

/// Free, and linked to nothing.
const FREE: Slot = Slot {
    serial: None,
    parent: Link::NONE,
    first: Link::NONE,
    last: Link::NONE,
    before: Link::NONE,
    after: Link::NONE,
};

/// Nodes with parents. Children stand in the order in which they came.
#[derive(Clone, Debug)]
pub(super) struct Forest<T> {
    slots: Vec<Slot>,
    /// Of each slot, what is in it.
    values: Vec<Option<T>>,
    free: Vec<usize>,
    serial: NonZeroU64,
}

impl<T> Forest<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), values: Vec::new(), free: Vec::new(), serial: NonZeroU64::MIN }
    }

    /// Adds a node, as the last child of `parent`.
    pub(super) fn insert(&mut self, value: T, parent: Option<Id>) -> Id {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(FREE);
            self.values.push(None);
            self.slots.len().saturating_sub(1)
        });
        let id = Id { serial: self.serial, index };
        self.serial = self.serial.saturating_add(1);
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Slot { serial: Some(id.serial), ..FREE };
        }
        if let Some(place) = self.values.get_mut(index) {
            *place = Some(value);
        }
        if let Some(parent) = parent {
            self.link(id, parent, None);
        }
        id
    }

    /// Removes a node without children.
    pub(super) fn remove(&mut self, id: Id) -> Option<T> {
        if self.first_child(id).is_some() {
            return None;
        }
        self.unlink(id);
        *self.slot_mut(id)? = FREE;
        self.free.push(id.index);
        self.values.get_mut(id.index)?.take()
    }

    /// Makes `id` a child of `parent`, before the child `before` or as the last.
    pub(super) fn reparent(&mut self, id: Id, parent: Id, before: Option<Id>) {
        self.unlink(id);
        self.link(id, parent, before);
    }

    pub(super) fn get(&self, id: Id) -> Option<&T> {
        self.slot(id)?;
        self.values.get(id.index)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slot(id)?;
        self.values.get_mut(id.index)?.as_mut()
    }

    pub(super) fn parent(&self, id: Id) -> Option<Id> {
        self.id(self.slot(id)?.parent)
    }

    pub(super) fn first_child(&self, id: Id) -> Option<Id> {
        self.id(self.slot(id)?.first)
    }

    pub(super) fn next_sibling(&self, id: Id) -> Option<Id> {
        self.id(self.slot(id)?.after)
    }

    pub(super) fn children(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        successors(self.first_child(id), |child| self.next_sibling(*child))
    }

    /// `id` and what it lies in, upward.
    pub(super) fn path(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        successors(Some(id), |node| self.parent(*node))
    }

    /// Whether `id` is `ancestor` or lies in it.
    pub(super) fn is_within(&self, id: Id, ancestor: Id) -> bool {
        self.path(id).any(|node| node == ancestor)
    }

    /// The lowest node in which both lie.
    pub(super) fn common_ancestor(&self, one: Id, two: Id) -> Option<Id> {
        let (depth_one, depth_two) = (self.path(one).count(), self.path(two).count());
        let one = self.path(one).skip(depth_one.saturating_sub(depth_two));
        let two = self.path(two).skip(depth_two.saturating_sub(depth_one));
        one.zip(two).find_map(|(one, two)| (one == two).then_some(one))
    }

    fn link(&mut self, id: Id, parent: Id, after: Option<Id>) {
        let before = match after {
            Some(after) => self.slot(after).and_then(|slot| self.id(slot.before)),
            None => self.slot(parent).and_then(|slot| self.id(slot.last)),
        };
        let Some(slot) = self.slot_mut(id) else { return };
        (slot.parent, slot.before, slot.after) = (Link::to(Some(parent)), Link::to(before), Link::to(after));
        self.join(parent, before, Some(id));
        self.join(parent, Some(id), after);
    }

    fn unlink(&mut self, id: Id) {
        let Some(slot) = self.slot_mut(id) else { return };
        let Slot { parent, before, after, .. } = *slot;
        (slot.parent, slot.before, slot.after) = (Link::NONE, Link::NONE, Link::NONE);
        if let Some(parent) = self.id(parent) {
            self.join(parent, self.id(before), self.id(after));
        }
    }

    /// Lets two children of `parent` follow each other; nothing stands for its begin and its end.
    fn join(&mut self, parent: Id, before: Option<Id>, after: Option<Id>) {
        match before.and_then(|before| self.slot_mut(before)) {
            Some(slot) => slot.after = Link::to(after),
            None => self.slot_mut(parent).into_iter().for_each(|slot| slot.first = Link::to(after)),
        }
        match after.and_then(|after| self.slot_mut(after)) {
            Some(slot) => slot.before = Link::to(before),
            None => self.slot_mut(parent).into_iter().for_each(|slot| slot.last = Link::to(before)),
        }
    }

    /// Whom a link leads to. Links lead to living nodes only.
    fn id(&self, link: Link) -> Option<Id> {
        let index = usize::try_from(link.0).ok()?;
        Some(Id { serial: self.slots.get(index)?.serial?, index })
    }

    fn slot(&self, id: Id) -> Option<&Slot> {
        self.slots.get(id.index).filter(|slot| slot.serial == Some(id.serial))
    }

    fn slot_mut(&mut self, id: Id) -> Option<&mut Slot> {
        self.slots.get_mut(id.index).filter(|slot| slot.serial == Some(id.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children(forest: &Forest<u8>, id: Id) -> Vec<u8> {
        forest.children(id).map(|child| *forest.get(child).unwrap()).collect()
    }

    #[test]
    fn a_removed_node_is_never_found_again() {
        let mut forest = Forest::new();
        let root = forest.insert(0, None);
        let gone = forest.insert(1, Some(root));
        assert_eq!(forest.remove(root), None, "it has a child");
        assert_eq!(forest.remove(gone), Some(1));
        assert_eq!(forest.remove(gone), None);
        let new = forest.insert(2, Some(root));
        assert_eq!(new.index(), gone.index(), "the slot is used again");
        assert!(new > gone);
        assert_eq!((forest.get(gone), forest.parent(gone)), (None, None));
        forest.reparent(gone, root, None);
        assert_eq!(children(&forest, root), [2]);
    }

    #[test]
    fn children_keep_their_order() {
        let mut forest = Forest::new();
        let (root, other) = (forest.insert(0, None), forest.insert(9, None));
        let [one, two, three] = [1, 2, 3].map(|value| forest.insert(value, Some(root)));
        forest.reparent(two, other, None);
        assert_eq!((children(&forest, root), children(&forest, other)), (vec![1, 3], vec![2]));
        forest.reparent(two, root, Some(three));
        assert_eq!(children(&forest, root), [1, 2, 3]);
        forest.reparent(one, root, None);
        assert_eq!(children(&forest, root), [2, 3, 1]);
        forest.reparent(three, root, Some(two));
        assert_eq!(children(&forest, root), [3, 2, 1]);
        assert!(children(&forest, other).is_empty());
    }

    #[test]
    fn the_common_ancestor_is_the_lowest() {
        let mut forest = Forest::new();
        let root = forest.insert(0, None);
        let [left, right] = [1, 2].map(|value| forest.insert(value, Some(root)));
        let [one, two] = [3, 4].map(|value| forest.insert(value, Some(left)));
        for (a, b, common) in [(one, two, left), (one, right, root), (one, left, left), (two, two, two)] {
            assert_eq!(forest.common_ancestor(a, b), Some(common));
            assert_eq!(forest.common_ancestor(b, a), Some(common));
        }
        let alone = forest.insert(5, None);
        assert_eq!(forest.common_ancestor(alone, one), None);
        assert!(forest.is_within(one, root) && forest.is_within(one, one) && !forest.is_within(left, one));
    }
}
