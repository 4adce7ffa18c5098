//! Whether memory may have come or gone since it was read, for less than a reading costs.
//!
//! What the guest touches anew is a fault of the process that runs it (`mm_account_fault()` in mm/memory.c); what the host
//! takes, fetches from swap for KVM (virt/kvm/async_pf.c) or brings by huge pages shows in the size of what it holds for the
//! process. Both are in `/proc/self/stat` (proc_pid_stat(5)). That huge pages take the place of small ones, all of which are
//! there, shows in neither: who relies on this reads anew at times.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt::Debug;
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

/// Who can say that memory moves.
pub trait CountMoves: Debug + Send {
    /// The counts now; nothing where the host does not tell them.
    fn now(&self) -> Option<Moves>;

    /// Whether a page that the host takes or fetches shows, and not only many.
    fn is_exact(&self) -> bool;
}

/// Tells the [`Moves`] of this process.
#[derive(Debug)]
pub struct MoveCounter {
    stat: Option<File>,
    is_exact: bool,
}

/// From this Linux on each CPU keeps a part of a process's size to itself: up to twice as many pages as there are CPUs, and 32
/// at least (include/linux/percpu_counter.h).
const BY_CPU: (u64, u64) = (6, 2);

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
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self {
            stat: File::open("/proc/self/stat").ok(),
            is_exact: version(&release).is_some_and(|version| version < BY_CPU),
        }
    }
}

impl CountMoves for MoveCounter {
    fn is_exact(&self) -> bool {
        self.is_exact
    }

    fn now(&self) -> Option<Moves> {
        let mut line = [0; LINE_BYTES];
        let bytes = self.stat.as_ref()?.read_at(&mut line, 0).ok()?;
        parse(std::str::from_utf8(line.get(..bytes)?).ok()?)
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u64, u64)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
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
    fn versions_are_told_apart() {
        assert!(version("6.1.0-57-cloud-amd64").unwrap() < BY_CPU && version("5.10").unwrap() < BY_CPU);
        assert!(version("6.2.0").unwrap() >= BY_CPU && version("6.12.1+bpo").unwrap() >= BY_CPU);
        assert_eq!((version(""), version("6"), version("linux")), (None, None, None));
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
