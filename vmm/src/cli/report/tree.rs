//! The nodes of a moment as the tree that they are, whatever a recording says of it, and in words. Pure.

#![forbid(unsafe_code)]

use balloon::control::host_trace::Node;
use balloon::logging::printable;
use balloon::size::Size;
use balloon::zone::Kind;
use std::fmt::Write;

/// Nodes, each before those in it; the first has all others.
#[derive(Clone, Debug)]
pub struct Tree<'a> {
    nodes: &'a [Node],
    /// Of each the one that it is in.
    parents: Vec<usize>,
    children: Vec<Vec<usize>>,
    /// What each holds, and at least as much as those in it together.
    charges: Vec<f64>,
}

impl<'a> Tree<'a> {
    /// Of nodes that are as deep as they say, or as can be.
    #[must_use]
    pub fn new(nodes: &'a [Node]) -> Self {
        let mut parents = vec![0; nodes.len()];
        let mut children = vec![Vec::new(); nodes.len()];
        let mut above: Vec<usize> = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let depth = usize::try_from(node.depth).unwrap_or(usize::MAX);
            // There is one root.
            above.truncate(depth.max(usize::from(at > 0)));
            if let (Some(parent), Some(place)) = (above.last(), parents.get_mut(at)) {
                *place = *parent;
                if let Some(siblings) = children.get_mut(*parent) {
                    siblings.push(at);
                }
            }
            above.push(at);
        }
        let mut charges: Vec<f64> = nodes.iter().map(|node| node.charge_bytes as f64).collect();
        for at in (0..nodes.len()).rev() {
            let of = children.get(at).into_iter().flatten();
            let sum: f64 = of.filter_map(|child| charges.get(*child)).sum();
            if let Some(charge) = charges.get_mut(at) {
                *charge = charge.max(sum);
            }
        }
        Self { nodes, parents, children, charges }
    }

    /// The node.
    #[must_use]
    pub fn node(&self, at: usize) -> Option<&'a Node> {
        self.nodes.get(at)
    }

    /// Those in it.
    pub fn children(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        self.children.get(at).into_iter().flatten().copied()
    }

    /// What it holds.
    #[must_use]
    pub fn charge(&self, at: usize) -> f64 {
        self.charges.get(at).copied().unwrap_or(0.0)
    }

    /// What of that none of those in it does.
    #[must_use]
    pub fn own(&self, at: usize) -> f64 {
        (self.charge(at) - self.children(at).map(|child| self.charge(child)).sum::<f64>()).max(0.0)
    }

    /// Its own name, as can be shown.
    #[must_use]
    pub fn name(&self, at: usize) -> String {
        shown(self.nodes.get(at).map_or("", |node| &node.name))
    }

    /// Its name behind those of all that it is in.
    #[must_use]
    pub fn path(&self, at: usize) -> String {
        let mut names = vec![self.name(at)];
        let mut above = at;
        while let Some(parent) = self.parents.get(above).copied().filter(|parent| *parent < above) {
            above = parent;
            names.push(self.name(above));
        }
        names.reverse();
        names.retain(|name| !name.is_empty());
        names.join("/")
    }

    /// What it is, holds and may hold.
    #[must_use]
    pub fn words(&self, at: usize) -> String {
        let Some(node) = self.nodes.get(at) else { return String::new() };
        let size = |bytes: u64| Size::from_bytes(bytes).to_string();
        let ended = if node.orphan { ", of a microVM that has ended" } else { "" };
        let mut words = format!("{}, {}{ended}: {} held", self.path(at), node.kind, size(node.charge_bytes));
        // Memory takes whatever is written.
        if node.protected_bytes > 0 {
            let _ = write!(words, ", {} of it protected", size(node.protected_bytes.min(node.charge_bytes)));
        }
        let _ = write!(words, "\n{}", limits(node));
        if let Some(guest) = node.guest {
            let target = guest.target_bytes.map_or_else(|| "-".into(), size);
            let _ = write!(words, "\ntarget {target}, ceiling {}", size(guest.ceiling_bytes));
            if guest.swapped_bytes > 0 {
                let _ = write!(words, ", {} swapped out", size(guest.swapped_bytes));
            }
            if guest.lambda_permille > 1000 {
                let _ = write!(words, ", pressure {:.1}", guest.lambda_permille as f64 / 1000.0);
            }
        }
        if node.kind == Kind::Vm {
            for child in self.children(at).filter(|child| self.charge(*child) > 0.0) {
                let _ = write!(words, "\n{} {}", self.name(child), size(self.charge(child) as u64));
            }
        }
        words
    }

    /// All of them with what they hold, in their order.
    pub fn held(&self) -> impl Iterator<Item = (usize, &'a Node)> + '_ {
        self.nodes.iter().enumerate().filter(|(at, node)| *at > 0 && node.charge_bytes > 0)
    }
}

/// `min 64 MiB, low -, high -, max 1 GiB`.
fn limits(node: &Node) -> String {
    let limits = [
        ("min", node.min_bytes),
        ("low", node.low_bytes),
        ("high", node.high_bytes),
        ("max", node.max_bytes),
    ];
    limits.map(|(name, bytes)| format!("{name} {}", limit(bytes))).join(", ")
}

/// A limit as tables have it.
pub fn limit(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), |bytes| Size::from_bytes(bytes).to_string())
}

/// A name without what would change how the words around it are shown.
fn shown(name: &str) -> String {
    let turns = |letter| matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let letters = printable(name);
    letters.chars().map(|letter| if turns(letter) { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(depth: u64, name: &str, charge_bytes: u64) -> Node {
        Node { charge_bytes, ..Node::new(depth, Kind::Group, name) }
    }

    #[test]
    fn nodes_are_in_what_is_above_them() {
        let nodes = [node(0, "", 10), node(1, "ci", 6), node(2, "a", 2), node(2, "b", 3), node(1, "web", 4)];
        let tree = Tree::new(&nodes);
        assert_eq!(tree.children(0).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(tree.children(1).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((tree.path(3), tree.own(1), tree.own(0)), ("ci/b".into(), 1.0, 0.0));
    }

    #[test]
    fn nonsense_is_a_tree_too() {
        let nodes = [node(7, "x", 1), node(0, "y", 5), node(99, "z", u64::MAX), node(1, "w", 0)];
        let tree = Tree::new(&nodes);
        assert_eq!(tree.children(0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((tree.path(2), tree.charge(0)), ("x/y/z".into(), u64::MAX as f64));
        assert!(Tree::new(&[]).words(0).is_empty() && Tree::new(&[]).path(5).is_empty());
    }
}
