//! One tick of arbitration.

use super::grants;
use super::lambda::{self, CALM};
use super::memory::{CRITICAL_LAG_TICKS, LAG_TICKS, Memory, remembered};
use super::shortage::Shortage;
use super::take::Giver;
use super::{Allotment, FleetTuning, Host, Kill, Pressure, Reading, Verdict};
use crate::policy::Tuning;
use crate::policy::arithmetic::permille;
use crate::zone::{Id, Kind, Protection, Tree};

/// No limit.
const NONE: u64 = u64::MAX;

/// One node in this tick. What lies in a microVM is its own affair and has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: Id,
    pub(super) is_vm: bool,
    /// Row of what it lies in.
    pub(super) parent: Option<usize>,
    pub(super) charge_bytes: u64,
    pub(super) goal_bytes: u64,
    /// The least `max` and `high` from here upwards.
    pub(super) max_bytes: u64,
    pub(super) high_bytes: u64,
    pub(super) weight: u32,
    /// Greatest pressure from here upwards, and whose.
    pub(super) lambda: u64,
    pub(super) pressed_by: Option<Id>,
    /// First row behind those in this node.
    pub(super) end: usize,
    /// Number of its reading.
    pub(super) guest: Option<usize>,
    /// What it is to give in this tick.
    pub(super) take_bytes: u64,
    /// What of it the host is to swap out.
    pub(super) page_out_bytes: u64,
    /// What was directed earlier and does not show yet.
    pub(super) outstanding_bytes: u64,
    /// What its charge fell by lately.
    fell_bytes: u64,
    /// What its law says it gives back until the daemon's patience ends, and what of that is no more than came lately.
    pub(super) yield_bytes: u64,
    pub(super) shown_yield_bytes: u64,
    /// What it alone is charged of layers: on top of its limits, as in its cgroup, and no guest can give it back.
    pub(super) layer_bytes: u64,
}

