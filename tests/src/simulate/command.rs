//! What laws say to guests, in one vocabulary: that of Ballast's own law, and the limit that others work with. Pure.

use balloon::policy::Order;

/// Most commands that one step can bring about.
const MAX: usize = 8;

/// One command.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// As Ballast's own law gives.
    Order(Order),
    /// `memory.reclaim`, divided between page cache and anonymous memory by the kernel's own swappiness.
    Request {
        /// What to reclaim.
        bytes: u64,
    },
    /// `memory.high` around the guest's processes, as Senpai sets it.
    Limit {
        /// What they may be charged.
        bytes: u64,
    },
}

/// The commands of one step. Takes no memory of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commands {
    list: [Option<Command>; MAX],
    count: usize,
}

impl Commands {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Adds one.
    ///
    /// # Panics
    /// There are more than a law can have reason for.
    pub fn push(&mut self, command: Command) {
        self.list[self.count] = Some(command);
        self.count += 1;
    }

    /// In the order in which they are to be carried out.
    pub fn iter(&self) -> impl Iterator<Item = Command> + '_ {
        self.list[..self.count].iter().flatten().copied()
    }
}
