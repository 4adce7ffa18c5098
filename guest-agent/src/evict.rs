//! The reclaim law's orders: evicts what the workload used least, begins generations, sets how free pages are reported.
//! Wiring. What is evicted is what the kernel's counters say.

#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::time::Instant;

use proto::{Done, ReclaimKind, Reclaimed, Stopped};
use rustix::io::Errno;

use crate::capabilities::{COMPACT, LRU_GEN, REPORTING_ORDER};
use crate::cgroup::{Group, is_workload_path};
use crate::error::{Doing, Error};
use crate::memory::Timed;
use crate::reclaim;
use crate::sample::{self, Lists};

/// Takes anonymous pages twice as gladly as page cache: what the kernel's documentation of `swappiness` gives a swap that
/// is twice as fast as the file system (x + 2x = 200). Compressed memory is faster by more than that, but frees two
/// thirds of a page only.
const PREFERS_SWAP: u8 = 133;
/// The kernel's buddy lists end there (`MAX_PAGE_ORDER`). Linux 6.1 takes any number and reports nothing any more.
const LARGEST_ORDER: u8 = 10;
const SWAPPINESS: &str = "/proc/sys/vm/swappiness";

/// Evicts `bytes` of `kind` from `group`, of pages idle for `older_than_ms` where the kernel tells generations.
pub fn reclaim(
    group: &Group,
    bytes: u64,
    kind: ReclaimKind,
    older_than_ms: Option<u64>,
) -> Result<Done, Error> {
    let begun = Instant::now();
    let before = stolen()?;
    let _swap = match kind {
        ReclaimKind::File => None,
        ReclaimKind::Anon | ReclaimKind::Both => Some(SwapAllowed::to(group)?),
    };
    let lists = older_than_ms.map_or_else(Vec::new, |_| generations());
    let stopped = match older_than_ms {
        Some(idle_ms) if !lists.is_empty() => evict_generations(&lists, bytes, kind, idle_ms, before)?,
        _ => by_request(group, bytes, kind)?,
    };
    let after = stolen()?;
    Ok(Done::Reclaimed(Reclaimed {
        file_pages: after.0.saturating_sub(before.0),
        anon_pages: after.1.saturating_sub(before.1),
        took_us: micros(begun),
        stopped,
    }))
}

/// Begins a new generation in each of the workload's lists.
pub fn age() -> Result<Done, Error> {
    let begun = Instant::now();
    let lists = generations();
    if lists.is_empty() {
        return Err(Error::new("this kernel has no generations of pages to begin"));
    }
    for of in &lists {
        let (Lists { memcg, node, .. }, Some(youngest)) = (of, of.youngest()) else { continue };
        // Anonymous pages too, and even if the oldest generation is merged with the next for that.
        match command(&format!("+ {memcg} {node} {youngest} 1 1")) {
            // It has begun by itself meanwhile, or another pass is under way.
            Ok(()) | Err(Errno::INVAL | Errno::RANGE | Errno::AGAIN | Errno::EXIST) => {}
            Err(errno) => return Err(errno).doing(|| "beginning a generation of pages"),
        }
    }
    Ok(Done::Aged { took_us: micros(begun) })
}

/// Has free pages reported from blocks of `order` on, joined before if `compact`.
pub fn report(order: u8, compact: bool) -> Result<Done, Error> {
    if order > LARGEST_ORDER {
        return Err(Error::new(format!(
            "there are no free blocks of order {order}: the largest is {LARGEST_ORDER}"
        )));
    }
    if compact {
        // A kernel without compaction reports what is whole by chance.
        let _ = fs::write(COMPACT, "1");
    }
    fs::write(REPORTING_ORDER, order.to_string())
        .doing(|| format!("reporting free pages from order {order} on"))?;
    let order = fs::read_to_string(REPORTING_ORDER).doing(|| "reading the order of free page reporting")?;
    let order = order.trim().parse().map_err(|_| Error::new("reading the order of free page reporting"))?;
    Ok(Done::Reporting { order })
}

