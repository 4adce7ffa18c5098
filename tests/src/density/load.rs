//! What the guests of the mix do, each as a person would describe it. Wiring.
//!
//! Each fits a guest of 256 MiB with room to spare and uses most of what it once read or made seldom or never again. They
//! read the file `data` of their directory, of 512 MiB. What they do takes little time of a CPU, so that memory is what
//! a host of many runs out of.

use super::kind::Kind;
use super::told::Told;
use crate::experiment::beat::Counters;
use crate::experiment::zipf::Zipf;
use oorandom::Rand64;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;
/// Files are read through in such pieces.
const CHUNK: usize = 64 << 10;
/// Between two lines.
const TELL: Duration = Duration::from_secs(15);
/// What a start reads comes at 16 MiB/s: a host that has to make room must be able to.
const PACE: Duration = Duration::from_millis(62);

/// Does it until the guest ends. `number` is the guest's, for all to differ.
///
/// # Errors
/// The disk fails, or nobody listens.
pub fn run(kind: Kind, number: usize, directory: &Path) -> io::Result<()> {
    let data = File::open(directory.join("data"))?;
    match kind {
        Kind::Idle => idle(&data, number),
        Kind::Store => store(&data, number),
        Kind::Compile => compile(&data, directory),
        Kind::Scan => scan(&data, number),
    }
}

/// Reads 96 MiB of programs and assets when it starts and makes 48 MiB of its own, of which it needs 4 again. Each five seconds
/// somebody asks: it goes through those and reads 1 MiB.
fn idle(data: &File, number: usize) -> io::Result<()> {
    read_slowly(data, 0..96)?;
    let own = made(48, number);
    let mut teller = Teller::new();
    loop {
        sleep(Duration::from_secs(5));
        teller.request(|| {
            touch(own.iter().take((4 << 20) / 8));
            read_through(data, 0..1)
        })?;
        teller.tell()?;
    }
}

/// Has 320 MiB of values and an index of 16 MiB in memory. Has read all values once, so that its cache is as full as it is
/// after days. Two requests a second, each for ten values of 4 KiB by Zipf's law.
fn store(data: &File, number: usize) -> io::Result<()> {
    const VALUES: u64 = 320 * MIB / PAGE as u64;
    let index = made(16, number);
    read_slowly(data, 0..320)?;
    fadvise(data, 0, None, Advice::Random)?;
    let mut zipf = Zipf::new(VALUES, 0.99, number as u128);
    let mut teller = Teller::new();
    loop {
        sleep(Duration::from_millis(500));
        teller.request(|| {
            (0..10).try_for_each(|_| {
                let key = zipf.key();
                black_box(index.get(key as usize % index.len()));
                read_page(data, key)
            })
        })?;
        teller.tell()?;
    }
}

/// Builds every ten minutes: four units, each of which reads 4 MiB of headers and 16 MiB of sources of its own, has 24 MiB in
/// memory and writes an object of 1 MiB; then a link, which reads the objects and has 48 MiB in memory. Each of the five is a
/// request, with a second between them.
fn compile(data: &File, directory: &Path) -> io::Result<()> {
    const UNITS: u64 = 4;
    let object = |unit: u64| directory.join(format!("object{unit}"));
    let mut teller = Teller::new();
    loop {
        let start = Instant::now();
        for unit in 0..UNITS {
            teller.request(|| {
                read_through(data, 0..4)?;
                read_through(data, 16 * (unit + 1)..16 * (unit + 2))?;
                black_box(vec![1_u8; 24 << 20]);
                let mut file = File::create(object(unit))?;
                file.write_all(&vec![0x5a; MIB as usize])?;
                file.sync_all()
            })?;
            sleep(Duration::from_secs(1));
        }
        teller.request(|| {
            for unit in 0..UNITS {
                black_box(fs::read(object(unit))?);
            }
            black_box(vec![1_u8; 48 << 20]);
            Ok(())
        })?;
        while start.elapsed() < Duration::from_secs(600) {
            sleep(Duration::from_secs(5));
            teller.tell()?;
        }
    }
}

/// Reads 496 MiB over and over, 1 MiB in two seconds. With each it goes through 8 MiB of its own and looks up 20 pages of
/// the 16 MiB that it uses all the time.
fn scan(data: &File, number: usize) -> io::Result<()> {
    const HOT: Range<u64> = 0..16;
    const TAPE: Range<u64> = 16..512;
    let own = made(8, number);
    let mut random = Rand64::new(number as u128);
    let mut teller = Teller::new();
    for mib in std::iter::repeat(TAPE).flatten() {
        sleep(Duration::from_secs(2));
        teller.request(|| {
            read_through(data, mib..mib + 1)?;
            touch(own.iter());
            (0..20).try_for_each(|_| read_page(data, random.rand_range(0..HOT.end * MIB / PAGE as u64)))
        })?;
        teller.tell()?;
    }
    Ok(())
}

/// Memory whose pages compress to a third or so, as those of programs do, and are not alike.
fn made(mib: u64, seed: usize) -> Vec<u64> {
    let mut random = Rand64::new(seed as u128 + 1);
    let mut own = vec![1; (mib * MIB / 8) as usize];
    for page in own.chunks_mut(PAGE / 8) {
        page.iter_mut().take(PAGE / 8 / 3).for_each(|word| *word = random.rand_u64());
    }
    own
}

/// Uses each page of it.
fn touch<'a>(words: impl Iterator<Item = &'a u64>) {
    black_box(words.step_by(PAGE / 8).fold(0_u64, |sum, word| sum.wrapping_add(*word)));
}

fn read_page(file: &File, number: u64) -> io::Result<()> {
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, number * PAGE as u64)
}

fn read_through(file: &File, mib: Range<u64>) -> io::Result<()> {
    let mut buffer = [0; CHUNK];
    let mut chunks = (mib.start * MIB..mib.end * MIB).step_by(CHUNK);
    chunks.try_for_each(|at| file.read_exact_at(&mut buffer, at))
}

fn read_slowly(file: &File, mut mib: Range<u64>) -> io::Result<()> {
    mib.try_for_each(|at| {
        sleep(PACE);
        read_through(file, at..at + 1)
    })
}

/// Times requests, and says how they went.
struct Teller {
    told: Told,
    since: Instant,
    before: Counters,
}

impl Teller {
    fn new() -> Self {
        Self { told: Told::default(), since: Instant::now(), before: counters() }
    }

    fn request(&mut self, serve: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let start = Instant::now();
        serve()?;
        self.told.took_us.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Says it if the last time was long ago.
    fn tell(&mut self) -> io::Result<()> {
        let (now, last) = (Instant::now(), self.since);
        if now < last + TELL {
            return Ok(());
        }
        let counters = counters();
        let refaults = |counters: &Counters| counters.refault_file + counters.refault_anon;
        self.told.passed_ms = u64::try_from((now - last).as_millis()).unwrap_or(u64::MAX);
        self.told.stalled_us = counters.memory_some_us.saturating_sub(self.before.memory_some_us);
        self.told.refaults = refaults(&counters).saturating_sub(refaults(&self.before));
        let mut line = serde_json::to_vec(&std::mem::take(&mut self.told))?;
        line.push(b'\n');
        io::stdout().write_all(&line)?;
        (self.since, self.before) = (now, counters);
        Ok(())
    }
}

/// The control group that the workload sees at the top is its own.
fn counters() -> Counters {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Counters::parse(&read("/proc/vmstat"), &read("/sys/fs/cgroup/memory.pressure"), "")
}
