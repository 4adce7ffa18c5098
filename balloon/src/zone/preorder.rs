//! The tree laid out flat, every node after what it lies in: passes up and down are loops over it.

use super::node::Node;
use super::{Id, Tree};

/// Nodes of a subtree in order. Kept, it is filled again without allocation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preorder {
    /// Each node with the position of its parent; the first has none.
    rows: Vec<(Id, usize)>,
    /// By slot, where the node in it stands. Stale where the row is another node's.
    positions: Vec<usize>,
}

impl Preorder {
    /// Takes in `root` and all in it, and shows each node in its turn.
    pub(crate) fn walk(&mut self, tree: &Tree, root: Id, mut visit: impl FnMut(Id, &Node)) {
        self.rows.clear();
        let (mut next, mut parent) = (Some(root), usize::MAX);
        while let Some(id) = next {
            let Some(node) = tree.nodes.get(id) else { return };
            let position = self.rows.len();
            self.rows.push((id, parent));
            if self.positions.len() <= id.index() {
                self.positions.resize(id.index().saturating_add(1), usize::MAX);
            }
            if let Some(slot) = self.positions.get_mut(id.index()) {
                *slot = position;
            }
            visit(id, node);
            next = tree.nodes.first_child(id);
            if next.is_some() {
                parent = position;
                continue;
            }
            let mut last = id;
            while last != root {
                next = tree.nodes.next_sibling(last);
                if next.is_some() {
                    break;
                }
                let Some(&(up, above)) = self.rows.get(parent) else { return };
                (last, parent) = (up, above);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Where the node stands, if it was taken in.
    pub(crate) fn position(&self, id: Id) -> Option<usize> {
        let position = *self.positions.get(id.index())?;
        self.rows.get(position).filter(|(row, _)| *row == id).map(|_| position)
    }

    /// Where the parent of the node at `position` stands.
    pub(crate) fn parent(&self, position: usize) -> Option<usize> {
        self.rows.get(position).map(|(_, parent)| *parent).filter(|parent| *parent != usize::MAX)
    }

    /// Every node after all that lies in it.
    pub(crate) fn upward(&self) -> impl Iterator<Item = (usize, Id)> + '_ {
        self.rows.iter().enumerate().rev().map(|(position, (id, _))| (position, *id))
    }
}
