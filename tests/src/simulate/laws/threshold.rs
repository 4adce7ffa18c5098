//! A bound on the refault rate: the first thing that comes to mind, and a known failure.

use super::window::Window;
use super::{Law, Sight};
use crate::simulate::command::{Command, Commands};
use balloon::policy::Capabilities;

/// Time between two steps.
const STEP_MS: u64 = 6000;

/// Lowers a limit by 1 % while there are few refaults and raises it by 5 % while there are many.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    refaults_per_s: f64,
    window: Window,
    limit: Option<f64>,
    size: f64,
}

impl Threshold {
    /// Bears so many refaults a second.
    #[must_use]
    pub fn new(refaults_per_s: f64) -> Self {
        Self { refaults_per_s, window: Window::default(), limit: None, size: 0.0 }
    }
}

impl Law for Threshold {
    fn booted(&mut self, _: u64, size_bytes: u64, _: Capabilities) {
        *self = Self { size: size_bytes as f64, ..Self::new(self.refaults_per_s) };
    }

    fn step(&mut self, sight: &Sight<'_>, commands: &mut Commands) {
        let Some(sample) = sight.sample else { return };
        let Some(delta) = self.window.over(sample, STEP_MS) else { return };
        let charge = sample.used_bytes() as f64;
        let limit = self.limit.unwrap_or(charge);
        let many = delta.refaults as f64 * 1000.0 > self.refaults_per_s * delta.ms as f64;
        let limit = (limit * if many { 1.05 } else { 0.99 }).clamp(0.02 * self.size, self.size);
        self.limit = Some(limit);
        commands.push(Command::Limit { bytes: limit as u64 });
    }
}
