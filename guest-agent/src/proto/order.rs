//! Orders: what the host has the agent do to the workload's memory while the workload runs, and what came of it.
//!
//! Each order has a number of the host's choice, and its answer carries it. Orders are carried out one after the
//! other; the agent ends each by itself within [`ORDER_LIMIT_S`].

use crate::Text;
use crate::wire::{Fault, FieldError, Reader, Writer, bad};

/// Seconds that the agent spends on one order. What is not done by then stays undone, and the answer says so.
pub const ORDER_LIMIT_S: u64 = 30;

/// Most orders that the agent takes before the first of them is done. It refuses the next.
pub const MAX_ORDERS: usize = 16;

/// Something to do. Zones have the numbers of their nodes, their places in [`Spec::zones`](crate::Spec::zones).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Limit memory. What is in use above the limit is reclaimed first, and if that is impossible the order is refused
    /// and nothing changes.
    Limit {
        /// The zone whose control group gets `max_bytes` as its `memory.max`. Without one it is the guest that may use
        /// `max_bytes`: the workload gets what the kernel and the agent leave of them.
        zone: Option<u8>,
        /// The limit; `None` lifts it.
        max_bytes: Option<u64>,
    },
    /// Have the kernel evict what the workload used least, and join the free pages so that they can be reported.
    Trim {
        /// Only what is charged to this zone's control group; `None`: all of the workload's.
        zone: Option<u8>,
        /// How much; `None`: everything that can be evicted.
        bytes: Option<u64>,
    },
    /// Move a process and its pages to a zone.
    Move {
        /// Its process id in the guest.
        pid: u32,
        /// Where to.
        zone: u8,
    },
    /// Have the kernel evict what the workload used least, as the reclaim law asks for it.
    Reclaim {
        /// How much.
        bytes: u64,
        /// Of what.
        kind: ReclaimKind,
        /// Only what was not used for so long, where the kernel tells; elsewhere it chooses.
        older_than_ms: Option<u64>,
    },
    /// Begin a new generation of pages, so that those that are used from now on can be told.
    Age,
    /// Report free memory to the host in blocks of at least so many pages.
    Reporting {
        /// Their number, as a power of two.
        order: u8,
        /// Join free pages to blocks before.
        compact: bool,
    },
}

/// Which memory is reclaimed. A kernel that cannot be asked for one kind ([`reclaim_swappiness`]
/// (crate::Capabilities::reclaim_swappiness)) takes no anonymous memory for page cache, and for anonymous memory what it
/// thinks fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReclaimKind {
    /// Page cache.
    File,
    /// Anonymous and shared memory, to swap.
    Anon,
    /// Whatever is coldest.
    Both,
}

impl ReclaimKind {
    const ALL: [Self; 3] = [Self::File, Self::Anon, Self::Both];
}

/// Why a trim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All that was asked for is evicted.
    Reached,
    /// The kernel finds no more: the rest is in use, dirty or locked.
    NothingLeft,
    /// The rest is mostly anonymous memory, which only the law may swap out.
    NoSwap,
    /// The kernel says that it reclaims and does not, as those of 6.17 and 6.18 without NUMA.
    Ineffective,
    /// [`ORDER_LIMIT_S`] are over.
    OutOfTime,
}

impl Stopped {
    const ALL: [Self; 5] =
        [Self::Reached, Self::NothingLeft, Self::NoSwap, Self::Ineffective, Self::OutOfTime];

    fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Self::ALL.get(usize::from(reader.u8("stopped")?)).copied().ok_or(bad("stopped", Fault::Invalid))
    }
}

/// What a trim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// Evicted meanwhile, by the kernel's counter of it.
    pub reclaimed_bytes: u64,
    /// Page cache left.
    pub file_bytes: u64,
    /// Anonymous and shared memory left.
    pub anonymous_bytes: u64,
    /// Why it ended.
    pub stopped: Stopped,
}

