//! The device against sets of page numbers: random requests of a driver, good and bad, with failing releases.

#![expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::{Balloon, DriverState, OFFERED, PFNS_PER_DESCRIPTOR, Queue, features};
use crate::backing::simulated::{Answer, Simulated, backing, mappings};
use crate::backing::{Backing, HostRange, Mapping, PAGES_PER_HUGE_PAGE};
use crate::frames::{Books, Layout, Run};
use crate::resident::{Extent, Scanner, Survey};
use proptest::prelude::*;
use std::collections::BTreeSet;

const BLOCK: u64 = crate::BLOCK_BYTES;
const SIZE: u64 = 3 * BLOCK;

/// Pages 0 to 1023 anonymous, 3072 to 5119 shared.
pub(super) fn balloon(answers: &[Answer]) -> Balloon<Simulated> {
    let layout = layout();
    let backing = backing(&layout, &[1], Simulated::with_answers(answers));
    Balloon::new(Books::new(layout), backing, BLOCK)
}

/// Pages that are mapped from a file until they are released.
const IMAGE: std::ops::Range<u32> = 20..1020;

/// The same, with an image.
fn balloon_with_image() -> Balloon<Simulated> {
    let layout = layout();
    let with_image = |(region, mapping): (usize, Mapping)| match region {
        0 => mapping.with_image(u64::from(IMAGE.start) * 4096, IMAGE.len() as u64 * 4096),
        _ => mapping,
    };
    let mappings = mappings(&layout, &[1]).into_iter().enumerate().map(with_image).collect();
    let backing = Backing::new(Simulated::default(), &layout, mappings).unwrap();
    Balloon::new(Books::new(layout), backing, BLOCK)
}

fn layout() -> Layout {
    Layout::new(&[(0, BLOCK), (3 * BLOCK, 2 * BLOCK)]).unwrap()
}

fn is_memory(page: u32) -> bool {
    page < 1024 || (3072..5120).contains(&page)
}

#[derive(Clone, Debug)]
enum Operation {
    Inflate(Vec<Vec<u32>>),
    Deflate(Vec<Vec<u32>>),
    Report(Vec<(u32, u32)>),
    Config(u64, Vec<u8>),
    Ceiling(u64),
    Restart(u64),
    Script(Vec<Answer>),
    /// These pages are in memory; they are read so many at a time.
    Survey(Vec<(u32, u32)>, u64),
}

fn operation() -> impl Strategy<Value = Operation> {
    let page = prop_oneof![6 => 0u32..40, 3 => 1015u32..1030, 3 => 3065u32..3110, 1 => 5110u32..5130, 1 => any::<u32>()];
    let array = prop_oneof![
        4 => prop::collection::vec(page.clone(), 0..20),
        1 => (0u32..5000, 0u32..400).prop_map(|(first, count)| (first..first + count).collect()),
    ];
    let arrays = prop::collection::vec(array, 1..4);
    let whole = (prop_oneof![Just(0u32), Just(512)], prop_oneof![Just(512u32), Just(1024)]);
    let ranges = prop_oneof![4 => (page, 1u32..300), 1 => whole];
    let reports = prop::collection::vec(ranges.clone(), 1..4);
    let held = prop::collection::vec(ranges, 0..3);
    prop_oneof![
        4 => arrays.clone().prop_map(Operation::Inflate),
        4 => arrays.prop_map(Operation::Deflate),
        3 => reports.prop_map(Operation::Report),
        2 => (prop_oneof![Just(4u64), Just(12), 0u64..20], prop::collection::vec(any::<u8>(), 3..6))
            .prop_map(|(offset, data)| Operation::Config(offset, data)),
        2 => (0..2 * SIZE).prop_map(Operation::Ceiling),
        1 => (0u64..64).prop_map(Operation::Restart),
        2 => prop::collection::vec(Answer::any(), 0..6).prop_map(Operation::Script),
        3 => (held, 1u64..4000).prop_map(|(held, step)| Operation::Survey(held, step)),
    ]
}

/// A host that holds these guest-physical pages.
struct Holds<'a>(&'a BTreeSet<u32>);

