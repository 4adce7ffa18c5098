//! Orders to reclaim: what the daemon takes, streams, regular steps; and what became of them.

use super::trim::{self, Lists};
use super::{CALM, Law};
use crate::PAGE_BYTES;
use crate::policy::arithmetic::{permille, scale};
use crate::policy::observation::{Reclaimed, Stopped};
use crate::policy::order::{Memory, Order, Orders};
use crate::policy::reason::Reason;
use crate::policy::sample::Capabilities;
use crate::policy::state::State;

/// Orders that are not answered yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    first: u64,
    last: u64,
    /// What they may bring. The kernel may evict more than was asked for; what is claimed beyond twice that is a lie.
    pages: u64,
    pub(super) ordered_pages: u64,
    since_ms: u64,
    /// Whether some of it was directed.
    is_directed: bool,
    /// Whether all of it is to recycle a stream.
    is_stream: bool,
    /// Whether all of it is verified to be cold.
    is_cold: bool,
}

impl Law {
    /// What a step would take now.
    pub(super) fn planned_bytes(&self, now_ms: u64, lists: Lists) -> u64 {
        let harm = self.harm_permille(now_ms);
        let is_pressed = self.lambda_permille(now_ms) > CALM;
        // What comes back tells that the guest is at work, and how far the next steps may go.
        let is_answered = self.harm.charged_millis(&self.tuning) >= self.tuning.answered_millis
            && harm < self.tuning.answered_permille;
        let gain = if is_pressed || is_answered { self.tuning.pressed_gain } else { self.tuning.gain };
        let is_quiet = self.pace.idle_ms(now_ms) >= self.tuning.window_ms && self.harm.refaults() == 0;
        self.above_floor(trim::step_bytes(lists, self.age_ms(now_ms), gain, is_quiet, harm, &self.tuning))
    }

    /// What steps like `step` give, of which those that take what is not verified may be rare.
    pub(super) fn yield_bytes_per_s(&self, now_ms: u64, lists: Lists, step: u64) -> u64 {
        let step_ms = self.tuning.step_ms;
        if lists.cold_bytes >= step {
            return scale(step, 1000, step_ms.max(1));
        }
        let every_ms = trim::unverified_every_ms(self.age_ms(now_ms), &self.tuning);
        let verified = self.planned_bytes(now_ms, lists.verified()).min(step);
        scale(step, 1000, every_ms.max(1)).max(scale(verified, 1000, step_ms.max(1)))
    }

    /// As much of `bytes` as the guest uses above what trimming leaves, and the host holds above what is promised. What the
    /// guest has free already goes without being taken, and how much of it has gone is chance: which blocks came free whole.
    fn above_floor(&self, bytes: u64) -> u64 {
        let held = self.held_bytes();
        let used = self.used_bytes().unwrap_or(held).saturating_sub(self.unseen_bytes);
        bytes.min(used.saturating_sub(self.left_bytes())).min(held.saturating_sub(self.promised_bytes()))
    }

    pub(super) fn trim(&mut self, now_ms: u64, orders: &mut Orders) {
        if now_ms >= self.next_step_ms {
            let step_ms = self.tuning.step_ms;
            let is_late = now_ms.saturating_sub(self.next_step_ms) >= step_ms;
            self.next_step_ms = if is_late { now_ms } else { self.next_step_ms }.saturating_add(step_ms);
            let listed =
                self.meter.last().map_or(0, |sample| sample.file_bytes().saturating_add(sample.anon_bytes()));
            let is_whole = self.has_agent() && self.guest_bytes() == self.size_bytes;
            self.harm.turn(self.age_ms(now_ms), listed.div_euclid(PAGE_BYTES), is_whole, &self.tuning);
            self.step_is_due = true;
        }
        if !self.has_agent() {
            return;
        }
        self.direct(now_ms, orders);
        if self.pending.is_some_and(|pending| now_ms.saturating_sub(pending.since_ms) > self.tuning.answer_ms)
        {
            self.pending = None;
            self.brought(now_ms, 0, Stopped::TimedOut);
        }
        if self.state != State::Trimming {
            self.step_is_due = false;
        } else if self.pending.is_none() && !self.recycle(now_ms, orders) && self.step_is_due {
            self.step_is_due = false;
            self.step(now_ms, orders);
        }
    }

