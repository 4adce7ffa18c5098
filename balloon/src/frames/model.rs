//! The books against sets of page numbers, over random operations and failing releases.

#![expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::{Books, Layout, Run};
use crate::backing::simulated::{Answer, Simulated, backing};
use crate::pages::PageRange;
use proptest::prelude::*;
use std::collections::BTreeSet;

const BLOCK: u64 = crate::BLOCK_BYTES;

fn layout() -> Layout {
    Layout::new(&[(0, BLOCK), (3 * BLOCK, 2 * BLOCK)]).unwrap()
}

#[derive(Clone, Debug)]
enum Operation {
    Balloon(Vec<(u32, u32)>),
    Deflate(Vec<(u32, u32)>),
    Report(Vec<(u32, u32)>),
    Resident(u32, u32),
    Reset,
}

fn operation() -> impl Strategy<Value = Operation> {
    // Around the borders of regions and words.
    let first = prop_oneof![0u32..70, 960u32..1100, 3040u32..3200, 5060u32..5140];
    let range = (first, prop_oneof![4 => 1u32..5, 1 => 1u32..3000]);
    let ranges = prop::collection::vec(range.clone(), 1..8);
    prop_oneof![
        4 => ranges.clone().prop_map(Operation::Balloon),
        3 => ranges.clone().prop_map(Operation::Deflate),
        3 => ranges.prop_map(Operation::Report),
        2 => range.prop_map(|(first, count)| Operation::Resident(first, count)),
        1 => Just(Operation::Reset),
    ]
}

fn runs(layout: &Layout, ranges: &[(u32, u32)]) -> Vec<Run> {
    let mut runs = Vec::new();
    for &(first, count) in ranges {
        layout.cut(PageRange::new(first, first + count - 1).unwrap(), &mut runs);
    }
    runs
}

fn pages(layout: &Layout, run: Run) -> std::ops::Range<u64> {
    let first = layout.address(run) / 4096;
    first..first + run.count()
}

proptest! {
    #[test]
    fn books_keep_what_sets_keep(
        operations in prop::collection::vec(operation(), 0..60),
        answers in prop::collection::vec(Answer::any(), 0..80),
    ) {
        let layout = layout();
        let mut books = Books::new(layout.clone());
        let mut backing = backing(&layout, &[1], Simulated::with_answers(&answers));
        let (mut ballooned, mut reported) = (BTreeSet::new(), BTreeSet::new());
        let mut reported_ever = 0;
        for operation in operations {
            match operation {
                Operation::Balloon(ranges) => {
                    let receipt = backing.release(&runs(&layout, &ranges));
                    let entry = books.balloon(&receipt);
                    let mut changed = 0;
                    for page in receipt.runs().iter().flat_map(|run| pages(&layout, *run)) {
                        changed += u64::from(ballooned.insert(page));
                        reported.remove(&page);
                    }
                    prop_assert_eq!((entry.changed, entry.unchanged), (changed, receipt.pages() - changed));
                }
                Operation::Deflate(ranges) => {
                    let runs = runs(&layout, &ranges);
                    let entry = books.deflate(&runs);
                    let deflated = runs.iter().flat_map(|run| pages(&layout, *run));
                    let changed = deflated.filter(|page| ballooned.remove(page)).count() as u64;
                    prop_assert_eq!(entry.changed, changed);
                    prop_assert_eq!(changed + entry.unchanged, runs.iter().map(|run| run.count()).sum::<u64>());
                }
                Operation::Report(ranges) => {
                    let receipt = backing.release(&runs(&layout, &ranges));
                    let entry = books.report(&receipt);
                    let pages = receipt.runs().iter().flat_map(|run| pages(&layout, *run));
                    let fresh: Vec<_> = pages.filter(|page| !ballooned.contains(page)).collect();
                    prop_assert_eq!(entry.changed, fresh.len() as u64);
                    prop_assert_eq!(entry.unchanged, receipt.pages() - entry.changed);
                    reported_ever += entry.changed;
                    reported.extend(fresh);
                }
                Operation::Resident(first, count) => {
                    let runs = runs(&layout, &[(first, count)]);
                    let resident: BTreeSet<_> = runs.iter().flat_map(|run| pages(&layout, *run)).collect();
                    let result = books.reconcile(runs);
                    let before = reported.len();
                    reported.retain(|page| !resident.contains(page));
                    prop_assert_eq!(result.taken_back as usize, before - reported.len());
                    prop_assert_eq!(result.ballooned_resident as usize, ballooned.intersection(&resident).count());
                }
                Operation::Reset => {
                    books.reset();
                    ballooned.clear();
                }
            }
            let totals = books.totals();
            prop_assert_eq!(totals.ballooned, ballooned.len() as u64);
            prop_assert_eq!(totals.reported, reported.len() as u64);
            prop_assert_eq!(totals.reported_ever, reported_ever);
            prop_assert_eq!(totals.guest_owned() + totals.ballooned + totals.reported, layout.pages());
            prop_assert_eq!(books.check(), Ok(()));
        }
    }
}

#[test]
fn a_gibibyte_changes_state_in_a_few_thousand_words() {
    let layout = Layout::new(&[(0, 1 << 30)]).unwrap();
    let mut books = Books::new(layout.clone());
    let mut backing = backing(&layout, &[], Simulated::default());
    let whole = [layout.run(0, 0, layout.pages()).unwrap()];
    let receipt = backing.release(&whole);
    assert_eq!(books.report(&receipt).changed, 262_144);
    assert_eq!(books.balloon(&receipt).changed, 262_144);
    assert_eq!((books.totals().reported, books.ballooned_in(whole[0])), (0, 262_144));
    assert_eq!(books.report(&receipt).unchanged, 262_144, "ballooned wins");
    assert_eq!(books.check(), Ok(()));
}