/// Arbitration of one host.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub(super) tuning: FleetTuning,
    tick: u64,
    /// What the host had available in the last two ticks, the older one first.
    available_bytes: [u64; 2],
    /// Groups and microVMs, every one after what it lies in.
    pub(super) rows: Vec<Row>,
    /// Of each node of the tree in its order, which row it has.
    places: Vec<Option<usize>>,
    pub(super) memories: Vec<Option<Memory>>,
    shortage: Shortage,
    pub(super) protection: Protection,
    pub(super) seen_from: Protection,
    pub(super) givers: Vec<Giver>,
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
            available_bytes: [0; 2],
            rows: Vec::new(),
            places: Vec::new(),
            memories: Vec::new(),
            shortage: Shortage::default(),
            protection: Protection::default(),
            seen_from: Protection::default(),
            givers: Vec::new(),
            wanted: Vec::new(),
            granted: Vec::new(),
        }
    }

    /// Other constants from now on; what is remembered of nodes stays.
    pub fn tune(&mut self, tuning: FleetTuning) {
        self.tuning = tuning;
    }

    /// Whom the last [tick](Self::tick) has killed cannot be: the next one chooses another.
    pub fn spare(&mut self, vm: Id) {
        self.shortage.spare(vm);
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
        let critical = host.is_below(self.tuning.critical_permille);
        let refuse = host.is_below(self.tuning.refuse_permille);
        let lag_ticks = if critical { CRITICAL_LAG_TICKS } else { LAG_TICKS };
        let falling_bytes = self.falling_bytes(host);
        let deficit_bytes = self.survey(tree, &host.less(falling_bytes), readings, lag_ticks);
        // Nothing that cannot be undone happens for what is only expected.
        let is_expected =
            !host.is_below(self.tuning.short_permille) && !self.exceeds(tree.pool().capacity_bytes);
        self.shortage.next(tree, if is_expected { 0 } else { deficit_bytes }, refuse);
        self.press(host);
        let swap_bytes = if self.shortage.is_overdue(lag_ticks) { host.swap_free_bytes } else { 0 };
        let unmet_bytes = self.direct(tree, readings, deficit_bytes, swap_bytes);
        let unmet_bytes = if is_expected { 0 } else { unmet_bytes };
        let short = host.is_below(self.tuning.short_permille) || deficit_bytes > 0;
        self.allot(host, readings, short, critical, allotments);
        Verdict {
            lambda_permille: self.rows.first().map_or(CALM, |row| row.lambda),
            deficit_bytes,
            falling_bytes,
            directed_bytes: allotments.iter().fold(0, |sum, one| sum.saturating_add(one.take_bytes)),
            page_out_bytes: allotments.iter().fold(0, |sum, one| sum.saturating_add(one.page_out_bytes)),
            unmet_bytes,
            short,
            refuse: unmet_bytes > 0 || refuse,
            kill: self.kill(),
        }
    }

    /// What will be gone of what is available before anything directed has come, if it goes on as in the last two ticks
    /// together: starts take memory by fits.
    fn falling_bytes(&mut self, host: &Host) -> u64 {
        let [before_last, last] = self.available_bytes;
        self.available_bytes = [last, host.available_bytes];
        let fell_bytes = before_last.saturating_sub(host.available_bytes);
        let is_near = host.is_below(self.tuning.enough_permille.saturating_mul(2));
        if is_near { fell_bytes.saturating_mul(self.tuning.lead_ticks).div_euclid(2) } else { 0 }
    }

    /// Whether the pool holds more than that.
    fn exceeds(&self, capacity_bytes: u64) -> bool {
        self.rows.first().is_some_and(|root| root.charge_bytes > capacity_bytes)
    }

    /// Who is killed, if nothing else helps and that is wanted.
    fn kill(&mut self) -> Option<Kill> {
        if !self.tuning.kills || !self.shortage.is_hopeless() {
            return None;
        }
        let Self { rows, protection, shortage, .. } = self;
        shortage.choose(rows.iter().filter(|row| row.guest.is_some()).map(|row| {
            let effective = protection.get(row.id).unwrap_or_default();
            let (charge_bytes, protected_bytes) = (row.charge_bytes, effective.min);
            (Kill { vm: row.id, charge_bytes, protected_bytes, weight: row.weight }, effective.low)
        }))
    }

    /// Those that press, as of the last tick, in the order of the tree.
    pub fn pressures(&self) -> impl Iterator<Item = Pressure> + '_ {
        self.rows.iter().filter_map(|row| {
            let own = self.memories.get(row.id.index())?.as_ref().filter(|memory| memory.lambda > CALM)?;
            Some(Pressure {
                node: row.id,
                lambda_permille: own.lambda,
                charge_bytes: row.charge_bytes,
                goal_bytes: (row.goal_bytes != NONE).then_some(row.goal_bytes)?,
            })
        })
    }

    /// Takes in the tree. Returns what the pool holds too much on a host as `coming` will be.
    fn survey(&mut self, tree: &Tree, coming: &Host, readings: &[Reading], lag_ticks: usize) -> u64 {
        let Self { protection, rows, places, memories, .. } = self;
        rows.clear();
        places.clear();
        protection.compute_showing(tree, tree.root(), true, |id, node| {
            let is_arbitrated = matches!(node.kind(), Kind::Pool | Kind::Group | Kind::Vm);
            places.push(is_arbitrated.then_some(rows.len()));
            if !is_arbitrated {
                let vm = rows.last_mut().filter(|row| row.is_vm && tree.parent(id) == Some(row.id));
                if let (Kind::Shared, Some(vm)) = (node.kind(), vm) {
                    vm.layer_bytes = vm.layer_bytes.saturating_add(node.charge_bytes());
                    vm.goal_bytes = vm.goal_bytes.saturating_add(node.charge_bytes());
                }
                return;
            }
            let limits = node.limits();
            let (max_bytes, high_bytes) = (limits.max.unwrap_or(NONE), limits.high.unwrap_or(NONE));
            let (lambda, outstanding_bytes, fell_bytes) = remembered(memories, id, |memory| {
                let outstanding_bytes = memory.outstanding(node.charge_bytes(), lag_ticks);
                (memory.lambda, outstanding_bytes, memory.fell())
            });
            rows.push(Row {
                id,
                is_vm: node.kind() == Kind::Vm,
                parent: None,
                charge_bytes: node.charge_bytes(),
                goal_bytes: max_bytes.min(high_bytes),
                max_bytes,
                high_bytes,
                weight: limits.weight,
                lambda,
                pressed_by: None,
                end: rows.len().saturating_add(1),
                guest: None,
                take_bytes: 0,
                page_out_bytes: 0,
                outstanding_bytes,
                yield_bytes: 0,
                shown_yield_bytes: 0,
                fell_bytes,
                layer_bytes: 0,
            });
        });
        let order = protection.order();
        let place = |position: usize| places.get(position).copied().flatten();
        for (position, of) in places.iter().enumerate() {
            let Some(row) = of.and_then(|place| rows.get_mut(place)) else { continue };
            row.parent = order.parent(position).and_then(place);
        }
        let most_yield_bytes_per_s = Tuning::default().bytes_per_s;
        for (index, reading) in readings.iter().enumerate() {
            let of = order.position(reading.vm).and_then(place);
            let Some(row) = of.and_then(|place| rows.get_mut(place)).filter(|row| row.is_vm) else {
                continue;
            };
            row.guest = Some(index);
            if reading.follows {
                // Its word, which others must not pay for: no law gives more, and nobody more than it has.
                let yield_bytes_per_s = reading.yield_bytes_per_s.min(most_yield_bytes_per_s);
                row.yield_bytes =
                    yield_bytes_per_s.saturating_mul(self.tuning.patience_s).min(row.charge_bytes);
                row.shown_yield_bytes = row.yield_bytes.min(row.fell_bytes);
            }
        }
        for place in (0..rows.len()).rev() {
            let Some(row) = rows.get(place).copied() else { continue };
            if let Some(parent) = row.parent.and_then(|parent| rows.get_mut(parent)) {
                parent.end = parent.end.max(row.end);
                parent.outstanding_bytes = parent.outstanding_bytes.saturating_add(row.outstanding_bytes);
                parent.yield_bytes = parent.yield_bytes.saturating_add(row.yield_bytes);
                parent.shown_yield_bytes = parent.shown_yield_bytes.saturating_add(row.shown_yield_bytes);
            }
        }
        let capacity_bytes = tree.pool().capacity_bytes;
        let Some(root) = rows.first_mut() else { return 0 };
        root.max_bytes = root.max_bytes.min(capacity_bytes);
        let lacking = if coming.is_below(self.tuning.short_permille) {
            permille(coming.total_bytes, self.tuning.enough_permille).saturating_sub(coming.available_bytes)
        } else {
            0
        };
        let deficit = lacking.max(root.charge_bytes.saturating_sub(capacity_bytes)).min(root.charge_bytes);
        root.goal_bytes =
            if deficit > 0 { root.charge_bytes.saturating_sub(deficit) } else { capacity_bytes };
        deficit
    }

    /// Pressure of each node and of the path above it, and the limits of that path.
    fn press(&mut self, host: &Host) {
        // Between short and enough the pressure stays.
        let recovering = host.is_below(self.tuning.enough_permille);
        for place in 0..self.rows.len() {
            let parent = self.rows.get(place).and_then(|row| row.parent);
            let above = parent.and_then(|parent| self.rows.get(parent)).copied();
            let Some(row) = self.rows.get_mut(place) else { continue };
            row.lambda = if row.goal_bytes == NONE {
                CALM
            } else {
                let is_kept = place == 0 && recovering;
                let goal = if is_kept { row.goal_bytes.min(row.charge_bytes) } else { row.goal_bytes };
                lambda::next(row.lambda, row.charge_bytes, goal, &self.tuning)
            };
            if let Some(Some(memory)) = self.memories.get_mut(row.id.index()) {
                memory.lambda = row.lambda;
            }
            row.pressed_by = (row.lambda > CALM).then_some(row.id);
            let Some(above) = above else { continue };
            row.max_bytes = row.max_bytes.min(above.max_bytes);
            row.high_bytes = row.high_bytes.min(above.high_bytes);
            row.weight = lambda::inherited(row.weight, above.weight);
            if above.lambda > row.lambda {
                (row.lambda, row.pressed_by) = (above.lambda, above.pressed_by);
            }
        }
    }

    fn allot(
        &mut self,
        host: &Host,
        readings: &[Reading],
        short: bool,
        critical: bool,
        allotments: &mut Vec<Allotment>,
    ) {
        allotments.clear();
        for reading in readings {
            let position = self.protection.order().position(reading.vm);
            let place = position.and_then(|position| self.places.get(position).copied().flatten());
            let row = place.and_then(|place| self.rows.get(place)).filter(|row| row.guest.is_some());
            let Some(row) = row.copied() else { continue };
            let floor_bytes = self.protection.get(row.id).unwrap_or_default().min;
            let lambda_permille = lambda::weighted(row.lambda, row.weight);
            let worthwhile = |bytes: u64| if bytes >= self.tuning.least_take_bytes { bytes } else { 0 };
            let (take_bytes, page_out_bytes) = (worthwhile(row.take_bytes), worthwhile(row.page_out_bytes));
            let given_bytes = take_bytes.saturating_add(page_out_bytes);
            let max_bytes = row.max_bytes;
            let at_cap = row.lambda >= self.tuning.cap_permille;
            let balloon = take_bytes > 0 && (!reading.follows || critical || at_cap);
            let imposed = self.memories.get_mut(row.id.index()).and_then(Option::as_mut).and_then(|memory| {
                if given_bytes > 0 {
                    memory.directed(given_bytes);
                }
                // What a daemon before had it at, if this one is new.
                memory.target_bytes =
                    memory.target_bytes.or(Some(reading.ceiling_bytes).filter(|bytes| *bytes > 0));
                memory.impose(
                    balloon.then(|| {
                        let guest_bytes = row.charge_bytes.saturating_sub(row.layer_bytes);
                        guest_bytes.saturating_sub(given_bytes).max(floor_bytes)
                    }),
                    short || row.lambda > CALM,
                    max_bytes,
                    &self.tuning,
                )
            });
            let imposed_bytes = imposed.map(|bytes| bytes.max(floor_bytes));
            let high_bytes = row.high_bytes.min(imposed_bytes.unwrap_or(NONE));
            allotments.push(Allotment {
                vm: row.id,
                lambda_permille,
                max_bytes,
                high_bytes: (high_bytes != NONE).then_some(high_bytes),
                floor_bytes,
                grant_bytes: 0,
                take_bytes,
                page_out_bytes,
                pressed_by: row.pressed_by.filter(|_| row.lambda > CALM),
                imposed_bytes,
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
