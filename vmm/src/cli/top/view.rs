//! What `ballast top` knows and what its user chose: the state behind the screen. Pure.

#![forbid(unsafe_code)]

use super::column::Column;
use crate::cli::usage::Usage;
use balloon::control::api::ZoneDocument;
use balloon::control::fleet::HostDocument;
use balloon::control::reclaim::DecisionDocument;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use std::collections::{BTreeMap, VecDeque};

/// Looks that are remembered of each microVM: more than a screen is wide, of looks every two seconds a quarter of an hour.
const REMEMBERED: usize = 450;
/// What a page key moves by.
const PAGE: usize = 10;

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Look {
    pub host: HostLook,
    /// By name.
    pub vms: Vec<Vm>,
}

/// The host at one look. Zero bytes of memory are not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HostLook {
    pub total_bytes: u64,
    pub available_bytes: u64,
    /// Its memory pressure, `some avg10`; nothing if its kernel does not measure it.
    pub stall_ppm: Option<u64>,
    /// What ballastd says, if it runs.
    pub daemon: Option<HostDocument>,
}

/// A microVM at one look.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Vm {
    pub usage: Usage,
    /// Nothing if it did not answer.
    pub zones: Option<Vec<ZoneDocument>>,
}

/// The last decisions of a microVM's law, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decisions {
    pub id: String,
    pub decisions: Vec<DecisionDocument>,
}

/// What a key does to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Press {
    GoOn,
    Quit,
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Nothing before the first look. Its microVMs are in the order of the table.
    look: Option<Look>,
    decisions: Decisions,
    /// Resident memory of each microVM, by ID, the newest last; nothing where it was not known.
    residents: BTreeMap<String, VecDeque<Option<u64>>>,
    /// By ID, as rows move.
    selected: Option<String>,
    sort: Column,
    reversed: bool,
    paused: bool,
    help: bool,
}

impl View {
    /// Takes a look over. One that was under way when the user paused comes too late.
    pub fn look(&mut self, look: Look) {
        if self.paused && self.look.is_some() {
            return;
        }
        self.residents.retain(|id, _| look.vms.iter().any(|vm| vm.usage.id == *id));
        for usage in look.vms.iter().map(|vm| &vm.usage) {
            let residents = self.residents.entry(usage.id.clone()).or_default();
            if residents.len() >= REMEMBERED {
                residents.pop_front();
            }
            residents.push_back(usage.resident_bytes);
        }
        let before = self.position();
        self.look = Some(look);
        self.sort_rows();
        // Who is where the selected one was, if that is gone.
        if self.position().is_none() {
            self.select(before.unwrap_or(0));
        }
    }

    /// Takes decisions over.
    pub fn decide(&mut self, decisions: Decisions) {
        self.decisions = decisions;
    }

    /// Does what a key means.
    pub fn press(&mut self, key: KeyEvent) -> Press {
        if key.kind == KeyEventKind::Release {
            return Press::GoOn;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let code = key.code;
        if control && code == KeyCode::Char('c') {
            return Press::Quit;
        }
        if self.help {
            // Any key leaves the help, and does nothing else.
            self.help = false;
            return Press::GoOn;
        }
        let at = self.position().unwrap_or(0);
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Press::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.select(at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(at.saturating_add(1)),
            KeyCode::PageUp => self.select(at.saturating_sub(PAGE)),
            KeyCode::PageDown => self.select(at.saturating_add(PAGE)),
            KeyCode::Home | KeyCode::Char('g') => self.select(0),
            KeyCode::End | KeyCode::Char('G') => self.select(usize::MAX),
            KeyCode::Char('s' | '>') | KeyCode::Right => self.sort_by(self.sort.next()),
            KeyCode::Char('<') | KeyCode::Left => self.sort_by(self.sort.previous()),
            KeyCode::Char('r') => {
                self.reversed = !self.reversed;
                self.sort_rows();
            }
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('h' | '?') | KeyCode::F(1) => self.help = true,
            _ => {}
        }
        Press::GoOn
    }

    fn sort_by(&mut self, column: Column) {
        self.sort = column;
        self.sort_rows();
    }

    fn sort_rows(&mut self) {
        let (column, reversed) = (self.sort, self.reversed);
        if let Some(look) = &mut self.look {
            look.vms
                .sort_by(|a, b| column.compare(a, b, reversed).then_with(|| a.usage.name.cmp(&b.usage.name)));
        }
    }

    /// Selects the row `at`, or the last one.
    fn select(&mut self, at: usize) {
        let vms = self.vms();
        self.selected = vms.get(at.min(vms.len().saturating_sub(1))).map(|vm| vm.usage.id.clone());
    }

    /// The rows, in order.
    pub fn vms(&self) -> &[Vm] {
        self.look.as_ref().map_or(&[], |look| &look.vms)
    }

    /// The host; nothing before the first look.
    pub fn host(&self) -> Option<&HostLook> {
        self.look.as_ref().map(|look| &look.host)
    }

    /// The selected row.
    pub fn position(&self) -> Option<usize> {
        let id = self.selected()?;
        self.vms().iter().position(|vm| vm.usage.id == id)
    }

    /// ID of the selected microVM.
    pub fn selected(&self) -> Option<&str> {
        self.selected.as_deref()
    }

    /// The selected microVM.
    pub fn selected_vm(&self) -> Option<&Vm> {
        self.vms().get(self.position()?)
    }

    /// Resident memory of the selected microVM at its last looks, the newest last.
    pub fn residents(&self) -> impl DoubleEndedIterator<Item = Option<u64>> {
        self.selected().and_then(|id| self.residents.get(id)).into_iter().flatten().copied()
    }

    /// The selected microVM's last decisions, the newest last; nothing while they are being read.
    pub fn decisions(&self) -> &[DecisionDocument] {
        let known = self.selected() == Some(self.decisions.id.as_str());
        if known { &self.decisions.decisions } else { &[] }
    }

    /// The column that rows are sorted by, and whether against its custom.
    pub fn sort(&self) -> (Column, bool) {
        (self.sort, self.reversed)
    }

    /// Whether what is shown stays.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the user wants help.
    pub fn shows_help(&self) -> bool {
        self.help
    }
}