fn by_request(group: &Group, bytes: u64, kind: ReclaimKind) -> Result<Stopped, Error> {
    let keyed = |swappiness: u8| format!("swappiness={swappiness}");
    let asked = |key: Option<String>| {
        let timed = Timed::of(group, key.as_deref());
        reclaim::trim(&timed, Some(bytes)).map(|trimmed| trimmed.stopped)
    };
    match kind {
        // Nothing may swap.
        ReclaimKind::File => asked(None),
        _ if !group.takes_swappiness() => {
            let _swappiness = Swappiness::of(if kind == ReclaimKind::Anon { 200 } else { PREFERS_SWAP });
            asked(None)
        }
        ReclaimKind::Anon => asked(Some(keyed(200))),
        ReclaimKind::Both => asked(Some(keyed(PREFERS_SWAP))),
    }
}

fn evict_generations(
    lists: &[Lists],
    bytes: u64,
    kind: ReclaimKind,
    idle_ms: u64,
    before: (u64, u64),
) -> Result<Stopped, Error> {
    let swappiness = match kind {
        ReclaimKind::File => 0,
        ReclaimKind::Anon => 200,
        ReclaimKind::Both => PREFERS_SWAP,
    };
    let wanted = bytes / sample::page_bytes();
    for Lists { memcg, node, .. } in lists {
        let Some(number) = lists_now(*memcg, *node).and_then(|lists| lists.evictable(idle_ms)) else {
            continue;
        };
        let now = stolen()?;
        let done = now.0.saturating_sub(before.0).saturating_add(now.1.saturating_sub(before.1));
        let left = wanted.saturating_sub(done);
        if left == 0 {
            break;
        }
        match command(&format!("- {memcg} {node} {number} {swappiness} {left}")) {
            // The generations have moved on meanwhile: the next order sees them.
            Ok(()) | Err(Errno::INVAL | Errno::RANGE | Errno::AGAIN) => {}
            Err(errno) => return Err(errno).doing(|| "evicting a generation of pages"),
        }
    }
    let now = stolen()?;
    let done = now.0.saturating_sub(before.0).saturating_add(now.1.saturating_sub(before.1));
    Ok(if done >= wanted { Stopped::Reached } else { Stopped::NothingLeft })
}

/// The workload's generations; none where the kernel does not tell.
fn generations() -> Vec<Lists> {
    fs::read_to_string(LRU_GEN)
        .map_or_else(|_| Vec::new(), |text| sample::parse_generations(&text, is_workload_path))
}

fn lists_now(memcg: u64, node: u64) -> Option<Lists> {
    generations().into_iter().find(|lists| (lists.memcg, lists.node) == (memcg, node))
}

fn command(words: &str) -> Result<(), Errno> {
    let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut file = OpenOptions::new().write(true).open(LRU_GEN).map_err(errno)?;
    file.write_all(words.as_bytes()).map_err(errno)
}

fn stolen() -> Result<(u64, u64), Error> {
    let text = fs::read_to_string("/proc/vmstat").doing(|| "reading /proc/vmstat")?;
    Ok(sample::stolen(&text))
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// While it lives, the workload may swap.
struct SwapAllowed<'a>(&'a Group);

impl<'a> SwapAllowed<'a> {
    fn to(group: &'a Group) -> Result<Self, Error> {
        group.allow_swap(true)?;
        Ok(Self(group))
    }
}

impl Drop for SwapAllowed<'_> {
    fn drop(&mut self) {
        // What could be set can be set back.
        let _ = self.0.allow_swap(false);
    }
}

/// While it lives, the kernel's own `swappiness` is another: for kernels that take none with a request.
struct Swappiness {
    before: Option<String>,
}

impl Swappiness {
    fn of(value: u8) -> Self {
        let before = fs::read_to_string(SWAPPINESS).ok();
        let _ = fs::write(SWAPPINESS, value.to_string());
        Self { before }
    }
}

impl Drop for Swappiness {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(SWAPPINESS, before.trim());
        }
    }
}
