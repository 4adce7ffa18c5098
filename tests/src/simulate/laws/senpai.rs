//! Senpai as first published: `senpai.py` of facebookincubator/senpai at c51e8e2, with its defaults.

use super::window::Window;
use super::{Law, Sight};
use crate::simulate::command::{Command, Commands};
use balloon::policy::Capabilities;

/// Steps between two adjustments, of a second each.
const INTERVAL: u32 = 6;
const MAX_PROBE: f64 = 0.01;
const MAX_BACKOFF: f64 = 1.0;
const COEFF_PROBE: f64 = 10.0;
const COEFF_BACKOFF: f64 = 20.0;
const MIN_BYTES: f64 = (100_u64 << 20) as f64;

/// Probes with `memory.high` for the pressure that it aims at.
#[derive(Clone, Copy, Debug)]
pub struct Senpai {
    pressure_us: f64,
    window: Window,
    integral_us: f64,
    grace: u32,
    limit: Option<f64>,
    size: f64,
}

impl Senpai {
    /// Aims at so much stall in six seconds; the default is 10,000 us.
    #[must_use]
    pub fn new(pressure_us: f64) -> Self {
        Self {
            pressure_us,
            window: Window::default(),
            integral_us: 0.0,
            grace: INTERVAL - 1,
            limit: None,
            size: 0.0,
        }
    }
}

impl Law for Senpai {
    fn booted(&mut self, _: u64, size_bytes: u64, _: Capabilities) {
        *self = Self { size: size_bytes as f64, ..Self::new(self.pressure_us) };
    }

    fn step(&mut self, sight: &Sight<'_>, commands: &mut Commands) {
        let Some(sample) = sight.sample else { return };
        let Some(delta) = self.window.over(sample, 1) else { return };
        self.integral_us += delta.stall_us as f64;
        let charge = sample.file_bytes() + sample.anon_bytes();
        let limit = self.limit.unwrap_or(charge as f64);
        let adjust = if self.integral_us > self.pressure_us {
            let error = self.integral_us / self.pressure_us / COEFF_BACKOFF;
            (error * error * MAX_BACKOFF).min(MAX_BACKOFF)
        } else if self.grace > 0 {
            self.grace -= 1;
            self.limit = Some(limit);
            return;
        } else {
            let error = self.pressure_us / self.integral_us.max(1.0) / COEFF_PROBE;
            -(error * error * MAX_PROBE).min(MAX_PROBE)
        };
        self.integral_us = 0.0;
        self.grace = INTERVAL - 1;
        let limit = (limit * (1.0 + adjust)).clamp(MIN_BYTES.min(self.size), self.size);
        self.limit = Some(limit);
        commands.push(Command::Limit { bytes: limit as u64 });
    }
}
