//! One tick of arbitration.

use super::grants;
use super::lambda::{self, CALM};
use super::take::{Giver, take};
use super::{Allotment, FleetTuning, Host, Reading, Verdict};
use crate::policy::arithmetic::permille;
use crate::zone::{Id, Kind, Preorder, Protection, Tree};

/// Ticks until what was directed must show in the charge: reclaim, the two seconds of free page reporting, a report.
const LAG_TICKS: u64 = 4;

/// One node in this tick.
#[derive(Clone, Copy, Debug)]
struct Row {
    id: Id,
    kind: Kind,
    charge_bytes: u64,
    goal_bytes: Option<u64>,
    weight: u32,
    /// Greatest pressure from here upwards, and whose.
    lambda: u64,
    pressed_by: Option<Id>,
    /// First row behind those in this node.
    end: usize,
    /// Number of its reading.
    guest: Option<usize>,
    /// What it is to give in this tick.
    take_bytes: u64,
    /// What was directed earlier and does not show yet.
    outstanding_bytes: u64,
    /// What its law gives back until the daemon's patience ends.
    yield_bytes: u64,
}

/// What is kept of a node from tick to tick, by its slot.
#[derive(Clone, Copy, Debug)]
struct Memory {
    id: Id,
    lambda: u64,
    imposed_bytes: Option<u64>,
    target_bytes: Option<u64>,
    directed_bytes: u64,
    directed_charge_bytes: u64,
    directed_tick: u64,
}

/// Arbitration of one host.
#[derive(Clone, Debug)]
pub struct Fleet {
    tuning: FleetTuning,
    tick: u64,
    order: Preorder,
    rows: Vec<Row>,
    memories: Vec<Option<Memory>>,
    protection: Protection,
    seen_from: Protection,
    givers: Vec<Giver>,
    wanted: Vec<u64>,
    granted: Vec<u64>,
}

impl Fleet {
    /// Of a host on which nothing is known.
    #[must_use]
    pub fn new(tuning: FleetTuning) -> Self {
        Self {
            tuning,
            tick: 0,
            order: Preorder::default(),
            rows: Vec::new(),
            memories: Vec::new(),
            protection: Protection::default(),
            seen_from: Protection::default(),
            givers: Vec::new(),
            wanted: Vec::new(),
            granted: Vec::new(),
        }
    }

    /// Arbitrates anew. `allotments` becomes one for each of `readings`, in their order; a reading of a node that
    /// is no microVM of the tree gets none.
    pub fn tick(
        &mut self,
        tree: &Tree,
        host: &Host,
        readings: &[Reading],
        allotments: &mut Vec<Allotment>,
    ) -> Verdict {
        self.tick = self.tick.saturating_add(1);
        self.protection.compute(tree, tree.root(), true);
        let deficit_bytes = self.survey(tree, host, readings);
        self.press(host);
        let unmet_bytes = self.direct(tree, readings, deficit_bytes);
        let short = is_below(host, self.tuning.short_permille) || deficit_bytes > 0;
        let critical = is_below(host, self.tuning.critical_permille);
        self.allot(tree, host, readings, short, critical, allotments);
        Verdict {
            lambda_permille: self.rows.first().map_or(CALM, |row| row.lambda),
            deficit_bytes,
            directed_bytes: allotments.iter().fold(0, |sum, one| sum.saturating_add(one.take_bytes)),
            unmet_bytes,
            short,
            refuse: unmet_bytes > 0 || is_below(host, self.tuning.refuse_permille),
        }
    }

    /// Takes in the tree. Returns what the pool holds too much.
    fn survey(&mut self, tree: &Tree, host: &Host, readings: &[Reading]) -> u64 {
        let Self { order, rows, memories, tick, .. } = self;
        rows.clear();
        order.walk(tree, tree.root(), |id, node| {
            let limits = node.limits();
            let slot = id.index();
            if memories.len() <= slot {
                memories.resize(slot.saturating_add(1), None);
            }
            let known = memories.get_mut(slot);
            let memory = known.map(|known| match known {
                Some(memory) if memory.id == id => *memory,
                _ => *known.insert(Memory::new(id)),
            });
            let memory = memory.unwrap_or(Memory::new(id));
            let goal_bytes = match node.kind() {
                Kind::Group | Kind::Vm => [limits.high, limits.max].into_iter().flatten().min(),
                _ => None,
            };
            rows.push(Row {
                id,
                kind: node.kind(),
                charge_bytes: node.charge_bytes(),
                goal_bytes,
                weight: limits.weight,
                lambda: memory.lambda,
                pressed_by: None,
                end: rows.len().saturating_add(1),
                guest: None,
                take_bytes: 0,
                outstanding_bytes: memory.outstanding(node.charge_bytes(), *tick),
                yield_bytes: 0,
            });
        });
        for (index, reading) in readings.iter().enumerate() {
            let Some(row) = order.position(reading.vm).and_then(|position| rows.get_mut(position)) else {
                continue;
            };
            if row.kind == Kind::Vm && row.id == reading.vm {
                row.guest = Some(index);
                if reading.follows {
                    row.yield_bytes = reading.yield_bytes_per_s.saturating_mul(self.tuning.patience_s);
                }
            }
        }
        for position in (0..rows.len()).rev() {
            let Some(row) = rows.get(position).copied() else { continue };
            if let Some(parent) = order.parent(position).and_then(|parent| rows.get_mut(parent)) {
                parent.end = parent.end.max(row.end);
                parent.outstanding_bytes = parent.outstanding_bytes.saturating_add(row.outstanding_bytes);
                parent.yield_bytes = parent.yield_bytes.saturating_add(row.yield_bytes);
            }
        }
        let capacity_bytes = tree.pool().capacity_bytes;
        let Some(root) = rows.first_mut() else { return 0 };
        let lacking = if is_below(host, self.tuning.short_permille) {
            permille(host.total_bytes, self.tuning.enough_permille).saturating_sub(host.available_bytes)
        } else {
            0
        };
        let deficit = lacking.max(root.charge_bytes.saturating_sub(capacity_bytes)).min(root.charge_bytes);
        root.goal_bytes =
            Some(if deficit > 0 { root.charge_bytes.saturating_sub(deficit) } else { capacity_bytes });
        deficit
    }