/// What came of [`Order::Reclaim`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reclaimed {
    /// Page cache evicted, pages, by the kernel's counters.
    pub file_pages: u64,
    /// Anonymous memory evicted, pages, likewise.
    pub anon_pages: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// Why it ended.
    pub stopped: Stopped,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Of [`Order::Limit`]: both as the kernel says them after it.
    Limited {
        /// `memory.max` of the control group; `None` is unlimited.
        max_bytes: Option<u64>,
        /// `memory.current`.
        current_bytes: u64,
    },
    /// Of [`Order::Trim`].
    Trimmed(Trimmed),
    /// Of [`Order::Move`]: where the memory that the process maps lies after it. What others map as well stays where
    /// it was.
    Moved {
        /// On the zone's node.
        there_bytes: u64,
        /// On other nodes.
        elsewhere_bytes: u64,
    },
    /// Of [`Order::Reclaim`].
    Reclaimed(Reclaimed),
    /// Of [`Order::Age`].
    Aged {
        /// How long it took, microseconds.
        took_us: u64,
    },
    /// Of [`Order::Reporting`].
    Reporting {
        /// The order that the kernel says after it.
        order: u8,
    },
    /// It was not carried out, and why.
    Refused(Text),
}

const LIMIT: u8 = 1;
const TRIM: u8 = 2;
const MOVE: u8 = 3;
const REFUSED: u8 = 4;
const RECLAIM: u8 = 5;
const AGE: u8 = 6;
const REPORTING: u8 = 7;

impl Order {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(match reader.u8("order")? {
            LIMIT => Self::Limit {
                zone: reader.option("zone", |r| r.u8("zone"))?,
                max_bytes: reader.option("max_bytes", |r| r.u64("max_bytes"))?,
            },
            TRIM => Self::Trim {
                zone: reader.option("zone", |r| r.u8("zone"))?,
                bytes: reader.option("bytes", |r| r.u64("bytes"))?,
            },
            MOVE => Self::Move { pid: reader.u32("pid")?, zone: reader.u8("zone")? },
            RECLAIM => Self::Reclaim {
                bytes: reader.u64("bytes")?,
                kind: *ReclaimKind::ALL
                    .get(usize::from(reader.u8("kind")?))
                    .ok_or(bad("kind", Fault::Invalid))?,
                older_than_ms: reader.option("older_than_ms", |r| r.u64("older_than_ms"))?,
            },
            AGE => Self::Age,
            REPORTING => {
                Self::Reporting { order: reader.u8("reporting_order")?, compact: reader.bool("compact")? }
            }
            _ => return Err(bad("order", Fault::Invalid)),
        })
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        match self {
            Self::Limit { zone, max_bytes } => {
                writer.u8(LIMIT);
                writer.option(zone, Writer::u8);
                writer.option(max_bytes, Writer::u64);
            }
            Self::Trim { zone, bytes } => {
                writer.u8(TRIM);
                writer.option(zone, Writer::u8);
                writer.option(bytes, Writer::u64);
            }
            Self::Move { pid, zone } => {
                writer.u8(MOVE);
                writer.u32(pid);
                writer.u8(zone);
            }
            Self::Reclaim { bytes, kind, older_than_ms } => {
                writer.u8(RECLAIM);
                writer.u64(bytes);
                writer.u8(kind as u8);
                writer.option(older_than_ms, Writer::u64);
            }
            Self::Age => writer.u8(AGE),
            Self::Reporting { order, compact } => {
                writer.u8(REPORTING);
                writer.u8(order);
                writer.bool(compact);
            }
        }
    }
}

