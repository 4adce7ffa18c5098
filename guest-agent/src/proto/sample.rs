//! Samples: what the guest's kernel counts of its memory, raw and cumulative, and what this kernel can tell at all.
//!
//! The host takes differences. A sample that is lost or comes twice so changes nothing but how fine they are.

use crate::wire::{Fault, FieldError, Reader, Writer, bad};

/// Most generations of pages in a sample: the multi-generational LRU has no more (`MAX_NR_GENS`).
pub const MAX_AGES: usize = 4;

/// Why a sample was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cause {
    /// It was time.
    #[default]
    Periodic,
    /// The workload waits for memory (PSI trigger).
    Pressure,
    /// An allocation had to reclaim by itself (`allocstall`).
    Stall,
    /// The kernel killed for lack of memory.
    OutOfMemory,
}

impl Cause {
    const ALL: [Self; 4] = [Self::Periodic, Self::Pressure, Self::Stall, Self::OutOfMemory];
}

/// Declares a struct of numbers that travel in the order of its fields.
macro_rules! numbers {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_about])* pub $field: u64,)+
        }

        impl $name {
            fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
                Ok(Self { $($field: reader.u64(stringify!($field))?,)+ })
            }

            fn write(&self, writer: &mut Writer<'_>) {
                $(writer.u64(self.$field);)+
            }

            #[cfg(test)]
            fn numbered(from: u64) -> Self {
                let mut next = from..;
                Self { $($field: next.next().unwrap_or_default(),)+ }
            }
        }
    };
}

numbers! {
    /// What only grows. The names are those of `/proc/vmstat` where none other is said.
    Counters {
        /// `workingset_refault_file`, pages.
        refault_file,
        /// `workingset_refault_anon`, pages.
        refault_anon,
        /// `workingset_activate_file`, pages.
        activate_file,
        /// `workingset_activate_anon`, pages.
        activate_anon,
        /// `workingset_restore_file`, pages.
        restore_file,
        /// `workingset_restore_anon`, pages.
        restore_anon,
        /// `workingset_nodereclaim`: shadows of evicted pages that were dropped, whose refaults nobody will see.
        nodereclaim,
        /// `pgsteal_kswapd`, pages.
        steal_kswapd,
        /// `pgsteal_direct` but for what the agent had evicted by generation, pages.
        steal_direct,
        /// `pgsteal_proactive`, pages; 0 where the kernel does not count them.
        steal_proactive,
        /// `pgscan_kswapd`, pages.
        scan_kswapd,
        /// `pgscan_direct`, pages.
        scan_direct,
        /// `pswpin`, pages.
        swap_in,
        /// `pswpout`, pages.
        swap_out,
        /// `pgmajfault`, faults.
        major_faults,
        /// `allocstall_*`, events.
        alloc_stall,
        /// `oom_kill`, processes.
        oom_kill,
        /// Some task of the workload waited for memory (PSI), microseconds.
        memory_some_us,
        /// All of them did, microseconds.
        memory_full_us,
        /// Some task waited for I/O, microseconds.
        io_some_us,
        /// The part of `memory_some_us` that the agent's own reclaim may be, microseconds: 0 where the workload's waiting
        /// is counted apart.
        own_stall_us,
        /// Time of all CPUs that the workload used, microseconds.
        cpu_busy_us,
    }
}

numbers! {
    /// Sizes now, in bytes. The names are those of `/proc/meminfo`.
    Sizes {
        /// `MemTotal`.
        total,
        /// `MemFree`.
        free,
        /// `MemAvailable`.
        available,
        /// `Active(file)`.
        active_file,
        /// `Inactive(file)`.
        inactive_file,
        /// `Active(anon)`.
        active_anon,
        /// `Inactive(anon)`.
        inactive_anon,
        /// `Unevictable`.
        unevictable,
        /// `Dirty` and `Writeback`.
        dirty,
        /// `Shmem`.
        shmem,
        /// `SReclaimable`.
        slab_reclaimable,
        /// `SwapTotal`.
        swap_total,
        /// `SwapFree`.
        swap_free,
    }
}

numbers! {
    /// A generation of the multi-generational LRU: pages that were used last before the next younger one began.
    Age {
        /// How long ago it began, milliseconds.
        age_ms,
        /// Anonymous memory in it, bytes.
        anon_bytes,
        /// Page cache in it, bytes.
        file_bytes,
    }
}