    /// Pressure of each node, and of the path above it.
    fn press(&mut self, host: &Host) {
        // Between short and enough the pressure stays.
        let recovering = is_below(host, self.tuning.enough_permille);
        for position in 0..self.rows.len() {
            let above = self.order.parent(position).and_then(|parent| self.rows.get(parent)).copied();
            let Some(row) = self.rows.get_mut(position) else { continue };
            if let Some(goal) = row.goal_bytes {
                let goal = if position == 0 && recovering { goal.min(row.charge_bytes) } else { goal };
                row.lambda = lambda::next(row.lambda, row.charge_bytes, goal, &self.tuning);
            } else {
                row.lambda = CALM;
            }
            if let Some(Some(memory)) = self.memories.get_mut(row.id.index()) {
                memory.lambda = row.lambda;
            }
            row.pressed_by = (row.lambda > CALM).then_some(row.id);
            if let Some(above) = above.filter(|above| above.lambda > row.lambda) {
                (row.lambda, row.pressed_by) = (above.lambda, above.pressed_by);
            }
        }
    }

    /// What is needed faster than laws give it. Returns what the pool needs and nobody can give.
    fn direct(&mut self, tree: &Tree, readings: &[Reading], deficit_bytes: u64) -> u64 {
        let mut unmet = 0;
        for position in (0..self.rows.len()).rev() {
            let Some(row) = self.rows.get(position).copied() else { continue };
            let goal = row.goal_bytes.unwrap_or(u64::MAX);
            let excess = if position == 0 { deficit_bytes } else { row.charge_bytes.saturating_sub(goal) };
            let within = self.rows.get(position..row.end).unwrap_or_default();
            let taken = within.iter().fold(0u64, |sum, row| sum.saturating_add(row.take_bytes));
            let coming = taken.saturating_add(row.outstanding_bytes).saturating_add(row.yield_bytes);
            let need = excess.saturating_sub(coming);
            if need == 0 {
                continue;
            }
            self.gather(tree, readings, position, row.end);
            let left = take(need, &mut self.givers);
            for giver in &self.givers {
                if let Some(row) = self.rows.get_mut(giver.index) {
                    row.take_bytes = row.take_bytes.saturating_add(giver.take_bytes);
                }
            }
            if position == 0 {
                unmet = left;
            }
        }
        unmet
    }

    /// Those who can give something to the node at `position`.
    fn gather(&mut self, tree: &Tree, readings: &[Reading], position: usize, end: usize) {
        let Self { rows, givers, protection, seen_from, .. } = self;
        givers.clear();
        let Some(node) = rows.get(position) else { return };
        let (is_vm, is_pool) = (node.kind == Kind::Vm, position == 0);
        if !is_vm && !is_pool {
            seen_from.compute(tree, node.id, true);
        }
        let protection = if is_pool { &*protection } else { &*seen_from };
        for (index, row) in rows.iter().enumerate().take(end).skip(position) {
            if row.kind != Kind::Vm {
                continue;
            }
            let Some(reading) = row.guest.and_then(|guest| readings.get(guest)) else { continue };
            // Of its own excess a microVM protects nothing.
            let effective = if is_vm { None } else { protection.get(row.id) }.unwrap_or_default();
            givers.push(Giver {
                index,
                charge_bytes: row
                    .charge_bytes
                    .saturating_sub(row.take_bytes)
                    .saturating_sub(row.outstanding_bytes),
                protected: [effective.low.max(effective.min), effective.min],
                weight: row.weight,
                cold: reading.cold,
                take_bytes: 0,
            });
        }
    }

