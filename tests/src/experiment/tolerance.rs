//! Pages that are used twice in a working-set age and pages that are used every other one: which stay. Wiring.

use super::kept::{Access, Kept};
use super::load::{MIB, PAGE, filled, forget};
use super::meter::Meter;
use rustix::fs::{Advice, fadvise, major, minor};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::fs::{self, File};
use std::io::{self, IoSliceMut, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory};

/// The working-set age: the default.
const AGE: Duration = Duration::from_secs(300);
/// Used every so many tenths of it, and how many MiB there are of that, of all kinds together. What is used seldom is so little
/// that fetching it again, 100 us a page, stays within half of the stall budget.
const SETS: [(u64, u64); 2] = [(5, 48), (20, 12)];
const TICK: Duration = Duration::from_secs(1);

enum Pages {
    Mapped(MmapRegion),
    Read(File),
    Anonymous(Vec<u8>),
}

struct Set {
    pages: Pages,
    count: u64,
    used: u64,
    kept: Kept,
}

/// Uses the pages of a set of each of `kinds` in turn, evenly over the time after which each is due again.
pub(super) fn run(directory: &Path, length: Duration, kinds: &[Access]) -> io::Result<()> {
    stop_readahead(directory)?;
    let mut sets = Vec::new();
    for (every_tenths, of_all) in SETS {
        let mib = of_all / kinds.len() as u64;
        for access in kinds.iter().copied() {
            let path = directory.join(format!("{access:?}-{every_tenths}"));
            let pages = Pages::new(access, &path, mib)?;
            let count = mib * MIB / PAGE as u64;
            sets.push(Set { pages, count, used: 0, kept: Kept::new(access, every_tenths) });
        }
    }
    let mut meter = Meter::default();
    meter.start()?;
    let start = Instant::now();
    while start.elapsed() < length {
        let passed = start.elapsed();
        let age = (passed.as_millis() / AGE.as_millis()) as usize;
        sets.iter_mut().try_for_each(|set| set.use_until(passed, age))?;
        meter.tell()?;
        sleep(TICK);
    }
    for set in &sets {
        let mut line = serde_json::to_vec(&set.kept)?;
        line.push(b'\n');
        io::stdout().write_all(&line)?;
    }
    meter.finish()
}

/// Has the kernel fetch nothing of the file system that `directory` is on before it is used. Advice on a mapping would do so,
/// too, and have the kernel take for unused what is used there (`vma_has_recency` of include/linux/mm_inline.h, Linux 6.3).
fn stop_readahead(directory: &Path) -> io::Result<()> {
    let sys = directory.join("sys");
    fs::create_dir_all(&sys)?;
    if !Command::new("mount").args(["-t", "sysfs", "sysfs"]).arg(&sys).status()?.success() {
        return Err(io::Error::other("cannot mount a sysfs"));
    }
    let device = fs::metadata(directory)?.dev();
    fs::write(sys.join(format!("class/bdi/{}:{}/read_ahead_kb", major(device), minor(device))), "0")
}

impl Set {
    fn use_until(&mut self, passed: Duration, age: usize) -> io::Result<()> {
        let round_ms = AGE.as_millis() as u64 * self.kept.every_tenths / 10;
        let due = passed.as_millis() as u64 * self.count / round_ms;
        while self.used < due {
            let there = self.pages.touch((self.used % self.count) as usize)?;
            if self.used >= self.count {
                self.kept.used(age, there);
            }
            self.used += 1;
        }
        Ok(())
    }
}

impl Pages {
    fn new(access: Access, path: &Path, mib: u64) -> io::Result<Self> {
        let bytes = (mib * MIB) as usize;
        if access == Access::Anonymous {
            return Ok(Self::Anonymous(vec![1; bytes]));
        }
        let file = filled(path, mib)?;
        forget(&file)?;
        if access == Access::Read {
            fadvise(&file, 0, None, Advice::Random)?;
            return Ok(Self::Read(file));
        }
        MmapRegion::from_file(FileOffset::new(file, 0), bytes).map(Self::Mapped).map_err(io::Error::other)
    }

    /// Uses a page, and says whether it was in memory.
    fn touch(&self, page: usize) -> io::Result<bool> {
        let at = page * PAGE;
        match self {
            Self::Read(file) => {
                let mut buffer = [0; PAGE];
                let slices = &mut [IoSliceMut::new(&mut buffer)];
                match preadv2(file, slices, at as u64, ReadWriteFlags::NOWAIT) {
                    Ok(_) => Ok(true),
                    Err(Errno::AGAIN) => preadv2(file, slices, at as u64, ReadWriteFlags::empty())
                        .map(|_| false)
                        .map_err(Into::into),
                    Err(errno) => Err(errno.into()),
                }
            }
            Self::Mapped(region) => without_major_fault(|| {
                let byte: u8 = region.as_volatile_slice().read_obj(at).map_err(io::Error::other)?;
                std::hint::black_box(byte);
                Ok(())
            }),
            Self::Anonymous(bytes) => without_major_fault(|| {
                std::hint::black_box(std::hint::black_box(bytes)[at]);
                Ok(())
            }),
        }
    }
}

/// A fault that has to fetch the page from somewhere is a major one.
fn without_major_fault(touch: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
    let before = major_faults()?;
    touch()?;
    Ok(major_faults()? == before)
}

/// Of this process: `majflt`, the tenth number after the name in parentheses.
fn major_faults() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let field = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(9)?.parse().ok());
    field.ok_or_else(|| io::Error::other(format!("no majflt in {stat:?}")))
}
