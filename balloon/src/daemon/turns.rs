//! What a tick of arbitration is told as: the [edges](super::edges) of its results, with names, reasons and numbers. Pure.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::edges::{Edge, Imposed, Lasting, Pressed, Taken};
use super::event::Event;
use crate::control::events::EventKind;
use crate::policy::fleet::{Allotment, Host, Pressure, Reading, Verdict};
use crate::size::Size;
use crate::zone::{Id, Kind, Tree};
use std::collections::BTreeMap;

/// What was told of earlier ticks.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    short: Lasting,
    refusing: Lasting,
    pressed: BTreeMap<Id, Pressed>,
    vms: BTreeMap<Id, (Taken, Taken, Imposed)>,
}

/// What a tick came to. `readings` and `allotments` are in one order.
pub(super) struct Tick<'a> {
    pub tree: &'a Tree,
    pub host: &'a Host,
    pub verdict: &'a Verdict,
    pub readings: &'a [Reading],
    pub allotments: &'a [Allotment],
}

impl Turns {
    /// Tells what is new. Who has ended is told no more.
    pub fn next(
        &mut self,
        tick: &Tick<'_>,
        pressures: impl Iterator<Item = Pressure>,
        told: &mut Vec<Event>,
    ) {
        told.extend(self.short.next(tick.verdict.short).map(|edge| tick.short(edge)));
        told.extend(self.refusing.next(tick.verdict.refuse).map(|edge| tick.refusing(edge)));
        self.press(tick, pressures, told);
        for (reading, allotment) in tick.readings.iter().zip(tick.allotments) {
            self.allot(tick, reading, allotment, told);
        }
        self.vms.retain(|vm, told| {
            tick.tree.get(*vm).is_some_and(|node| !node.is_orphan()) && *told != Default::default()
        });
    }

    fn press(&mut self, tick: &Tick<'_>, pressures: impl Iterator<Item = Pressure>, told: &mut Vec<Event>) {
        let mut before = std::mem::take(&mut self.pressed);
        for pressure in pressures {
            let Some(event) = whom(tick.tree, pressure.node) else { continue };
            let mut pressed = before.remove(&pressure.node).unwrap_or_default();
            if let Some(edge) = pressed.next(Some(pressure.lambda_permille)) {
                told.push(tick.pressed(&pressure, edge, event));
            }
            self.pressed.insert(pressure.node, pressed);
        }
        for (node, mut pressed) in before {
            let Some(event) = whom(tick.tree, node) else { continue };
            if pressed.next(None).is_some() {
                let charge_bytes = charge(tick.tree, node);
                let reason = format!("it holds {} and is pressed no longer", size(charge_bytes));
                told.push(event(EventKind::PressureEnded, reason).figure("charge_bytes", charge_bytes));
            }
        }
    }

    fn allot(&mut self, tick: &Tick<'_>, reading: &Reading, allotment: &Allotment, told: &mut Vec<Event>) {
        let vm = allotment.vm;
        let is_told = allotment.take_bytes.max(allotment.page_out_bytes) > 0;
        if !is_told && allotment.imposed_bytes.is_none() && !self.vms.contains_key(&vm) {
            return;
        }
        let Some(event) = whom(tick.tree, vm) else { return };
        let (taken, paged_out, imposed) = self.vms.entry(vm).or_default();
        if let Some(edge) = taken.next(allotment.take_bytes) {
            told.push(tick.taken(allotment, edge, &event));
        }
        if let Some(edge) = paged_out.next(allotment.page_out_bytes) {
            told.push(tick.paged_out(allotment, edge, &event));
        }
        if let Some(edge) = imposed.next(allotment.imposed_bytes) {
            told.push(tick.imposed(reading, allotment, edge, &event));
        }
    }
}

