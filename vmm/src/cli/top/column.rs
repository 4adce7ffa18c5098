//! The columns of `ballast top`: how wide, what is in a cell, and which row comes first. Pure.

#![forbid(unsafe_code)]

use super::view::Vm;
use super::words::{compact, rate, tenths};
use balloon::control::api::{ZoneDocument, ZoneKind};
use balloon::policy::State;
use std::cmp::Ordering;

/// A column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    State,
    Cpu,
    Used,
    Target,
    /// What it costs the host: what one looks for first.
    #[default]
    Resident,
    Saved,
    Refaults,
    Stall,
    Zones,
}

/// What rows are compared by.
enum Key<'a> {
    Word(&'a str),
    Number(Option<f64>),
}

impl Column {
    /// All of them, from left to right.
    pub const ALL: [Self; 10] = [
        Self::Name,
        Self::State,
        Self::Cpu,
        Self::Used,
        Self::Target,
        Self::Resident,
        Self::Saved,
        Self::Refaults,
        Self::Stall,
        Self::Zones,
    ];

    /// Those that can be done without, the first one first, where a window is too narrow for all.
    const EXPENDABLE: [Self; 8] = [
        Self::Zones,
        Self::Target,
        Self::Used,
        Self::Cpu,
        Self::Refaults,
        Self::Saved,
        Self::Stall,
        Self::State,
    ];

    /// Names of microVMs that nobody named have so many letters.
    const NAME_WIDTH: u16 = 12;

    /// The columns that fit into `width`, with a gap of one between them.
    pub fn fitting(width: u16) -> Vec<Self> {
        let mut columns = Self::ALL.to_vec();
        let needed = |columns: &[Self]| columns.iter().fold(0u16, |sum, column| sum + column.width() + 1) - 1;
        for expendable in Self::EXPENDABLE {
            if needed(&columns) <= width {
                break;
            }
            columns.retain(|column| *column != expendable);
        }
        columns
    }

    /// What stands above it.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::State => "STATE",
            Self::Cpu => "CPU%",
            Self::Used => "USED",
            Self::Target => "TARGET",
            Self::Resident => "RESIDENT",
            Self::Saved => "SAVED",
            Self::Refaults => "REFAULTS",
            Self::Stall => "STALL%",
            Self::Zones => "ZONES",
        }
    }

    /// How wide it is; the name takes what is left over.
    pub fn width(self) -> u16 {
        match self {
            Self::Name => Self::NAME_WIDTH,
            Self::Resident | Self::Refaults => 8,
            Self::State => 9,
            Self::Used | Self::Target | Self::Saved | Self::Stall => 6,
            Self::Cpu | Self::Zones => 5,
        }
    }

    /// Words stand left, numbers right.
    pub fn is_word(self) -> bool {
        matches!(self, Self::Name | Self::State)
    }

    /// The next one, from left to right and around.
    pub fn next(self) -> Self {
        self.moved(1)
    }

    /// The one before, likewise.
    pub fn previous(self) -> Self {
        self.moved(Self::ALL.len() - 1)
    }

    fn moved(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|column| *column == self).unwrap_or(0);
        Self::ALL.iter().copied().cycle().nth(at + by).unwrap_or_default()
    }

    /// Words ascend, numbers descend, unless `reversed`; what is not known comes last.
    pub fn compare(self, a: &Vm, b: &Vm, reversed: bool) -> Ordering {
        let turned = |order: Ordering| if reversed { order.reverse() } else { order };
        match (self.key(a), self.key(b)) {
            (Key::Word(a), Key::Word(b)) => turned(a.cmp(b)),
            (Key::Number(Some(a)), Key::Number(Some(b))) => turned(b.total_cmp(&a)),
            (Key::Number(Some(_)), _) => Ordering::Less,
            (_, Key::Number(Some(_))) => Ordering::Greater,
            _ => Ordering::Equal,
        }
    }

    fn key(self, vm: &Vm) -> Key<'_> {
        let usage = &vm.usage;
        let number = |bytes: Option<u64>| Key::Number(bytes.map(|bytes| bytes as f64));
        match self {
            Self::Name => Key::Word(&usage.name),
            Self::State => Key::Word(state(vm)),
            Self::Cpu => Key::Number(usage.cpu_percent),
            Self::Used => number(usage.guest_used_bytes),
            Self::Target => number(usage.target_bytes),
            Self::Resident => number(usage.resident_bytes),
            Self::Saved => number(usage.saved_bytes),
            Self::Refaults => Key::Number(usage.refaults_per_s),
            Self::Stall => Key::Number(usage.stall_percent),
            Self::Zones => number(vm.zones.as_ref().map(|zones| zones.len() as u64)),
        }
    }

    /// What a microVM's cell says.
    pub fn cell(self, vm: &Vm) -> String {
        let usage = &vm.usage;
        let none = || "-".to_owned();
        let size = |bytes: Option<u64>| bytes.map_or_else(none, compact);
        match self {
            Self::Name => usage.name.clone(),
            Self::State => state(vm).into(),
            Self::Cpu => usage.cpu_percent.map_or_else(none, tenths),
            Self::Used => size(usage.guest_used_bytes),
            Self::Target => size(usage.target_bytes),
            Self::Resident => size(usage.resident_bytes),
            Self::Saved => size(usage.saved_bytes),
            Self::Refaults => usage.refaults_per_s.map_or_else(none, rate),
            Self::Stall => usage.stall_percent.map_or_else(none, |percent| format!("{percent:.2}")),
            Self::Zones => vm.zones.as_deref().map_or_else(none, zones),
        }
    }
}

/// What its law does, or why that is not known, in a word.
pub(super) fn state(vm: &Vm) -> &'static str {
    use crate::cli::ps::State as Life;
    match (vm.usage.law, vm.usage.state) {
        (Some(State::Start), _) => "young",
        (Some(State::Trimming), _) => "trimming",
        (Some(State::Hold), _) => "holding",
        (Some(State::Blind), _) => "blind",
        (Some(State::NoGain), _) => "resting",
        (Some(State::Stale), _) => "waiting",
        (Some(State::Safe), _) => "safe",
        (Some(State::Manual), _) => "manual",
        (Some(State::Off), _) => "off",
        (None, Life::Starting) => "starting",
        (None, Life::Ending) => "ending",
        (None, _) => "no answer",
    }
}

/// Private and shared ones: `1+3`.
fn zones(zones: &[ZoneDocument]) -> String {
    let private = zones.iter().filter(|zone| zone.kind == ZoneKind::Private).count();
    match zones.len() - private {
        0 => private.to_string(),
        shared => format!("{private}+{shared}"),
    }
}
