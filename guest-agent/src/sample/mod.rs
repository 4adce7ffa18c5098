//! Samples for the host. Wiring: files of the kernel that stay open, and what it tells by itself of pressure and kills.
//!
//! The supervisor asks how long it may sleep, wakes the sampler up and sends what it takes. Texts, generations and times
//! are the submodules'.

#![forbid(unsafe_code)]

mod cadence;
mod generations;
mod own_evictions;
mod text;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use proto::{Capabilities, Counters, Reclaimed, Sample, ToHost};

use crate::capabilities::{LRU_GEN, probe};
use crate::cgroup::{self, WORKLOAD};
use crate::clock;
use crate::proactive::Proactive;
use crate::swap::Swap;
use cadence::{Cadence, FIRST_PACE_MS};
use own_evictions::OwnEvictions;

pub use generations::{Lists, parse as parse_generations};
pub use text::stolen;

/// Holds each of the kernel's texts: `/proc/vmstat` of Linux 6.12 has 5 KiB, and 64 lists of generations as many.
const TEXT_BYTES: usize = 16 << 10;
/// Tells at once when some of the workload's tasks have waited for memory for 20 ms of half a second: beyond what a guest
/// loses by a first fault or two, before a person notices. The kernel looks ten times a window.
const TRIGGER: &str = "some 20000 500000";

/// What is watched beside the clock.
#[derive(Debug)]
pub struct Watched {
    /// Its pressure trigger.
    pub pressure: Option<File>,
    /// `memory.events` of the workload.
    pub events: Option<File>,
}

/// Takes samples.
#[derive(Debug)]
pub struct Sampler<'a> {
    vmstat: File,
    meminfo: File,
    memory_pressure: Option<File>,
    io_pressure: Option<File>,
    cpu: Option<File>,
    generations: Option<File>,
    watched: Watched,
    text: Box<[u8]>,
    cadence: Cadence,
    sequence: u64,
    /// Processes of the workload's that the kernel has killed for lack of memory.
    kills: u64,
    /// What the host was told.
    capabilities: Option<Capabilities>,
    /// Waiting is counted for the whole guest, the agent's own reclaim included.
    counts_own: bool,
    own_stall_us: u64,
    by_generation: OwnEvictions,
    swap: Option<Swap<'a>>,
    proactive: Proactive,
}

impl<'a> Sampler<'a> {
    /// A sampler of the workload that has just begun, which is to have `swap`; none if the kernel does not tell anything.
    pub fn new(swap: Option<Swap<'a>>) -> Option<Self> {
        let workload = |name: &str| File::open(format!("{WORKLOAD}/{name}")).ok();
        let memory_pressure = workload("memory.pressure");
        let counts_own = memory_pressure.is_none();
        let everybody = |name: &str| File::open(format!("/proc/pressure/{name}")).ok();
        let trigger =
            if counts_own { "/proc/pressure/memory".into() } else { format!("{WORKLOAD}/memory.pressure") };
        Some(Self {
            vmstat: File::open("/proc/vmstat").ok()?,
            meminfo: File::open("/proc/meminfo").ok()?,
            memory_pressure: memory_pressure.or_else(|| everybody("memory")),
            io_pressure: workload("io.pressure").or_else(|| everybody("io")),
            cpu: workload("cpu.stat"),
            generations: None,
            watched: Watched { pressure: set_trigger(&trigger), events: workload("memory.events") },
            text: vec![0; TEXT_BYTES].into(),
            cadence: Cadence::new(clock::monotonic_us()),
            sequence: 0,
            kills: 0,
            capabilities: None,
            counts_own,
            own_stall_us: 0,
            by_generation: OwnEvictions::default(),
            swap,
            proactive: Proactive::default(),
        })
    }