    /// What the daemon wants back now, once for each envelope, and what of that was compressed instead of coming back.
    fn direct(&mut self, now_ms: u64, orders: &mut Orders) {
        let Some(envelope) = self.leased(now_ms).copied() else {
            self.short_bytes = 0;
            return;
        };
        let is_new = self.taken_sequence.replace(envelope.sequence) != Some(envelope.sequence);
        let directed_bytes = if is_new { envelope.take_bytes } else { 0 };
        let short_bytes = if self.pending.is_none() { std::mem::take(&mut self.short_bytes) } else { 0 };
        let take_bytes = directed_bytes.saturating_add(short_bytes);
        let bytes = self.above_floor(take_bytes);
        if bytes < self.tuning.least_bytes || matches!(self.state, State::Manual | State::Off | State::Safe) {
            return;
        }
        let reason = Reason::Directed {
            take_bytes,
            resident_bytes: self.held_bytes(),
            floor_bytes: self.left_bytes(),
        };
        self.reclaim(now_ms, bytes, self.memory(), None, reason, orders);
        self.pace.directed(reason);
        self.gather.directed(now_ms, self.tuning.gather_ms, reason);
    }

    /// Takes what a stream has brought, if there is one: once a sample, as what was taken shows in the next.
    fn recycle(&mut self, now_ms: u64, orders: &mut Orders) -> bool {
        if !std::mem::take(&mut self.is_fresh) {
            return false;
        }
        let excess = self.meter.last().and_then(|sample| self.stream.excess(sample, &self.tuning));
        let Some(excess) = excess else { return false };
        let most = scale(self.tuning.bytes_per_s, self.tuning.step_ms, 1000);
        let bytes = self.above_floor(excess.bytes.min(most));
        if bytes < self.tuning.least_bytes {
            return false;
        }
        let reason = Reason::Stream {
            grown_bytes: excess.grown_bytes,
            allowance_bytes: excess.allowance_bytes,
            refault_pages: self.harm.refaults(),
        };
        self.reclaim(now_ms, bytes, Memory::File, None, reason, orders);
        true
    }

    fn step(&mut self, now_ms: u64, orders: &mut Orders) {
        let age_ms = self.age_ms(now_ms);
        let lists = self.lists(age_ms);
        // By when steps are due, not by when they are made: a clock's jitter adds none.
        let every_ms = trim::unverified_every_ms(age_ms, &self.tuning);
        let is_any_due =
            self.unverified_ms.is_none_or(|before| self.next_step_ms.saturating_sub(before) >= every_ms);
        let planned = self.planned_bytes(now_ms, if is_any_due { lists } else { lists.verified() });
        let is_cold = lists.cold_bytes >= planned;
        // What is known to be unused goes, however little it is: steps add up to what is worth an order.
        let owed = if is_cold { self.owed_bytes.saturating_add(planned).min(lists.cold_bytes) } else { 0 };
        let bytes = self.above_floor(owed.max(planned));
        if bytes < self.tuning.least_bytes {
            self.owed_bytes = owed;
            return;
        }
        self.owed_bytes = 0;
        if !is_cold {
            self.unverified_ms = Some(self.next_step_ms);
        }
        let reason = Reason::Step {
            lru_bytes: lists.lru_bytes,
            cold_bytes: lists.cold_bytes,
            age_ms,
            stall_ppm: self.harm.stall_ppm(&self.tuning),
            refault_millis: self.harm.charged_millis(&self.tuning),
            harm_permille: self.harm_permille(now_ms),
            lambda_permille: self.lambda_permille(now_ms),
        };
        let older_than_ms = is_cold.then_some(age_ms);
        self.reclaim(now_ms, bytes, self.memory(), older_than_ms, reason, orders);
    }

    /// What can be reclaimed at all.
    fn memory(&self) -> Memory {
        if self.capabilities.is_some_and(|can| self.swaps(&can)) { Memory::Both } else { Memory::File }
    }

    /// Whether anonymous memory is asked for. What is compressed counts against no limit within the guest: where one is below
    /// its size, that would let the workload have all of its limit again beside it, more than the host allows.
    pub(super) fn swaps(&self, capabilities: &Capabilities) -> bool {
        capabilities.swap && self.settings.max_bytes >= self.size_bytes
    }