impl Tick<'_> {
    fn with_host(&self, event: Event) -> Event {
        event
            .figure("available_bytes", self.host.available_bytes)
            .figure("total_bytes", self.host.total_bytes)
            .figure("stall_ppm", self.host.stall_ppm)
    }

    /// What the host has, in words.
    fn available(&self) -> String {
        format!(
            "{} of the host's {} are available",
            size(self.host.available_bytes),
            size(self.host.total_bytes)
        )
    }

    /// How much of that will soon be gone, in words.
    fn falling(&self) -> String {
        match self.verdict.falling_bytes {
            0 => String::new(),
            bytes => format!(", and {} less will be soon if that falls on as it does", size(bytes)),
        }
    }

    fn short(&self, edge: Edge<()>) -> Event {
        let deficit_bytes = self.verdict.deficit_bytes;
        let (kind, reason) = match edge {
            Edge::Ended(()) => (EventKind::MemoryEnough, "there is enough for all microVMs again".into()),
            _ if deficit_bytes == 0 => (
                EventKind::MemoryShort,
                format!("{}, and microVMs hold nothing to give back", self.available()),
            ),
            _ => (
                EventKind::MemoryShort,
                format!(
                    "microVMs hold {} too much: {}{}; what is unused longest is taken back",
                    size(deficit_bytes),
                    self.available(),
                    self.falling()
                ),
            ),
        };
        let event = Event::new(kind, reason).figure("deficit_bytes", deficit_bytes);
        self.with_host(event.figure("falling_bytes", self.verdict.falling_bytes))
    }

    fn refusing(&self, edge: Edge<()>) -> Event {
        let unmet_bytes = self.verdict.unmet_bytes;
        let (kind, reason) = match edge {
            Edge::Ended(()) => (EventKind::AdmittingStarts, "there is room to start microVMs again".into()),
            _ if unmet_bytes > 0 => (
                EventKind::RefusingStarts,
                format!(
                    "memory is short by {} that nobody can give, as all else is protected: no microVM is started until one \
                     ends, gives back or is less protected",
                    size(unmet_bytes)
                ),
            ),
            _ => (
                EventKind::RefusingStarts,
                format!("{}: no microVM is started until there is more", self.available()),
            ),
        };
        self.with_host(Event::new(kind, reason).figure("unmet_bytes", unmet_bytes))
    }

    fn pressed(
        &self,
        pressure: &Pressure,
        edge: Edge<u64>,
        event: impl Fn(EventKind, String) -> Event,
    ) -> Event {
        let Pressure { lambda_permille, charge_bytes, goal_bytes, .. } = *pressure;
        let held = match charge_bytes.checked_sub(goal_bytes) {
            Some(excess) if excess > 0 => {
                format!("it holds {}, {} more than its goal", size(charge_bytes), size(excess))
            }
            _ => format!("it holds {}, which is within its goal", size(charge_bytes)),
        };
        let divided = format!("working-set ages in it are divided by {}", times(lambda_permille));
        let event = match edge {
            Edge::Changed(told) => {
                let reason = format!("{divided}, no longer by {}: {held}", times(told));
                event(EventKind::PressureChanged, reason).figure("told_lambda_permille", told)
            }
            _ => event(EventKind::PressureBegun, format!("{held}: {divided}")),
        };
        event
            .figure("lambda_permille", lambda_permille)
            .figure("charge_bytes", charge_bytes)
            .figure("goal_bytes", goal_bytes)
    }

    fn taken(
        &self,
        allotment: &Allotment,
        edge: Edge<Taken>,
        event: &impl Fn(EventKind, String) -> Event,
    ) -> Event {
        let charge_bytes = charge(self.tree, allotment.vm);
        let event = match edge {
            Edge::Ended(Taken { bytes, orders, .. }) => event(
                EventKind::TakeEnded,
                format!(
                    "orders to give back came to {} in sum, some of them again for what had not come; it holds {} now",
                    size(bytes),
                    size(charge_bytes)
                ),
            )
            .figure("take_bytes", bytes)
            .figure("orders", orders),
            _ => event(
                EventKind::TakeBegun,
                format!(
                    "it is to give back {} of {} at once{}: laws alone would be too slow",
                    size(allotment.take_bytes),
                    size(charge_bytes),
                    self.presser(allotment)
                ),
            )
            .figure("take_bytes", allotment.take_bytes),
        };
        event.figure("charge_bytes", charge_bytes)
    }

    fn paged_out(
        &self,
        allotment: &Allotment,
        edge: Edge<Taken>,
        event: &impl Fn(EventKind, String) -> Event,
    ) -> Event {
        let charge_bytes = charge(self.tree, allotment.vm);
        let (kind, reason, bytes) = match edge {
            Edge::Ended(Taken { bytes, .. }) => (
                EventKind::PageOutEnded,
                format!(
                    "the host was told to swap out {} of it, and it holds {} now",
                    size(bytes),
                    size(charge_bytes)
                ),
                bytes,
            ),
            _ => (
                EventKind::PageOutBegun,
                format!(
                    "the host is to swap out {} of {}: what was ordered did not come in time{}",
                    size(allotment.page_out_bytes),
                    size(charge_bytes),
                    self.presser(allotment)
                ),
                allotment.page_out_bytes,
            ),
        };
        event(kind, reason)
            .figure("page_out_bytes", bytes)
            .figure("charge_bytes", charge_bytes)
            .figure("swap_free_bytes", self.host.swap_free_bytes)
    }

    /// For whom a microVM gives, in words that follow others.
    fn presser(&self, allotment: &Allotment) -> String {
        let node = allotment.pressed_by.and_then(|id| self.tree.get(id));
        node.map_or_else(String::new, |node| match node.kind() {
            Kind::Pool => ", as the pool or the host is short".into(),
            Kind::Group => format!(", as its group '{}' holds too much", node.name()),
            _ => ", as it holds more than its own limit".into(),
        })
    }

    fn imposed(
        &self,
        reading: &Reading,
        allotment: &Allotment,
        edge: Edge<u64>,
        event: &impl Fn(EventKind, String) -> Event,
    ) -> Event {
        let charge_bytes = charge(self.tree, allotment.vm);
        let ceiling = allotment.imposed_bytes.unwrap_or(allotment.max_bytes);
        let why = if reading.follows {
            "orders alone would be too slow"
        } else {
            "its guest carries out no orders"
        };
        let (kind, reason) = match edge {
            Edge::Begun => {
                (EventKind::CeilingImposed, format!("its ceiling is {} for now: {why}", size(ceiling)))
            }
            Edge::Changed(told) => (
                EventKind::CeilingLowered,
                format!("its ceiling is {} for now, less than {}: {why}", size(ceiling), size(told)),
            ),
            Edge::Ended(_) => {
                (EventKind::CeilingLifted, "nothing but its limits binds its ceiling again".into())
            }
        };
        event(kind, reason).figure("ceiling_bytes", ceiling).figure("charge_bytes", charge_bytes)
    }
}

/// Makes events of the living node `id`.
fn whom(tree: &Tree, id: Id) -> Option<impl Fn(EventKind, String) -> Event + '_> {
    let node = tree.get(id).filter(|node| !node.is_orphan())?;
    let group = tree.parent(id).and_then(|parent| tree.get(parent)).map_or("", |parent| parent.name());
    Some(move |kind, reason| match node.kind() {
        Kind::Vm => Event::new(kind, reason).vm(node.name()).group(group),
        _ => Event::new(kind, reason).group(node.name()),
    })
}

fn charge(tree: &Tree, id: Id) -> u64 {
    tree.get(id).map_or(0, |node| node.charge_bytes())
}

fn size(bytes: u64) -> Size {
    Size::from_bytes(bytes)
}

/// Thousandths as a number with one decimal: what is less than a tenth more than none is called so.
fn times(permille: u64) -> String {
    let tenths = permille.saturating_add(50) / 100;
    match (permille, tenths) {
        (1001.., ..=10) => "a little more than 1".into(),
        _ => format!("{}.{}", tenths / 10, tenths % 10),
    }
}