    fn allot(
        &mut self,
        tree: &Tree,
        host: &Host,
        readings: &[Reading],
        short: bool,
        critical: bool,
        allotments: &mut Vec<Allotment>,
    ) {
        allotments.clear();
        for reading in readings {
            let Some(row) =
                self.order.position(reading.vm).and_then(|position| self.rows.get(position)).copied()
            else {
                continue;
            };
            if row.guest.is_none() {
                continue;
            }
            let floor_bytes = self.protection.get(row.id).unwrap_or_default().min;
            let lambda_permille = lambda::weighted(row.lambda, row.weight);
            let take_bytes = if row.take_bytes >= self.tuning.least_take_bytes { row.take_bytes } else { 0 };
            let max_bytes = tree.binding_max(row.id);
            let at_cap = row.lambda >= self.tuning.cap_permille;
            let balloon = take_bytes > 0 && (!reading.follows || critical || at_cap);
            let imposed = self.memories.get_mut(row.id.index()).and_then(Option::as_mut).and_then(|memory| {
                if take_bytes > 0 {
                    memory.directed(take_bytes, row.charge_bytes, self.tick);
                }
                memory.impose(
                    balloon.then(|| row.charge_bytes.saturating_sub(take_bytes).max(floor_bytes)),
                    short || row.lambda > CALM,
                    max_bytes,
                    &self.tuning,
                )
            });
            let highs = tree.path(row.id).filter_map(|id| tree.get(id)?.limits().high);
            let high_bytes = highs.chain(imposed.map(|bytes| bytes.max(floor_bytes))).min();
            allotments.push(Allotment {
                vm: row.id,
                lambda_permille,
                max_bytes,
                high_bytes,
                floor_bytes,
                grant_bytes: 0,
                take_bytes,
                pressed_by: row.pressed_by.filter(|_| row.lambda > CALM),
            });
        }
        self.grant(host, allotments, short);
    }

    /// Grants, and while the host is short no target above what it was.
    fn grant(&mut self, host: &Host, allotments: &mut [Allotment], short: bool) {
        self.wanted.clear();
        for one in allotments.iter() {
            let high = one.high_bytes.unwrap_or(one.max_bytes).min(one.max_bytes);
            let wanted = permille(high, self.tuning.grant_permille).max(self.tuning.grant_bytes);
            self.wanted.push(wanted.min(one.max_bytes.saturating_sub(high)));
        }
        let kept = permille(host.total_bytes, self.tuning.critical_permille);
        let reserve = host.available_bytes.saturating_sub(kept);
        grants::divide(reserve, &self.wanted, &mut self.granted);
        for (one, granted) in allotments.iter_mut().zip(&self.granted) {
            one.grant_bytes = *granted;
            let Some(memory) = self.memories.get_mut(one.vm.index()).and_then(Option::as_mut) else {
                continue;
            };
            if let Some(before) = memory.target_bytes.filter(|before| short && one.target_bytes() > *before) {
                one.high_bytes = Some(one.high_bytes.unwrap_or(one.max_bytes).min(before));
                one.grant_bytes =
                    one.grant_bytes.min(before.saturating_sub(one.high_bytes.unwrap_or(before)));
            }
            memory.target_bytes = Some(one.target_bytes());
        }
    }
}

impl Memory {
    fn new(id: Id) -> Self {
        Self {
            id,
            lambda: CALM,
            imposed_bytes: None,
            target_bytes: None,
            directed_bytes: 0,
            directed_charge_bytes: 0,
            directed_tick: 0,
        }
    }

    /// What was directed and does not show in the charge yet, as long as it may still come.
    fn outstanding(&self, charge_bytes: u64, tick: u64) -> u64 {
        if tick.saturating_sub(self.directed_tick) > LAG_TICKS {
            return 0;
        }
        self.directed_bytes.saturating_sub(self.directed_charge_bytes.saturating_sub(charge_bytes))
    }

    fn directed(&mut self, bytes: u64, charge_bytes: u64, tick: u64) {
        self.directed_bytes = self.outstanding(charge_bytes, tick).saturating_add(bytes);
        (self.directed_charge_bytes, self.directed_tick) = (charge_bytes, tick);
    }

    /// The ceiling that arbitration imposes: falls at once, rises slowly and only while nothing presses.
    fn impose(
        &mut self,
        lower: Option<u64>,
        pressed: bool,
        max_bytes: u64,
        tuning: &FleetTuning,
    ) -> Option<u64> {
        if let Some(bytes) = lower {
            self.imposed_bytes = Some(self.imposed_bytes.unwrap_or(u64::MAX).min(bytes));
        } else if !pressed {
            self.imposed_bytes = self
                .imposed_bytes
                .map(|bytes| bytes.saturating_add(permille(bytes, tuning.release_permille)));
        }
        self.imposed_bytes = self.imposed_bytes.filter(|bytes| *bytes < max_bytes);
        self.imposed_bytes
    }
}

/// Whether so little of the host is available. Of a host that is not known nothing is said.
fn is_below(host: &Host, thousandths: u64) -> bool {
    host.available_permille().is_some_and(|available| available < thousandths)
}
