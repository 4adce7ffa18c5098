//! What a hostile guest tries, each a line of a table.

use super::driver::Driver;
use super::machine::Machine;
use super::program::Program;

/// One abuse. It begins on a device that lives with all features and empty queues.
#[derive(Clone, Copy, Debug)]
pub struct Abuse {
    /// What is tried, in a few words.
    pub name: &'static str,
    /// How: what the guest must see of it is part of it.
    pub does: fn(&mut Driver),
    /// What the host must count, and nothing else.
    pub counts: &'static [(&'static str, Count)],
}

/// How often something is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// So often.
    Exactly(u64),
    /// It depends on who is faster.
    Any,
}

impl Abuse {
    /// An abuse that counts nothing.
    #[must_use]
    pub const fn new(name: &'static str, does: fn(&mut Driver)) -> Self {
        Self { name, does, counts: &[] }
    }

    /// And what is to be counted.
    #[must_use]
    pub const fn counting(self, counts: &'static [(&'static str, Count)]) -> Self {
        Self { counts, ..self }
    }

    /// The whole attempt on `machine`: to a device that lives, then the abuse.
    #[must_use]
    pub fn attempt(&self, machine: Machine) -> Program {
        let mut driver = Driver::new(machine);
        self.write(&mut driver);
        driver.program.next();
        driver.program
    }

    /// Writes the whole attempt.
    pub fn write(&self, driver: &mut Driver) {
        driver.reset();
        driver.bring_up();
        (self.does)(driver);
    }

    /// Whether the count of `kind` may grow by `more`.
    #[must_use]
    pub fn allows(&self, kind: &str, more: u64) -> bool {
        match self.counts.iter().find(|(name, _)| *name == kind) {
            None => more == 0,
            Some((_, Count::Exactly(count))) => more == *count,
            Some((_, Count::Any)) => true,
        }
    }
}