    /// What becomes urgent (`EPOLLPRI`) when the workload waits for memory: [`Self::alarm`].
    pub fn pressure(&self) -> Option<BorrowedFd<'_>> {
        self.watched.pressure.as_ref().map(File::as_fd)
    }

    /// What does when something happens in its control groups: [`Self::look_for_kills`].
    pub fn events(&self) -> Option<BorrowedFd<'_>> {
        self.watched.events.as_ref().map(File::as_fd)
    }

    /// The host is to know at once.
    pub fn alarm(&mut self) {
        self.cadence.alarm();
    }

    /// Of all that happens there a kill is news. That a group is at its limit, as one that reads files is all the time, is
    /// told as well, at each page.
    pub fn look_for_kills(&mut self) {
        let Some(events) = &self.watched.events else { return };
        let kills = cgroup::oom_kills(look(events, &mut self.text));
        if kills > self.kills {
            self.kills = kills;
            self.cadence.alarm();
        }
    }

    /// The host's wish.
    pub fn set_pace(&mut self, sample_ms: u32) {
        self.cadence.set_pace(sample_ms);
        // Whose law has free memory joined by itself.
        let joins = |can: &Capabilities| can.memory_reclaim && can.reporting_order && can.compaction;
        if self.capabilities.as_ref().is_some_and(joins) {
            self.proactive.follow(sample_ms);
        }
    }

    /// The agent begins to evict by generation.
    pub fn evicts_generations(&mut self) {
        let counter = self.steal_direct();
        self.by_generation.begin(counter);
    }

    /// It has evicted so much, by generation or otherwise.
    pub fn evicted(&mut self, reclaimed: &Reclaimed) {
        if self.counts_own {
            self.own_stall_us = self.own_stall_us.saturating_add(reclaimed.took_us);
        }
        self.end_eviction(reclaimed.file_pages.saturating_add(reclaimed.anon_pages));
    }

    /// It evicts nothing, whatever became of what it had begun.
    pub fn evicts_nothing(&mut self) {
        self.end_eviction(u64::MAX);
    }

    fn end_eviction(&mut self, pages: u64) {
        if self.by_generation.is_under_way() {
            let counter = self.steal_direct();
            self.by_generation.end(counter, pages);
        }
    }

    fn steal_direct(&mut self) -> u64 {
        let mut counters = Counters::default();
        text::vmstat(look(&self.vmstat, &mut self.text), &mut counters);
        counters.steal_direct
    }

    /// Time until the next sample.
    pub fn wait(&self) -> Duration {
        Duration::from_micros(self.cadence.wait_us(clock::monotonic_us()))
    }

    /// Takes a sample if it is time, and hands it to `tell`, after what this kernel can do where that is news.
    /// `tell` says whether the host will hear it.
    pub fn take(&mut self, mut tell: impl FnMut(&ToHost) -> bool) {
        let now_us = clock::monotonic_us();
        if self.cadence.wait_us(now_us) > 0 {
            return;
        }
        let sizes = text::meminfo(look(&self.meminfo, &mut self.text));
        let known = self.capabilities.unwrap_or_else(|| {
            let known = probe(self.watched.pressure.is_some());
            self.generations = if known.ages { File::open(LRU_GEN).ok() } else { None };
            known
        });
        let known = Capabilities { swap: sizes.swap_total > 0, ..known };
        if self.capabilities != Some(known) && tell(&ToHost::Capabilities(known)) {
            self.capabilities = Some(known);
            // With them the host's law begins anew, and its pace does.
            self.set_pace(FIRST_PACE_MS);
        }
        let counters = self.counters();
        let ages = match &self.generations {
            Some(file) => {
                let lists = parse_generations(look(file, &mut self.text), cgroup::is_workload_path);
                generations::ages(&lists, page_bytes())
            }
            None => Vec::new(),
        };
        self.sequence += 1;
        let cause = self.cadence.take(now_us, &counters);
        let sample = Sample { sequence: self.sequence, monotonic_us: now_us, cause, counters, sizes, ages };
        tell(&ToHost::Sample(Box::new(sample)));
        if let Some(swap) = self.swap.take_if(|swap| swap.is_due(now_us)) {
            swap.begin();
        }
    }

    fn counters(&mut self) -> Counters {
        let Self { text, memory_pressure, io_pressure, cpu, .. } = self;
        let mut counters = Counters { own_stall_us: self.own_stall_us, ..Counters::default() };
        text::vmstat(look(&self.vmstat, text), &mut counters);
        counters.steal_direct = self.by_generation.others(counters.steal_direct);
        if let Some(file) = memory_pressure {
            (counters.memory_some_us, counters.memory_full_us) = text::pressure(look(file, text));
        }
        if let Some(file) = io_pressure {
            counters.io_some_us = text::pressure(look(file, text)).0;
        }
        if let Some(file) = cpu {
            counters.cpu_busy_us = text::cpu_usage(look(file, text));
        }
        counters
    }
}

/// Bytes of a page.
pub fn page_bytes() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

/// What a file of the kernel's says now, up to the last whole line that fits; nothing where it cannot be read.
fn look<'a>(file: &File, text: &'a mut [u8]) -> &'a str {
    let mut filled = 0;
    while let Some(rest) = text.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) | Err(_) => break,
            Ok(n) => filled += n,
        }
    }
    let text = text.get(..filled).unwrap_or_default();
    let end = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    std::str::from_utf8(text.get(..end).unwrap_or_default()).unwrap_or_default()
}

/// Has the kernel watch the waiting of a pressure file; `None` where it cannot.
fn set_trigger(path: &str) -> Option<File> {
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    rustix::io::write(&file, format!("{TRIGGER}\0").as_bytes()).ok()?;
    Some(file)
}
