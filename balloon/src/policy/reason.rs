//! Why an order was given: the rule, with the numbers that decided it, and in words for `ballast why`.

use super::state::{Signal, State};
use crate::size::Size;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The rule that brought an order about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The regular step: a share of the memory on the LRU lists, less the more it hurts.
    Step {
        /// On the LRU lists and possible to reclaim.
        lru_bytes: u64,
        /// Verified to be older than the working-set age.
        cold_bytes: u64,
        /// Working-set age as it stands under pressure.
        age_ms: u64,
        /// Memory stall of the window, without the agent's own.
        stall_ppm: u64,
        /// Refaults of what was trimmed, per second, in thousandths.
        refault_millis: u64,
        /// Harm: 1000 is as much as the budget allows.
        harm_permille: u64,
        /// Pressure on the microVM: 1000 is none.
        lambda_permille: u64,
    },
    /// Page cache grew without refaults: what came in is used once.
    Stream {
        /// By how much it grew beyond what refaults explain.
        grown_bytes: u64,
        /// What it may grow unexplained.
        allowance_bytes: u64,
        /// Pages that refaulted since the last sample.
        refault_pages: u64,
    },
    /// The daemon wants memory back now.
    Directed {
        /// What it wants.
        take_bytes: u64,
        /// What the host holds.
        resident_bytes: u64,
        /// What the guest is not taken below.
        floor_bytes: u64,
    },
    /// The age of what lies on the lists is to be known.
    Aging {
        /// Working-set age.
        age_ms: u64,
        /// Time since the last pass.
        since_ms: u64,
    },
    /// The guest is idle.
    Idle {
        /// For how long.
        idle_ms: u64,
        /// Free in it.
        free_bytes: u64,
    },
    /// The guest is busy: share of one CPU.
    Busy {
        /// 1000 is one CPU.
        cpu_permille: u64,
    },
    /// The guest suffers.
    Pressure {
        /// How it was noticed.
        signal: Signal,
        /// Memory stall of the last sample's interval.
        stall_ppm: u64,
        /// How often within the time that is remembered.
        repeats: u64,
        /// What the ceiling was.
        ceiling_bytes: u64,
        /// What the daemon lets it rise by.
        grant_bytes: u64,
    },
    /// The balloon fetches what the guest has free and its kernel is slow to report.
    Gather {
        /// So much of what the host holds.
        free_bytes: u64,
        /// What the guest uses.
        used_bytes: u64,
    },
    /// Limits are these.
    Limits {
        /// Lowest max.
        max_bytes: u64,
        /// Lowest high, if there is one.
        high_bytes: Option<u64>,
        /// The floor.
        floor_bytes: u64,
    },
    /// What was lifted is unused.
    Unused {
        /// The ceiling now.
        ceiling_bytes: u64,
        /// What the guest uses.
        used_bytes: u64,
        /// Time without pressure.
        calm_ms: u64,
    },
    /// By statistics of the balloon's driver alone.
    Statistics {
        /// What the guest uses, without its caches.
        used_bytes: u64,
        /// Its page cache.
        cache_bytes: u64,
        /// Ceiling less what it is to be left.
        slack_bytes: u64,
        /// Harm: 1000 is as much as the budget allows.
        harm_permille: u64,
    },
    /// The user wants it so.
    Manual {
        /// The ceiling.
        ceiling_bytes: u64,
    },
    /// The user has switched the law off.
    Off,
    /// Nothing has been heard of the guest.
    Silent {
        /// For how long.
        silent_ms: u64,
        /// Memory pressure of the host.
        host_stall_ppm: u64,
        /// Available on the host.
        host_available_permille: u64,
    },
    /// The guest has started, anew, or the law has.
    Started {
        /// When trimming begins.
        until_ms: u64,
    },
    /// The guest's kernel forgot evictions.
    Forgotten {
        /// How many nodes of shadow entries.
        nodes: u64,
        /// Share of the last half minute in which tasks waited for I/O.
        io_ppm: u64,
        /// When trimming goes on.
        until_ms: u64,
    },
    /// The guest freed memory, and the host did not get it.
    NoGain {
        /// What the guest freed.
        freed_bytes: u64,
        /// By how much the host's holding fell.
        gained_bytes: u64,
        /// When trimming goes on.
        until_ms: u64,
    },
    /// Orders to reclaim bring nothing.
    NoYield {
        /// How many in a row.
        orders: u64,
        /// When trimming goes on.
        until_ms: u64,
    },
    /// What kept the law from trimming is over.
    Resumed {
        /// What it was.
        after: State,
    },
    /// Where the numbers come from has changed.
    Source {
        /// To this.
        source: Source,
    },
}

/// Where the law has its numbers from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Nowhere.
    #[default]
    None,
    /// The agent: refaults and pressure.
    Agent,
    /// The agent, of a kernel without pressure: refaults, each at its assumed cost.
    AgentWithoutPressure,
    /// The balloon's driver, from Linux 6.12 on: faults that needed the disk, swap, waits for reclaim.
    StatisticsWithStalls,
    /// The balloon's driver: faults that needed the disk, swap.
    Statistics,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "nothing: no agent speaks, and no balloon driver",
            Self::Agent => "refaults and memory pressure, by the agent",
            Self::AgentWithoutPressure => "refaults, by the agent of a kernel without pressure statistics",
            Self::StatisticsWithStalls => {
                "faults from disk, swap and allocation stalls, by the balloon's driver"
            }
            Self::Statistics => "faults from disk and swap, by the balloon's driver",
        })
    }
}

