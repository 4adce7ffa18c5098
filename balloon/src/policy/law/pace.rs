//! What follows from whether the guest is busy: how often it samples, ages its lists, and how finely it reports.

use super::Law;
use crate::policy::Tuning;
use crate::policy::arithmetic::{permille, scale};
use crate::policy::meter::Delta;
use crate::policy::observation::Mode;
use crate::policy::order::{Order, Orders};
use crate::policy::reason::Reason;
use crate::policy::state::State;

/// Busy or idle, and what was ordered for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    idle_since_ms: Option<u64>,
    cpu_permille: u64,
    sample_ms: u64,
    aged_ms: u64,
    fine_since_ms: Option<u64>,
    /// The order of blocks that was ordered last.
    order: Option<u8>,
    /// When reporting was last fine, and how much was free then.
    last_fine_ms: u64,
    last_free_bytes: u64,
    fine: Wish,
    /// What is directed is to come as it is freed, for this reason.
    directed: Option<Reason>,
    /// What the kernel's start left free in small blocks has not been reported yet.
    is_new: bool,
}

/// Fine reporting that is wanted beside what is due anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    None,
    Asked,
    /// It began then.
    Done {
        at_ms: u64,
    },
}

impl Pace {
    pub(super) fn new(tuning: &Tuning) -> Self {
        Self {
            idle_since_ms: None,
            cpu_permille: 0,
            sample_ms: tuning.busy_pace_ms,
            aged_ms: 0,
            fine_since_ms: None,
            order: None,
            last_fine_ms: 0,
            last_free_bytes: 0,
            fine: Wish::None,
            directed: None,
            is_new: true,
        }
    }

    /// Time between two samples.
    pub(super) fn sample_ms(&self) -> u64 {
        self.sample_ms
    }

    /// For how long the guest has been idle.
    pub(super) fn idle_ms(&self, now_ms: u64) -> u64 {
        self.idle_since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }

    /// What was freed did not come: wants it compacted and reported finely soon. Whether that has been done, so long ago that
    /// what was reported is with the host.
    pub(super) fn was_fine(&mut self, now_ms: u64, tuning: &Tuning) -> bool {
        if self.fine == Wish::None {
            self.fine = Wish::Asked;
        }
        matches!(self.fine, Wish::Done { at_ms } if now_ms.saturating_sub(at_ms) >= tuning.gain_ms)
    }

    /// What is directed must come at once: what is compressed leaves hardly a block of the kernel's own choice free as a whole.
    pub(super) fn directed(&mut self, reason: Reason) {
        self.directed = Some(reason);
    }

    /// Nobody waits for it any more.
    pub(super) fn forget_fine(&mut self) {
        self.fine = Wish::None;
    }

    pub(super) fn passed(&mut self, now_ms: u64, delta: &Delta, tuning: &Tuning) {
        self.cpu_permille = scale(delta.cpu_busy_us, 1000, delta.elapsed_us);
        let is_idle = self.cpu_permille < tuning.idle_cpu_permille;
        self.idle_since_ms = is_idle.then(|| self.idle_since_ms.unwrap_or(now_ms));
    }
}

impl Law {
    pub(super) fn keep_pace(&mut self, now_ms: u64, orders: &mut Orders) {
        if !self.has_agent() || self.settings.mode == Mode::Off {
            return;
        }
        let free_bytes = self.meter.last().map_or(0, |sample| sample.free_bytes);
        let idle_ms = self.pace.idle_ms(now_ms);
        let idle = Reason::Idle { idle_ms, free_bytes };
        let busy = Reason::Busy { cpu_permille: self.pace.cpu_permille };
        let waits = self.gather.waits(now_ms);
        let is_idle = idle_ms >= self.tuning.window_ms && waits.is_none();
        let sample_ms = if is_idle { self.tuning.idle_pace_ms } else { self.tuning.busy_pace_ms };
        if sample_ms != self.pace.sample_ms {
            self.pace.sample_ms = sample_ms;
            orders.push(
                now_ms,
                Order::Pace { sample_ms },
                if is_idle { idle } else { waits.unwrap_or(busy) },
            );
        }
        self.age_lists(now_ms, orders);
        self.report(now_ms, idle_ms, free_bytes, if idle_ms > 0 { idle } else { busy }, orders);
    }

