//! TMO (ASPLOS'22, section 3.3): small steps in proportion to the room below a pressure threshold.
//!
//! `reclaim = current * ratio * gain * max(0, 1 - PSI / threshold)` every six seconds, at most 1 %. As published the
//! gain is 1. With *recycling* it also takes back page cache that grew without refaults.

use super::window::Window;
use super::{Law, Sight};
use crate::simulate::command::{Command, Commands};
use balloon::policy::{Capabilities, Memory, Order, Sample};

const STEP_MS: u64 = 6000;
const RATIO: f64 = 0.0005;
const CEILING: f64 = 0.01;
const THRESHOLD: f64 = 0.001;

/// Page cache may grow by so much at once before it is recycled.
const ALLOWANCE_BYTES: u64 = 32 << 20;

/// TMO with a gain.
#[derive(Clone, Copy, Debug)]
pub struct Tmo {
    gain: f64,
    recycles: bool,
    window: Window,
    last: Option<Sample>,
    number: u64,
}

impl Tmo {
    /// As published, each step `gain` times as large.
    #[must_use]
    pub fn new(gain: f64) -> Self {
        Self { gain, recycles: false, window: Window::default(), last: None, number: 0 }
    }

    /// Recycles too.
    #[must_use]
    pub fn recycling(gain: f64) -> Self {
        Self { recycles: true, ..Self::new(gain) }
    }

    fn reclaim(&mut self, bytes: u64, memory: Memory, commands: &mut Commands) {
        self.number += 1;
        let order = Order::Reclaim { number: self.number, bytes, memory, older_than_ms: None };
        commands.push(Command::Order(order));
    }

    fn recycle(&mut self, sample: &Sample, commands: &mut Commands) {
        let last = *self.last.get_or_insert(*sample);
        let refaulted = sample.refault_file > last.refault_file || sample.boot_id != last.boot_id;
        let grown = sample.file_bytes().saturating_sub(last.file_bytes());
        if refaulted || sample.file_bytes() < last.file_bytes() {
            self.last = Some(*sample);
        } else if grown > ALLOWANCE_BYTES {
            self.reclaim(grown, Memory::File, commands);
        }
    }
}

impl Law for Tmo {
    fn booted(&mut self, _: u64, _: u64, _: Capabilities) {
        (self.window, self.last) = (Window::default(), None);
    }

    fn step(&mut self, sight: &Sight<'_>, commands: &mut Commands) {
        let Some(sample) = sight.sample else { return };
        if self.recycles {
            self.recycle(sample, commands);
        }
        let Some(delta) = self.window.over(sample, STEP_MS) else { return };
        let pressure = delta.stall_us as f64 / 1000.0 / delta.ms as f64;
        let current = (sample.file_bytes() + sample.anon_bytes()) as f64;
        let share = (RATIO * self.gain * (1.0 - pressure / THRESHOLD).max(0.0)).min(CEILING);
        let bytes = (current * share) as u64;
        if bytes > 0 {
            commands.push(Command::Request { bytes });
        }
    }
}