impl Done {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(match reader.u8("result")? {
            LIMIT => Self::Limited {
                max_bytes: reader.option("max_bytes", |r| r.u64("max_bytes"))?,
                current_bytes: reader.u64("current_bytes")?,
            },
            TRIM => Self::Trimmed(Trimmed {
                reclaimed_bytes: reader.u64("reclaimed_bytes")?,
                file_bytes: reader.u64("file_bytes")?,
                anonymous_bytes: reader.u64("anonymous_bytes")?,
                stopped: Stopped::read(reader)?,
            }),
            MOVE => Self::Moved {
                there_bytes: reader.u64("there_bytes")?,
                elsewhere_bytes: reader.u64("elsewhere_bytes")?,
            },
            RECLAIM => Self::Reclaimed(Reclaimed {
                file_pages: reader.u64("file_pages")?,
                anon_pages: reader.u64("anon_pages")?,
                took_us: reader.u64("took_us")?,
                stopped: Stopped::read(reader)?,
            }),
            AGE => Self::Aged { took_us: reader.u64("took_us")? },
            REPORTING => Self::Reporting { order: reader.u8("reporting_order")? },
            REFUSED => Self::Refused(Text::read(reader, "reason")?),
            _ => return Err(bad("result", Fault::Invalid)),
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Limited { max_bytes, current_bytes } => {
                writer.u8(LIMIT);
                writer.option(*max_bytes, Writer::u64);
                writer.u64(*current_bytes);
            }
            Self::Trimmed(trimmed) => {
                writer.u8(TRIM);
                writer.u64(trimmed.reclaimed_bytes);
                writer.u64(trimmed.file_bytes);
                writer.u64(trimmed.anonymous_bytes);
                writer.u8(trimmed.stopped as u8);
            }
            Self::Moved { there_bytes, elsewhere_bytes } => {
                writer.u8(MOVE);
                writer.u64(*there_bytes);
                writer.u64(*elsewhere_bytes);
            }
            Self::Reclaimed(reclaimed) => {
                writer.u8(RECLAIM);
                writer.u64(reclaimed.file_pages);
                writer.u64(reclaimed.anon_pages);
                writer.u64(reclaimed.took_us);
                writer.u8(reclaimed.stopped as u8);
            }
            Self::Aged { took_us } => {
                writer.u8(AGE);
                writer.u64(*took_us);
            }
            Self::Reporting { order } => {
                writer.u8(REPORTING);
                writer.u8(*order);
            }
            Self::Refused(reason) => {
                writer.u8(REFUSED);
                reason.write(writer);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn order() -> impl Strategy<Value = Order> {
        prop_oneof![
            (any::<Option<u8>>(), any::<Option<u64>>())
                .prop_map(|(zone, max_bytes)| Order::Limit { zone, max_bytes }),
            (any::<Option<u8>>(), any::<Option<u64>>()).prop_map(|(zone, bytes)| Order::Trim { zone, bytes }),
            (any::<u32>(), any::<u8>()).prop_map(|(pid, zone)| Order::Move { pid, zone }),
            (any::<u64>(), 0..ReclaimKind::ALL.len(), any::<Option<u64>>()).prop_map(
                |(bytes, kind, older_than_ms)| Order::Reclaim {
                    bytes,
                    kind: ReclaimKind::ALL[kind],
                    older_than_ms
                }
            ),
            Just(Order::Age),
            (any::<u8>(), any::<bool>()).prop_map(|(order, compact)| Order::Reporting { order, compact }),
        ]
    }

    pub(crate) fn done() -> impl Strategy<Value = Done> {
        let trimmed = (any::<[u64; 3]>(), 0..Stopped::ALL.len()).prop_map(|(bytes, stopped)| Trimmed {
            reclaimed_bytes: bytes[0],
            file_bytes: bytes[1],
            anonymous_bytes: bytes[2],
            stopped: Stopped::ALL[stopped],
        });
        prop_oneof![
            (any::<Option<u64>>(), any::<u64>())
                .prop_map(|(max_bytes, current_bytes)| Done::Limited { max_bytes, current_bytes }),
            trimmed.prop_map(Done::Trimmed),
            any::<[u64; 2]>()
                .prop_map(|[there_bytes, elsewhere_bytes]| Done::Moved { there_bytes, elsewhere_bytes }),
            (any::<[u64; 3]>(), 0..Stopped::ALL.len()).prop_map(|(numbers, stopped)| {
                let [file_pages, anon_pages, took_us] = numbers;
                Done::Reclaimed(Reclaimed { file_pages, anon_pages, took_us, stopped: Stopped::ALL[stopped] })
            }),
            any::<u64>().prop_map(|took_us| Done::Aged { took_us }),
            any::<u8>().prop_map(|order| Done::Reporting { order }),
            "(?s).{0,60}".prop_map(|reason| Done::Refused(Text::new(&reason))),
        ]
    }

    #[test]
    fn reasons_have_the_numbers_of_their_places() {
        for (number, stopped) in (0..).zip(Stopped::ALL) {
            assert_eq!(stopped as u8, number);
        }
        for (number, kind) in (0..).zip(ReclaimKind::ALL) {
            assert_eq!(kind as u8, number);
        }
    }
}
