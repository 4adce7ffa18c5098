//! A size for good: what most hosts run.

use super::{Law, Sight};
use crate::simulate::command::{Command, Commands};
use balloon::policy::{Capabilities, Order};

/// Leaves each guest a share of its memory through the balloon.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    share: f64,
    order: Option<u64>,
}

impl Fixed {
    /// Leaves `share`.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self { share, order: None }
    }
}

impl Law for Fixed {
    fn booted(&mut self, _: u64, size_bytes: u64, _: Capabilities) {
        self.order = Some((size_bytes as f64 * self.share) as u64);
    }

    fn step(&mut self, _: &Sight<'_>, commands: &mut Commands) {
        if let Some(bytes) = self.order.take() {
            commands.push(Command::Order(Order::Ceiling { bytes }));
        }
    }
}