/// One look at the guest's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Its number, ascending from 1.
    pub sequence: u64,
    /// The guest's monotonic clock, microseconds.
    pub monotonic_us: u64,
    /// Why it was taken.
    pub cause: Cause,
    /// What only grows.
    pub counters: Counters,
    /// What is there now.
    pub sizes: Sizes,
    /// The workload's generations, youngest first, at most [`MAX_AGES`]; none where the kernel does not tell.
    pub ages: Vec<Age>,
}

impl Sample {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            sequence: reader.u64("sequence")?,
            monotonic_us: reader.u64("monotonic_us")?,
            cause: *Cause::ALL.get(usize::from(reader.u8("cause")?)).ok_or(bad("cause", Fault::Invalid))?,
            counters: Counters::read(reader)?,
            sizes: Sizes::read(reader)?,
            ages: reader.list("ages", MAX_AGES, Age::read)?,
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.u64(self.sequence);
        writer.u64(self.monotonic_us);
        writer.u8(self.cause as u8);
        self.counters.write(writer);
        self.sizes.write(writer);
        let ages = self.ages.get(..MAX_AGES).unwrap_or(&self.ages);
        // Not more than the limit by now, which is all that this could fail for.
        let _ = writer.list("ages", ages, MAX_AGES, |writer, age| {
            age.write(writer);
            Ok(())
        });
    }
}

/// What this guest's kernel can tell and do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own to the kernel")]
pub struct Capabilities {
    /// It measures how long tasks wait for memory (PSI).
    pub psi: bool,
    /// It tells at once when they do.
    pub psi_trigger: bool,
    /// It reclaims when it is asked (`memory.reclaim`).
    pub memory_reclaim: bool,
    /// It can be asked for page cache or for anonymous memory only (`swappiness=` of `memory.reclaim`).
    pub reclaim_swappiness: bool,
    /// It tells generations of pages and evicts by them (`lru_gen` of debugfs, with the multi-generational LRU on).
    pub ages: bool,
    /// Anonymous memory can be trimmed: there is swap.
    pub swap: bool,
    /// The order from which on free pages are reported can be set.
    pub reporting_order: bool,
    /// It joins free pages when it is asked.
    pub compaction: bool,
    /// It counts what was reclaimed by request (`pgsteal_proactive`).
    pub proactive_counter: bool,
}

impl Capabilities {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let bits = reader.u16("capabilities")?;
        let has = |bit: u16| bits & bit != 0;
        Ok(Self {
            psi: has(1),
            psi_trigger: has(2),
            memory_reclaim: has(4),
            reclaim_swappiness: has(8),
            ages: has(16),
            swap: has(32),
            reporting_order: has(64),
            compaction: has(128),
            proactive_counter: has(256),
        })
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        let bits = [
            self.psi,
            self.psi_trigger,
            self.memory_reclaim,
            self.reclaim_swappiness,
            self.ages,
            self.swap,
            self.reporting_order,
            self.compaction,
            self.proactive_counter,
        ];
        writer.u16(bits.iter().rev().fold(0, |bits, bit| bits << 1 | u16::from(*bit)));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> impl Strategy<Value = Sample> {
        (any::<[u32; 4]>(), 0..Cause::ALL.len(), 0..=MAX_AGES).prop_map(|(seeds, cause, ages)| {
            let [sequence, counters, sizes, age] = seeds.map(u64::from);
            Sample {
                sequence,
                monotonic_us: sequence << 20,
                cause: Cause::ALL[cause],
                counters: Counters::numbered(counters),
                sizes: Sizes::numbered(sizes),
                ages: (0..ages as u64).map(|n| Age::numbered(age << n)).collect(),
            }
        })
    }

    pub(crate) fn capabilities() -> impl Strategy<Value = Capabilities> {
        (0u16..512).prop_map(|bits| {
            let bytes = bits.to_le_bytes();
            Capabilities::read(&mut Reader::new(&bytes)).unwrap()
        })
    }

    #[test]
    fn causes_have_the_numbers_of_their_places() {
        for (number, cause) in (0..).zip(Cause::ALL) {
            assert_eq!(cause as u8, number);
        }
    }

    #[test]
    fn more_generations_than_there_can_be_are_cut() {
        let sample = Sample { ages: vec![Age::numbered(1); MAX_AGES + 2], ..Sample::default() };
        let mut bytes = Vec::new();
        sample.write(&mut Writer::new(&mut bytes));
        let read = Sample::read(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(read.ages, vec![Age::numbered(1); MAX_AGES]);
    }
}
