//! What is needed faster than laws give it: of whom, and what of it the host swaps out.

use super::Reading;
use super::take::{Giver, take};
use super::tick::Fleet;
use crate::policy::arithmetic::permille;
use crate::zone::Tree;

impl Fleet {
    /// What is needed faster than laws give it; of what the pool needs the host swaps out `swap_bytes`. Returns what the
    /// pool needs and nobody can give.
    pub(super) fn direct(
        &mut self,
        tree: &Tree,
        readings: &[Reading],
        deficit_bytes: u64,
        swap_bytes: u64,
    ) -> u64 {
        let mut unmet = 0;
        for place in (0..self.rows.len()).rev() {
            let Some(row) = self.rows.get(place).copied() else { continue };
            let is_pool = place == 0;
            let excess =
                if is_pool { deficit_bytes } else { row.charge_bytes.saturating_sub(row.goal_bytes) };
            let memory = self.memories.get_mut(row.id.index()).and_then(Option::as_mut);
            let is_overdue = memory.is_some_and(|memory| memory.holds_too_much(excess > 0));
            if excess == 0 {
                continue;
            }
            // As far below the pool's goal as pressure needs to fall: some of what is taken is in use and comes back at once.
            let spare = if is_pool { permille(row.goal_bytes, self.tuning.slack_permille) } else { 0 };
            let wanted = excess.saturating_add(spare).min(row.charge_bytes);
            let within = self.rows.get(place..row.end).unwrap_or_default();
            let taken = within.iter().fold(0u64, |sum, row| sum.saturating_add(row.take_bytes));
            // What laws say they give back is waited for once, and then what they are seen to.
            let yielded = if is_overdue { row.shown_yield_bytes } else { row.yield_bytes };
            let coming = taken.saturating_add(row.outstanding_bytes).saturating_add(yielded);
            let mut need = wanted.saturating_sub(coming);
            if need == 0 {
                continue;
            }
            if is_pool && swap_bytes > 0 {
                let lacking = excess.saturating_sub(coming);
                let swapped = self.page_out(tree, readings, lacking.min(swap_bytes));
                need = need.saturating_sub(swapped);
            }
            self.gather(tree, readings, place, row.end);
            let left = take(need, &mut self.givers);
            for giver in &self.givers {
                if let Some(row) = self.rows.get_mut(giver.index) {
                    row.take_bytes = row.take_bytes.saturating_add(giver.take_bytes);
                }
            }
            if is_pool {
                unmet = left.saturating_sub(spare);
            }
        }
        unmet
    }

    /// Divides `bytes` among those of whom the host can swap something out. Returns what that comes to.
    fn page_out(&mut self, tree: &Tree, readings: &[Reading], bytes: u64) -> u64 {
        self.gather(tree, readings, 0, self.rows.len());
        let Self { rows, givers, .. } = self;
        let guest = |giver: &Giver| readings.get(rows.get(giver.index)?.guest?);
        givers.retain(|giver| guest(giver).is_some_and(|reading| reading.pages_out));
        let left = take(bytes, givers);
        for giver in givers {
            if let Some(row) = rows.get_mut(giver.index) {
                row.page_out_bytes = giver.take_bytes;
            }
        }
        bytes.saturating_sub(left)
    }

    /// Those who can give something to the node of the row `place`.
    fn gather(&mut self, tree: &Tree, readings: &[Reading], place: usize, end: usize) {
        let Self { rows, givers, protection, seen_from, .. } = self;
        givers.clear();
        let Some(node) = rows.get(place) else { return };
        let (is_vm, is_pool) = (node.is_vm, place == 0);
        if !is_vm && !is_pool {
            seen_from.compute(tree, node.id, true);
        }
        let protection = if is_pool { &*protection } else { &*seen_from };
        for (index, row) in rows.iter().enumerate().take(end).skip(place) {
            let Some(reading) = row.guest.and_then(|guest| readings.get(guest)) else { continue };
            // Of its own excess a microVM protects nothing.
            let effective = if is_vm { None } else { protection.get(row.id) }.unwrap_or_default();
            givers.push(Giver {
                index,
                charge_bytes: row
                    .charge_bytes
                    .saturating_sub(row.layer_bytes)
                    .saturating_sub(row.take_bytes)
                    .saturating_sub(row.page_out_bytes)
                    .saturating_sub(row.outstanding_bytes),
                protected: [effective.low.max(effective.min), effective.min],
                weight: row.weight,
                cold: reading.cold,
                take_bytes: 0,
            });
        }
    }
}
