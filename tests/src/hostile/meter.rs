//! Measures what a balloon does in one pass of the event loop.

use balloon::backing::{CUT_PAGES, Host, PAGES_PER_HUGE_PAGE, SPLIT_PAGES, Work};
use balloon::device::{
    MemoryReport, PAGES_PER_REPORT, PASS_COST, PASS_PAGES, PFNS_PER_DESCRIPTOR, QUEUE_SIZES,
};
use event_manager::{EventOps, Events, MutEventSubscriber};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vmm::virtio::balloon::{Balloon, BalloonEvents, SURVEY_PAGES};
use vmm::virtio::mmio::Transport;

/// The most that a pass did so far.
#[derive(Debug, Default)]
pub struct Most {
    /// Pages whose numbers or ranges were looked at, by the number of the queue.
    pub pages: [AtomicU64; 4],
    /// Chains that were malformed.
    pub chains: AtomicU64,
    /// System calls on guest memory: of a pass over a queue.
    pub calls: AtomicU64,
    /// The same of a step of reading on what the host holds.
    pub step_calls: AtomicU64,
    /// Ranges of a huge page that the host was made to split.
    pub splits: AtomicU64,
}

impl Most {
    /// Whether every pass has kept to the limits that the device promises.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let [inflate, deflate, rest @ ..] = &self.pages;
        let within = |most: &AtomicU64, limit| most.load(Ordering::Relaxed) <= limit;
        within(inflate, PASS_OF_NUMBERS)
            && within(deflate, PASS_OF_NUMBERS)
            && rest.iter().all(|most| within(most, PASS_OF_REPORTS))
            && within(&self.chains, LARGEST_QUEUE)
            && within(&self.calls, PASS_OF_CALLS)
            && within(&self.step_calls, STEP_OF_CALLS)
            && within(&self.splits, PASS_COST / SPLIT_PAGES)
    }
}

/// The last chain of a pass is taken whole: descriptors with as many numbers as are read.
const PASS_OF_NUMBERS: u64 = PASS_PAGES + QUEUE_SIZES[0] as u64 * PFNS_PER_DESCRIPTOR as u64;
/// The same of reports.
const PASS_OF_REPORTS: u64 = PASS_PAGES + PAGES_PER_REPORT;
/// Most runs of a pass that are no whole huge pages.
const RUNS: u64 = PASS_COST / CUT_PAGES;
/// Each released, advised on now and as one of the pass before, and replaced, which takes four calls and advice.
const PASS_OF_CALLS: u64 = RUNS * (1 + 2 + 5);
/// Advice on each huge page that is looked at, and on what the driver has inflated if it arrives meanwhile.
const STEP_OF_CALLS: u64 = SURVEY_PAGES / PAGES_PER_HUGE_PAGE + RUNS;
const LARGEST_QUEUE: u64 = QUEUE_SIZES[3] as u64;

/// A balloon's events, metered.
pub struct Metered {
    /// The events.
    pub events: BalloonEvents,
    /// Its transport.
    pub transport: Arc<Transport<Balloon<Host>>>,
    /// What is measured.
    pub most: Arc<Most>,
}

impl MutEventSubscriber for Metered {
    fn init(&mut self, ops: &mut EventOps) {
        self.events.init(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let (before, work) = self.look();
        let queue = events.data() as usize;
        self.events.process(events, ops);
        let (after, worked) = self.look();
        let calls = if queue < QUEUE_SIZES.len() { &self.most.calls } else { &self.most.step_calls };
        calls.fetch_max(worked.calls - work.calls, Ordering::Relaxed);
        self.most.splits.fetch_max(worked.splits - work.splits, Ordering::Relaxed);
        if let Some(most) = self.most.pages.get(queue) {
            most.fetch_max(pages(&before, &after), Ordering::Relaxed);
        }
        let malformed = |report: &MemoryReport| report.protocol_errors.malformed_chains;
        self.most.chains.fetch_max(malformed(&after) - malformed(&before), Ordering::Relaxed);
    }
}

impl Metered {
    fn look(&self) -> (MemoryReport, Work) {
        self.transport.with_device(|balloon| (balloon.report(), balloon.device().backing().work()))
    }
}

/// Pages that a pass changed or counted. What only grows is exact; the balloon itself may also be emptied by a reset
/// between both reports, which counts as a pass that deflated all of it.
fn pages(before: &MemoryReport, after: &MemoryReport) -> u64 {
    let counted = |report: &MemoryReport| {
        let errors = &report.protocol_errors;
        errors.foreign_pages
            + errors.duplicate_pages
            + errors.not_ballooned_pages
            + errors.reported_ballooned_pages
            + (report.reported_total + report.reported_poisoned_total) / balloon::PAGE_BYTES
    };
    let ballooned = before.ballooned.abs_diff(after.ballooned) / balloon::PAGE_BYTES;
    counted(after) - counted(before) + ballooned
}
