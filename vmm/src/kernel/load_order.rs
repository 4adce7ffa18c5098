//! Which modules a guest loads, on what condition, and in what order.
//!
//! Pure: the wanted modules and a way to look one up go in, an order comes out in which every module follows
//! what it needs. Called once a kernel, with [`WANTED`].

use super::module_index::ModuleName;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// When the agent loads a module. The order of the variants is the order of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// In every guest.
    Base,
    /// In a guest that has a disk.
    Disk,
    /// In a guest whose anonymous memory can be trimmed, once it has run for a while.
    Swap,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Disk => "disk",
            Self::Swap => "swap",
        })
    }
}

/// What it means for a guest that a module is neither built in nor there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There can be no guest.
    Required,
    /// The guest cannot do this, and the user is told.
    Helpful(&'static str),
}

/// A module that a guest is to have, built in or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The module.
    pub name: &'static str,
    /// When it is loaded.
    pub condition: Condition,
    /// How much it is needed.
    pub need: Need,
}

const fn base(name: &'static str, need: Need) -> Wanted {
    Wanted { name, condition: Condition::Base, need }
}

const fn disk(name: &'static str) -> Wanted {
    Wanted { name, condition: Condition::Disk, need: Need::Helpful("volumes and disks cannot be used") }
}

const fn swap(name: &'static str) -> Wanted {
    let need = Need::Helpful("what the guest does not use of its anonymous memory cannot be trimmed");
    Wanted { name, condition: Condition::Swap, need }
}

/// What a guest is to have, in the order in which it is loaded.
pub const WANTED: &[Wanted] = &[
    // The bus and the console, so that whatever fails later can be told.
    base("virtio_mmio", Need::Required),
    base("virtio_console", Need::Required),
    base(
        "virtio_rng",
        Need::Helpful("the guest collects its entropy by itself, which may take a moment after the start"),
    ),
    base("virtio_pmem", Need::Required),
    // Nothing but the bus between them ties the driver of the namespace to the device.
    base("nd_pmem", Need::Required),
    base("erofs", Need::Required),
    base("overlay", Need::Required),
    base(
        "virtio_balloon",
        Need::Helpful("the guest keeps all memory that it ever touched, and has no memory ceiling"),
    ),
    disk("virtio_blk"),
    disk("ext4"),
    // Its compressor, which nothing but a name ties to it.
    swap("lzo_rle"),
    swap("zram"),
];

/// What a look-up finds under a module's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The kernel has it built in.
    BuiltIn,
    /// There is no such module.
    Absent,
    /// A file to load, and what has to be loaded before.
    Module {
        /// Without these it does not load.
        needs: Vec<ModuleName>,
        /// With these, if there are any, it works.
        likes: Vec<ModuleName>,
    },
}

/// A module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub condition: Condition,
    /// What.
    pub name: ModuleName,
}

/// The order of loading, and what is missing from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOrder {
    /// Each module once, after everything that it needs, [`Condition::Base`] before [`Condition::Disk`]
    /// before [`Condition::Swap`].
    pub steps: Vec<Step>,
    /// Helpful modules that are missing or need one that is.
    pub missing: Vec<Wanted>,
}

/// Why there is no order.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError<E> {
    /// A module without which there is no guest.
    #[error("the kernel neither has the module `{missing}` built in nor is there a file of it")]
    Missing {
        /// The module.
        missing: ModuleName,
    },
    /// Modules that need one another.
    #[error("the modules around `{0}` need one another: no order of loading works")]
    Cycle(ModuleName),
    /// The look-up failed.
    #[error(transparent)]
    LookUp(E),
}

