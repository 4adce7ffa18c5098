//! No law: what a guest takes if it may.

use super::{Law, Sight};
use crate::simulate::command::Commands;
use balloon::policy::Capabilities;

/// Lets guests have what they take.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Law for Nothing {
    fn booted(&mut self, _: u64, _: u64, _: Capabilities) {}

    fn step(&mut self, _: &Sight<'_>, _: &mut Commands) {}
}