impl Survey for Holds<'_> {
    fn survey(&mut self, range: HostRange, found: &mut Vec<Extent>) -> std::io::Result<u64> {
        // Where `simulated` puts regions.
        let (region, offset) = (range.address() >> 40, range.address() & ((1 << 40) - 1));
        let first = (offset / 4096) as u32 + if region == 1 { 0 } else { 3072 };
        let pages = (range.bytes() / 4096) as u32;
        let extent =
            |page: &u32| Extent { first: (page - first).into(), pages: 1, huge: false, swapped: false };
        found.extend(self.0.range(first..first + pages).map(extent));
        Ok(pages.into())
    }

    fn tells_huge_and_swapped(&self) -> bool {
        true
    }
}

fn bytes(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// What the model knows of a device.
#[derive(Default)]
struct Model {
    ballooned: BTreeSet<u32>,
    reported: BTreeSet<u32>,
    /// Pages that the host kept and the driver has not deflated since.
    kept: u64,
    features: u64,
    poison: u32,
    actual: u32,
    /// Pages that were inflated: what to do about huge pages there may wait until the driver arrives or memory is read.
    deferred: BTreeSet<u32>,
    /// Pages that the driver deflated last, if it may be amid their huge pages.
    amid: BTreeSet<u32>,
    /// Pages that a reset freed: what to do about huge pages there waits for the next reading of memory.
    freed: BTreeSet<u32>,
}

/// What the simulated host released lately, as guest-physical pages.
fn released(subject: &mut Balloon<Simulated>) -> BTreeSet<u32> {
    let layout = subject.books().layout().clone();
    let mut pages = BTreeSet::new();
    for page in (0..1024).chain(3072..5120) {
        let (region, first) = if page < 1024 { (0, page) } else { (1, page - 3072) };
        let run = layout.run(region, first.into(), 1).unwrap();
        let range = subject.backing().mappings()[region].range(run).unwrap();
        let kernel = subject.backing_mut().kernel_mut();
        if kernel.is_released(range) {
            let is_own = !IMAGE.contains(&page) || kernel.replaced.contains(&range.address());
            assert!(is_own, "page {page} reads as the file again");
            pages.insert(page);
        }
    }
    subject.backing_mut().kernel_mut().forget();
    pages
}

/// All ranges of anonymous memory that a huge page of the host may fill.
fn huge_ranges(subject: &Balloon<Simulated>) -> Vec<(Run, HostRange)> {
    let (layout, mappings) = (subject.books().layout(), subject.backing().mappings());
    let anonymous = (0..mappings.len()).filter(|region| mappings[*region].is_anonymous());
    let ranges = anonymous.flat_map(|region| {
        let firsts = (0..mappings[region].bytes() / 4096).step_by(PAGES_PER_HUGE_PAGE as usize);
        firsts.filter_map(move |first| layout.run(region, first, PAGES_PER_HUGE_PAGE))
    });
    ranges.map(|run| (run, mappings[run.region()].range(run).unwrap())).collect()
}

/// The host has advice on each range of which a part went back, and on no other; but on those with `deferred` pages it may
/// be missing, and those with `freed` ones may have it or not.
fn check_huge_pages(
    subject: &mut Balloon<Simulated>,
    deferred: &BTreeSet<u32>,
    freed: &BTreeSet<u32>,
) -> Result<(), TestCaseError> {
    // Once the host has refused advice, or knows none, it may be missing.
    if subject.backing().failures().advice > 0 || !subject.backing().has_huge_pages() {
        return Ok(());
    }
    for (run, range) in huge_ranges(subject) {
        let (books, pages) = (subject.books(), run.count());
        let (ballooned, reported) = (books.ballooned_in(run), books.reported_in(run));
        let first = books.layout().address(run) / 4096;
        let [is_deferred, is_freed] =
            [deferred, freed].map(|some| some.range(first as u32..(first + pages) as u32).next().is_some());
        let small = subject.backing_mut().kernel_mut().is_small(range);
        prop_assert!(
            small
                || is_deferred
                || is_freed
                || ballooned == pages
                || [0, pages].contains(&reported) && ballooned == 0,
            "{} and {} in {:?}",
            ballooned,
            reported,
            run
        );
        prop_assert!(!small || is_freed || ballooned + reported > 0, "nothing in {:?}", run);
        prop_assert!(!small || reported < pages, "all of {:?} is reported", run);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_device_keeps_what_sets_keep(operations in prop::collection::vec(operation(), 0..40)) {
        let mut subject = balloon_with_image();
        let mut model = Model { features: OFFERED, ..Model::default() };
        subject.activate(OFFERED, 0);
        for operation in operations {
            let unreleased = subject.backing().failures().pages;
            let before = *subject.errors();
            match operation {
                Operation::Inflate(arrays) => {
                    for array in &arrays {
                        subject.gather_numbers(&bytes(array), 4 * array.len() as u64);
                    }
                    prop_assert!(subject.settle(Queue::Inflate, 0));
                    let read: Vec<_> = arrays.iter().flat_map(|a| a.iter().take(PFNS_PER_DESCRIPTOR)).copied().collect();
                    let distinct: BTreeSet<_> = read.iter().copied().collect();
                    let valid: BTreeSet<_> = distinct.iter().copied().filter(|page| is_memory(*page)).collect();
                    let failed = subject.backing().failures().pages - unreleased;
                    let released = released(&mut subject);
                    prop_assert!(released.is_subset(&valid), "only what was asked for is released");
                    prop_assert_eq!(released.len() as u64 + failed, valid.len() as u64);
                    let again = released.intersection(&model.ballooned).count();
                    let errors = subject.errors();
                    prop_assert_eq!(errors.foreign_pages - before.foreign_pages, (distinct.len() - valid.len()) as u64);
                    let duplicates = (read.len() - distinct.len() + again) as u64;
                    prop_assert_eq!(errors.duplicate_pages - before.duplicate_pages, duplicates);
                    let oversized = arrays.iter().filter(|a| a.len() > PFNS_PER_DESCRIPTOR).count() as u64;
                    prop_assert_eq!(errors.oversized_buffers - before.oversized_buffers, oversized);
                    model.kept += failed;
                    model.deferred.extend(&valid);
                    for page in released {
                        model.ballooned.insert(page);
                        model.reported.remove(&page);
                    }
                }
                Operation::Deflate(arrays) => {
                    for array in &arrays {
                        subject.gather_numbers(&bytes(array), 4 * array.len() as u64);
                    }
                    prop_assert!(subject.settle(Queue::Deflate, 0));
                    let mut distinct = BTreeSet::new();
                    let (mut twice, mut strange) = (0, 0);
                    for page in arrays.iter().flat_map(|array| array.iter().take(PFNS_PER_DESCRIPTOR)) {
                        if !distinct.insert(*page) {
                            twice += 1;
                        } else if !model.ballooned.remove(page) && is_memory(*page) {
                            strange += 1;
                        }
                    }
                    let kept = model.kept.min(strange);
                    model.kept -= kept;
                    let blamed = subject.errors().not_ballooned_pages - before.not_ballooned_pages;
                    prop_assert_eq!(blamed, twice + strange - kept);
                    prop_assert!(released(&mut subject).is_empty(), "deflating needs nothing of the host");
                    model.deferred.clear();
                    model.amid = distinct.into_iter().filter(|page| is_memory(*page)).collect();
                    let ends = model.amid.first().zip(model.amid.last());
                    if ends.is_some_and(|(first, last)| last / 512 - first / 512 > 1) {
                        model.amid.clear();
                    }
                }
                Operation::Report(ranges) => {
                    prop_assert!(subject.begin_chain());
                    for &(first, count) in &ranges {
                        subject.gather_range(u64::from(first) * 4096, u64::from(count) * 4096);
                    }
                    prop_assert!(subject.settle(Queue::Reporting, 0));
                    let beyond = |first: u32, count: u32| first.checked_add(count - 1);
                    let pages = ranges.iter().filter_map(|&(first, count)| Some(first..=beyond(first, count)?)).flatten();
                    let valid: BTreeSet<_> = pages.filter(|page| is_memory(*page)).collect();
                    let failed = subject.backing().failures().pages - unreleased;
                    let released = released(&mut subject);
                    prop_assert!(released.is_subset(&valid));
                    if model.features & features::PAGE_POISON != 0 && model.poison != 0 {
                        prop_assert_eq!((released.len(), failed), (0, 0), "a pattern is kept");
                    } else {
                        prop_assert_eq!(released.len() as u64 + failed, valid.len() as u64);
                    }
                    model.reported.extend(released.difference(&model.ballooned));
                }
                Operation::Config(offset, data) => {
                    subject.write_config(offset, &data, 0);
                    let value = <[u8; 4]>::try_from(&data[..]).map(u32::from_le_bytes);
                    match (offset, value) {
                        (4, Ok(value)) => {
                            model.actual = value.min(3 * 1024);
                            if u64::from(model.actual) * 4096 == subject.report(None, 0).target {
                                model.deferred.clear();
                                model.amid.clear();
                            }
                        }
                        (12, Ok(value)) => model.poison = value,
                        _ => prop_assert_eq!(subject.errors().config_writes, before.config_writes + 1),
                    }
                }
                Operation::Ceiling(bytes) => {
                    let result = subject.set_ceiling(bytes, 0);
                    prop_assert_eq!(result.is_ok(), (BLOCK..=SIZE).contains(&bytes));
                    if result.is_ok() {
                        prop_assert_eq!(subject.report(None, 0).ceiling, bytes.next_multiple_of(4096));
                    }
                }
                Operation::Restart(features) => {
                    subject.reset();
                    prop_assert_eq!(subject.driver(0), DriverState::Absent);
                    subject.activate(features, 0);
                    model.freed.append(&mut model.ballooned);
                    model.freed.append(&mut model.amid);
                    let Model { reported, freed, .. } = model;
                    model = Model { reported, freed, features: features & OFFERED, ..Model::default() };
                }
                Operation::Survey(held, step) => {
                    let held = held.iter().flat_map(|&(first, count)| first..first.saturating_add(count));
                    let held: BTreeSet<_> = held.filter(|page| is_memory(*page)).collect();
                    let taken_back = subject.report(None, 0).taken_back_total;
                    let mut scanner = Scanner::new(Holds(&held));
                    let reading = loop {
                        if let Some(reading) = subject.survey(&mut scanner, step).unwrap() {
                            break reading;
                        }
                    };
                    prop_assert_eq!(reading.resident, 4096 * held.len() as u64);
                    let unwanted = held.intersection(&model.ballooned).count() as u64;
                    prop_assert_eq!(reading.ballooned_resident, 4096 * unwanted);
                    let reported = model.reported.len() as u64;
                    model.reported.retain(|page| !held.contains(page));
                    let taken_back = subject.report(None, 0).taken_back_total - taken_back;
                    prop_assert_eq!(taken_back, 4096 * (reported - model.reported.len() as u64));
                    model.deferred.clear();
                    model.amid.clear();
                    model.freed.clear();
                }
                Operation::Script(answers) => subject.backing_mut().kernel_mut().script(&answers),
            }
            let report = subject.report(None, 0);
            prop_assert_eq!(report.ballooned, 4096 * model.ballooned.len() as u64);
            prop_assert_eq!(report.reported, 4096 * model.reported.len() as u64);
            prop_assert_eq!(report.actual, 4096 * u64::from(model.actual));
            prop_assert_eq!(report.skew, report.actual as i64 - report.ballooned as i64);
            prop_assert_eq!(report.guest_owned + report.ballooned + report.reported, SIZE);
            prop_assert!(report.target <= SIZE - BLOCK);
            prop_assert_eq!(subject.books().check(), Ok(()));
            check_huge_pages(&mut subject, &model.deferred, &(&model.freed | &model.amid))?;
        }
        // The driver has arrived.
        let target = subject.report(None, 0).target / 4096;
        subject.write_config(4, &(target as u32).to_le_bytes(), 0);
        check_huge_pages(&mut subject, &BTreeSet::new(), &model.freed)?;
    }
}
