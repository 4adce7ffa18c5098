//! Tests of the tree as a whole: its requests one by one here, at random beside.

#![expect(clippy::arithmetic_side_effects)]

mod kernel;
mod life;
mod model;
mod sequences;
mod sharing;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// How many random cases: a few, or with `BALLAST_TEST_LONG` a million.
fn cases(few: u32) -> u32 {
    if std::env::var_os("BALLAST_TEST_LONG").is_some() { 1_000_000 } else { few }
}

fn tree(capacity_bytes: u64, overcommit: bool) -> Tree {
    Tree::new(Pool { capacity_bytes, overcommit }).unwrap()
}

fn limits(min: u64, max: u64) -> Limits {
    Limits { min: Some(min), max: Some(max), ..Limits::default() }
}

fn max(max: u64) -> Limits {
    Limits { max: Some(max), ..Limits::default() }
}

fn charge(tree: &Tree, id: Id) -> u64 {
    tree.get(id).unwrap().charge_bytes()
}
