//! Whether memory may have come or gone since it was read, for less than a reading costs.
//!
//! What the guest touches anew is a fault of the process that runs it, whichever way KVM takes (`mm_account_fault()` in
//! mm/memory.c); what the host takes, or brings by huge pages, shows in the size of what it holds for the process. Both are
//! in `/proc/self/stat` (proc_pid_stat(5)). From Linux 6.2 on the size is exact to some dozen pages for a CPU
//! (`percpu_counter_read()`), so that a host that takes a page or two may not show: who relies on this reads anew at times.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Counts of a process of which one at least changes when memory comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moves {
    /// Its faults, minor and major, since it began.
    pub faults: u64,
    /// Pages that the host holds for it.
    pub resident_pages: u64,
}

/// Tells the [`Moves`] of this process.
#[derive(Debug)]
pub struct MoveCounter(Option<File>);

/// Longer than any line of the file: 52 numbers and a name.
const LINE_BYTES: usize = 2048;
/// Fields of the line behind the name, from 0 on.
const MINOR_FAULTS: usize = 7;
const MAJOR_FAULTS: usize = 9;
const RESIDENT_PAGES: usize = 21;

impl MoveCounter {
    /// Opens what it reads. Afterwards no call opens anything, so a sandbox may be closed.
    #[must_use]
    pub fn probe() -> Self {
        Self(File::open("/proc/self/stat").ok())
    }

    /// The counts now; nothing where the host does not tell them.
    #[must_use]
    pub fn now(&self) -> Option<Moves> {
        let mut line = [0; LINE_BYTES];
        let bytes = self.0.as_ref()?.read_at(&mut line, 0).ok()?;
        parse(std::str::from_utf8(line.get(..bytes)?).ok()?)
    }
}

fn parse(line: &str) -> Option<Moves> {
    // The name is the user's, parentheses and blanks included.
    let (_, rest) = line.rsplit_once(')')?;
    let field = |number| rest.split_ascii_whitespace().nth(number)?.parse::<u64>().ok();
    Some(Moves {
        faults: field(MINOR_FAULTS)?.saturating_add(field(MAJOR_FAULTS)?),
        resident_pages: field(RESIDENT_PAGES)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_name_is() {
        let rest =
            "S 1 2 3 4 -1 4194560 700 11 30 0 5 6 0 0 20 0 3 0 99 400000 1234 18446744073709551615 1 1 0\n";
        for name in ["ballast-vmm", "a b) S 1 2", "(", ""] {
            let moves = parse(&format!("42 ({name}) {rest}"));
            assert_eq!(moves, Some(Moves { faults: 730, resident_pages: 1234 }), "{name:?}");
        }
        for line in
            ["", "42 (x", "42 (x) S 1 2", "42 (x) S 1 2 3 4 5 6 many 8 9 10 11 12 13 14 15 16 17 18 19 20 21"]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_page_that_comes_shows() {
        let counter = MoveCounter::probe();
        let before = counter.now().unwrap();
        // So much comes from the host each time, and not from what was freed before.
        let pages = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = counter.now().unwrap();
        assert!(after.faults > before.faults, "{before:?} {after:?}");
        drop(pages);
    }
}
