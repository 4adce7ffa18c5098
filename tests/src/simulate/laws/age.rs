//! An age and nothing else: what was idle for longer goes, unless the guest stalls.

use super::window::Window;
use super::{Law, Sight};
use crate::simulate::command::{Command, Commands};
use balloon::policy::{Capabilities, Memory, Order};

const STEP_MS: u64 = 6000;
const THRESHOLD: f64 = 0.001;

/// Evicts what MGLRU shows to be idle for so long.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    age_ms: u64,
    window: Window,
    aged_ms: u64,
    number: u64,
}

impl Age {
    /// Keeps what was used within `age_s`.
    #[must_use]
    pub fn new(age_s: f64) -> Self {
        Self { age_ms: (age_s * 1000.0) as u64, window: Window::default(), aged_ms: 0, number: 0 }
    }
}

impl Law for Age {
    fn booted(&mut self, _: u64, _: u64, _: Capabilities) {
        self.window = Window::default();
    }

    fn step(&mut self, sight: &Sight<'_>, commands: &mut Commands) {
        let Some(sample) = sight.sample else { return };
        let Some(delta) = self.window.over(sample, STEP_MS) else { return };
        // A generation is proven idle by its successor's age, so ages are as fine as half of what is asked.
        if sight.now_ms.saturating_sub(self.aged_ms) >= self.age_ms / 2 {
            self.aged_ms = sight.now_ms;
            commands.push(Command::Order(Order::Age));
        }
        if delta.stall_us as f64 / 1000.0 / delta.ms as f64 >= THRESHOLD {
            return;
        }
        let bytes = (sample.file_bytes() + sample.anon_bytes()) / 100;
        for (memory, bytes) in [(Memory::File, bytes), (Memory::Anon, bytes)] {
            self.number += 1;
            let order =
                Order::Reclaim { number: self.number, bytes, memory, older_than_ms: Some(self.age_ms) };
            commands.push(Command::Order(order));
        }
    }
}