/// Orders `wanted` and everything it needs. `look_up` is asked at most once for each name.
///
/// # Errors
/// A module that a guest cannot be without is missing, modules need one another, or `look_up` fails.
pub fn order<E>(
    wanted: &[Wanted],
    look_up: impl FnMut(&ModuleName) -> Result<Found, E>,
) -> Result<LoadOrder, OrderError<E>> {
    let mut walk = Walk { look_up, found: BTreeMap::new(), placed: BTreeSet::new(), steps: Vec::new() };
    let mut missing = Vec::new();
    let mut by_condition: Vec<_> = wanted.iter().collect();
    by_condition.sort_by_key(|wanted| wanted.condition);
    for wanted in by_condition {
        match walk.place(ModuleName::new(wanted.name), wanted.condition) {
            Err(OrderError::Missing { .. }) if wanted.need != Need::Required => missing.push(*wanted),
            placed => placed?,
        }
    }
    Ok(LoadOrder { steps: walk.steps, missing })
}

/// One step of a depth-first walk that keeps its own stack, so that no directory can exhaust the thread's.
enum Visit {
    /// Put the module's needs on top, and its placing below them.
    Enter { name: ModuleName, optional: bool },
    /// Its needs are placed: place it.
    Place(ModuleName),
}

struct Walk<F> {
    look_up: F,
    found: BTreeMap<ModuleName, Found>,
    placed: BTreeSet<ModuleName>,
    steps: Vec<Step>,
}

impl<F, E> Walk<F>
where
    F: FnMut(&ModuleName) -> Result<Found, E>,
{
    /// Appends `root` and what it still needs, or nothing at all where something is missing.
    fn place(&mut self, root: ModuleName, condition: Condition) -> Result<(), OrderError<E>> {
        let before = self.steps.len();
        let result = self.walk(root, condition);
        if result.is_err() {
            for step in self.steps.drain(before..) {
                self.placed.remove(&step.name);
            }
        }
        result
    }

    fn walk(&mut self, root: ModuleName, condition: Condition) -> Result<(), OrderError<E>> {
        // The modules whose needs are being placed: meeting one of them again is a cycle.
        let mut open = BTreeSet::new();
        let mut stack = vec![Visit::Enter { name: root, optional: false }];
        while let Some(visit) = stack.pop() {
            let (name, optional) = match visit {
                Visit::Enter { name, optional } => (name, optional),
                Visit::Place(name) => {
                    open.remove(&name);
                    self.placed.insert(name.clone());
                    self.steps.push(Step { condition, name });
                    continue;
                }
            };
            if self.placed.contains(&name) || (optional && open.contains(&name)) {
                continue;
            }
            if open.contains(&name) {
                return Err(OrderError::Cycle(name));
            }
            match self.find(&name)? {
                Found::BuiltIn => {}
                Found::Absent if optional => {}
                Found::Absent => return Err(OrderError::Missing { missing: name }),
                Found::Module { needs, likes } => {
                    open.insert(name.clone());
                    stack.push(Visit::Place(name));
                    let enter = |optional| move |name| Visit::Enter { name, optional };
                    stack.extend(needs.into_iter().rev().map(enter(false)));
                    for like in likes.into_iter().rev() {
                        stack.push(enter(true)(self.provider(like)?));
                    }
                }
            }
        }
        Ok(())
    }

    /// The module that stands for what another one likes: the one of that name, or the portable implementation
    /// of the crypto algorithm of that name. modprobe asks `modules.alias`, which an unpacked kernel package
    /// does not have.
    fn provider(&mut self, like: ModuleName) -> Result<ModuleName, OrderError<E>> {
        Ok(match self.find(&like)? {
            Found::Absent => ModuleName::new(&format!("{like}_generic")),
            Found::BuiltIn | Found::Module { .. } => like,
        })
    }

    fn find(&mut self, name: &ModuleName) -> Result<Found, OrderError<E>> {
        if let Some(found) = self.found.get(name) {
            return Ok(found.clone());
        }
        let found = (self.look_up)(name).map_err(OrderError::LookUp)?;
        self.found.insert(name.clone(), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
#[path = "load_order_tests.rs"]
mod tests;