    /// Twice in a working-set age, so that what lies in the oldest generation was unused for one. In an idle guest, too: with
    /// one pass only, what is used every other age is known to be cold when it is used again.
    fn age_lists(&mut self, now_ms: u64, orders: &mut Orders) {
        if self.state != State::Trimming || !self.capabilities.is_some_and(|capabilities| capabilities.ages) {
            return;
        }
        let age_ms = self.age_ms(now_ms);
        let since_ms = now_ms.saturating_sub(self.pace.aged_ms);
        if since_ms >= age_ms.div_euclid(2).max(self.tuning.least_aging_ms) {
            self.pace.aged_ms = now_ms;
            orders.push(now_ms, Order::Age, Reason::Aging { age_ms, since_ms });
        }
    }

    /// Finer for some seconds at the start, of what the guest's kernel freed when it had booted and nothing has scattered
    /// yet. Then coarse while busy. Fine, after compaction, for some seconds when the guest has been idle for half an age and
    /// has more free memory than the last time, when the host holds much that the guest has free, or when what was freed did
    /// not come; and, without compaction, while memory is directed.
    fn report(&mut self, now_ms: u64, idle_ms: u64, free_bytes: u64, reason: Reason, orders: &mut Orders) {
        let tuning = self.tuning;
        let Some(capabilities) = self.capabilities.filter(|can| can.reporting_order) else { return };
        if let Some(directed) = self.pace.directed.take() {
            self.pace.fine_since_ms = Some(now_ms);
            (self.pace.last_fine_ms, self.pace.last_free_bytes) = (now_ms, free_bytes);
            if self.pace.order != Some(tuning.fine_order) {
                self.order_reporting(now_ms, tuning.fine_order, false, directed, orders);
            }
            return;
        }
        if let Some(since_ms) = self.pace.fine_since_ms {
            if now_ms.saturating_sub(since_ms) >= tuning.fine_ms {
                self.pace.fine_since_ms = None;
                self.order_reporting(now_ms, tuning.coarse_order, false, reason, orders);
            }
            return;
        }
        if std::mem::replace(&mut self.pace.is_new, false) {
            self.pace.fine_since_ms = Some(now_ms);
            let started = Reason::Started { until_ms: self.start_until_ms };
            self.order_reporting(now_ms, tuning.start_order, false, started, orders);
            return;
        }
        let age_ms = self.age_ms(now_ms);
        let more = free_bytes.saturating_sub(self.pace.last_free_bytes) >= tuning.gain_bytes;
        let since_ms = now_ms.saturating_sub(self.pace.last_fine_ms);
        let is_time = idle_ms >= age_ms.div_euclid(2) && since_ms >= age_ms && more;
        let held = self.host.resident_bytes.unwrap_or(0);
        let kept = held.saturating_sub(self.used_bytes().unwrap_or(held));
        let is_much = kept >= permille(held, tuning.kept_permille).max(tuning.kept_bytes)
            && since_ms >= age_ms.div_euclid(2)
            && self.state == State::Trimming;
        let is_affordable = idle_ms > 0 || since_ms >= tuning.busy_fine_ms && self.state == State::Trimming;
        let is_wanted = self.pace.fine == Wish::Asked && is_affordable;
        if (is_time || is_much || is_wanted) && now_ms >= self.start_until_ms {
            if self.pace.fine == Wish::Asked {
                self.pace.fine = Wish::Done { at_ms: now_ms };
            }
            self.pace.fine_since_ms = Some(now_ms);
            (self.pace.last_fine_ms, self.pace.last_free_bytes) = (now_ms, free_bytes);
            let compact = capabilities.compaction;
            self.order_reporting(now_ms, tuning.fine_order, compact, reason, orders);
        }
        self.pace.last_free_bytes = self.pace.last_free_bytes.min(free_bytes);
    }

    fn order_reporting(
        &mut self,
        now_ms: u64,
        order: u8,
        compact: bool,
        reason: Reason,
        orders: &mut Orders,
    ) {
        self.pace.order = Some(order);
        orders.push(now_ms, Order::Reporting { order, compact }, reason);
    }
}