    fn reclaim(
        &mut self,
        now_ms: u64,
        bytes: u64,
        memory: Memory,
        older_than_ms: Option<u64>,
        reason: Reason,
        orders: &mut Orders,
    ) {
        self.number = self.number.saturating_add(1);
        let (number, ordered) = (self.number, bytes.div_euclid(PAGE_BYTES));
        self.unseen_bytes = self.unseen_bytes.saturating_add(bytes);
        let before = self.pending;
        self.pending = Some(Pending {
            first: before.map_or(number, |pending| pending.first),
            last: number,
            pages: ordered.saturating_mul(2).saturating_add(before.map_or(0, |pending| pending.pages)),
            ordered_pages: ordered.saturating_add(before.map_or(0, |pending| pending.ordered_pages)),
            since_ms: now_ms,
            is_directed: matches!(reason, Reason::Directed { .. })
                || before.is_some_and(|pending| pending.is_directed),
            is_stream: matches!(reason, Reason::Stream { .. })
                && before.is_none_or(|pending| pending.is_stream),
            is_cold: older_than_ms.is_some() && before.is_none_or(|pending| pending.is_cold),
        });
        orders.push(now_ms, Order::Reclaim { number, bytes, memory, older_than_ms }, reason);
    }

    pub(super) fn reclaimed(&mut self, now_ms: u64, reclaimed: &Reclaimed) {
        let Some(mut pending) = self.pending else { return };
        if reclaimed.number < pending.first || reclaimed.number > pending.last {
            return;
        }
        let pages = reclaimed.file_pages.saturating_add(reclaimed.anon_pages).min(pending.pages);
        if pending.is_stream {
            self.harm.recycled(pages);
            self.stream.recycled(pages, &self.tuning);
        } else {
            self.harm.evicted(pages, pending.is_cold);
        }
        if pending.is_directed {
            self.gather.freed(now_ms, self.tuning.gather_ms);
            let compressed = permille(reclaimed.anon_pages.min(pages), self.tuning.compressed_permille);
            self.short_bytes = self.short_bytes.saturating_add(compressed.saturating_mul(PAGE_BYTES));
        }
        pending.first = reclaimed.number.saturating_add(1);
        pending.pages = pending.pages.saturating_sub(pages);
        self.pending = (reclaimed.number < pending.last).then_some(pending);
        if self.pending.is_none() {
            let share = scale(pages, 1000, pending.ordered_pages.max(1));
            self.brought(now_ms, share, reclaimed.stopped);
        }
    }

    /// An order brought so many thousandths of what it was for. After several in a row that brought next to nothing
    /// there is a rest: scanning costs the guest too.
    fn brought(&mut self, now_ms: u64, share_permille: u64, stopped: Stopped) {
        let tuning = self.tuning;
        if share_permille >= tuning.fruitful_permille {
            self.fruitless = 0;
            return;
        }
        self.fruitless = self.fruitless.saturating_add(1);
        if self.fruitless < tuning.fruitless_orders {
            return;
        }
        let orders = std::mem::take(&mut self.fruitless);
        // A kernel that does not do what it says will not tomorrow; memory in use may be idle in a minute.
        let broken = matches!(stopped, Stopped::Unmoved | Stopped::Failed | Stopped::TimedOut);
        let first_ms = if broken { tuning.rest_ms } else { tuning.short_rest_ms };
        let longest_ms = if broken { tuning.longest_rest_ms } else { tuning.rest_ms };
        self.rest.begin(now_ms, first_ms, longest_ms, |_, until_ms| Reason::NoYield { orders, until_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::law::tests::Guest;
    use crate::policy::{Observation, Settings};

    #[test]
    fn nothing_is_compressed_beside_a_limit_within_the_guest() {
        let mut guest = Guest::new();
        guest.tell(&Observation::Capabilities(Capabilities {
            psi: true,
            memory_reclaim: true,
            swap: true,
            ..Capabilities::default()
        }));
        (guest.sample.inactive_anon_bytes, guest.sample.swap_total_bytes) = (300 << 20, 500 << 20);
        guest.sample.swap_free_bytes = 500 << 20;
        guest.seconds(120);
        let size_bytes = guest.law.size_bytes;
        for (max_bytes, wanted) in [(size_bytes, Memory::Both), (size_bytes - 1, Memory::File)] {
            guest.tell(&Observation::Settings(Settings::new(max_bytes)));
            let ordered: Vec<Memory> = guest
                .seconds(60)
                .iter()
                .filter_map(|decision| match decision.order {
                    Order::Reclaim { memory, .. } => Some(memory),
                    _ => None,
                })
                .collect();
            assert!(!ordered.is_empty() && ordered.iter().all(|memory| *memory == wanted), "{ordered:?}");
            let lists = guest.law.lists(guest.law.age_ms(guest.now_ms));
            assert_eq!(lists.lru_bytes >= 300 << 20, wanted == Memory::Both, "{lists:?}");
        }
    }
}