/// Parts per million, as per cent.
struct Percent(u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.checked_div(10_000), self.0.checked_rem(10_000));
        write!(f, "{}.{:03} %", whole.unwrap_or(0), rest.unwrap_or(0).div_euclid(10))
    }
}

/// Thousandths.
struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0.div_euclid(1000), self.0.rem_euclid(1000))
    }
}

/// Milliseconds, as seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..10_000 => {
                write!(f, "{}.{} s", self.0.div_euclid(1000), self.0.rem_euclid(1000).div_euclid(100))
            }
            _ => write!(f, "{} s", self.0.div_euclid(1000)),
        }
    }
}

impl fmt::Display for Reason {
    #[expect(clippy::too_many_lines, reason = "one sentence for each reason")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = Size::from_bytes;
        match *self {
            Self::Step {
                lru_bytes,
                cold_bytes,
                age_ms,
                stall_ppm,
                refault_millis,
                harm_permille,
                lambda_permille,
            } => {
                write!(
                    f,
                    "regular step: {} on the lists, {} of it unused for {}; stall {}, {} refaults/s of what was \
                     trimmed, harm {} of the budget",
                    size(lru_bytes),
                    size(cold_bytes),
                    Seconds(age_ms),
                    Percent(stall_ppm),
                    Thousandths(refault_millis),
                    Thousandths(harm_permille)
                )?;
                if lambda_permille > 1000 {
                    write!(f, "; pressure {}", Thousandths(lambda_permille))
                } else {
                    Ok(())
                }
            }
            Self::Stream { grown_bytes, allowance_bytes, refault_pages } => write!(
                f,
                "a stream recycles its own pages: page cache grew {} beyond what refaults explain ({refault_pages} \
                 pages), allowed are {}",
                size(grown_bytes),
                size(allowance_bytes)
            ),
            Self::Directed { take_bytes, resident_bytes, floor_bytes } => write!(
                f,
                "ballastd takes {} back (`ballast events` says for whom): it holds {} and leaves at least {}",
                size(take_bytes),
                size(resident_bytes),
                size(floor_bytes)
            ),
            Self::Gather { free_bytes, used_bytes } => write!(
                f,
                "the balloon fetches for a moment what the guest has freed and is slow to report: the host holds {} that are \
                 free, {} are used",
                size(free_bytes),
                size(used_bytes)
            ),
            Self::Aging { age_ms, since_ms } => write!(
                f,
                "aging pass, the last was {} ago, to tell what is unused for {}",
                Seconds(since_ms),
                Seconds(age_ms)
            ),
            Self::Idle { idle_ms, free_bytes } => {
                write!(f, "the guest is idle for {}, {} are free in it", Seconds(idle_ms), size(free_bytes))
            }
            Self::Busy { cpu_permille } => write!(f, "the guest is busy: {} CPUs", Thousandths(cpu_permille)),
            Self::Pressure { signal, stall_ppm, repeats, ceiling_bytes, grant_bytes } => write!(
                f,
                "the guest suffers: {signal}, stall {}; time {} in a while; ceiling {}, granted {}",
                Percent(stall_ppm),
                repeats.saturating_add(1),
                size(ceiling_bytes),
                size(grant_bytes)
            ),
            Self::Limits { max_bytes, high_bytes, floor_bytes } => {
                write!(f, "limits: max {}, ", size(max_bytes))?;
                match high_bytes {
                    Some(high) => write!(f, "high {}, ", size(high))?,
                    None => f.write_str("no high, ")?,
                }
                write!(f, "floor {}", size(floor_bytes))
            }
            Self::Unused { ceiling_bytes, used_bytes, calm_ms } => write!(
                f,
                "no pressure for {}: of a ceiling of {} the guest uses {}",
                Seconds(calm_ms),
                size(ceiling_bytes),
                size(used_bytes)
            ),
            Self::Statistics { used_bytes, cache_bytes, slack_bytes, harm_permille } => write!(
                f,
                "by the balloon's statistics: {} in use, {} page cache, {} more than that needs, harm {} of the budget",
                size(used_bytes),
                size(cache_bytes),
                size(slack_bytes),
                Thousandths(harm_permille)
            ),
            Self::Manual { ceiling_bytes } => write!(f, "set by hand to {}", size(ceiling_bytes)),
            Self::Off => f.write_str("switched off"),
            Self::Silent { silent_ms, host_stall_ppm, host_available_permille } => write!(
                f,
                "nothing heard of the guest for {}; the host stalls {} and has {} of its memory available",
                Seconds(silent_ms),
                Percent(host_stall_ppm),
                Percent(host_available_permille.saturating_mul(1000))
            ),
            Self::Started { until_ms } => write!(f, "started: no trimming until {}", Seconds(until_ms)),
            Self::Forgotten { nodes, io_ppm, until_ms } => write!(
                f,
                "the guest's kernel forgot evictions ({nodes} nodes), so that refaults cannot be seen, and tasks wait \
                 for I/O {} of the time: no trimming until {}",
                Percent(io_ppm),
                Seconds(until_ms)
            ),
            Self::NoGain { freed_bytes, gained_bytes, until_ms } => write!(
                f,
                "the guest freed {}, of which the host got {}: no trimming until {}",
                size(freed_bytes),
                size(gained_bytes),
                Seconds(until_ms)
            ),
            Self::NoYield { orders, until_ms } => {
                write!(
                    f,
                    "{orders} orders to reclaim brought nothing: no trimming until {}",
                    Seconds(until_ms)
                )
            }
            Self::Resumed { after } => write!(f, "over: {after}"),
            Self::Source { source } => write!(f, "going by {source}"),
        }
    }
}
