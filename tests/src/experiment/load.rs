//! The workloads, each as a person would describe it. Wiring.
//!
//! All wait between requests: a clock of virtual time skips waiting, and what law there is has the same time to act.

use super::kept::Access;
use super::meter::Meter;
use super::zipf::Zipf;
use super::{bursts, rest, tolerance};
use rustix::fs::{Advice, fadvise};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const PAGE: usize = 4096;
/// Files are written and read through at so much a time.
const CHUNK: usize = 1 << 20;
/// As long as the law leaves a guest alone after its start.
const WARM: Duration = Duration::from_secs(60);

/// A store of 640 MiB in a guest of 512: it looks up 20 values of 4 KiB by Zipf's law, then thinks for 100 ms, and so on.
pub const STORE_MIB: u64 = 640;
/// How unevenly its keys are asked for.
pub const ZIPF_EXPONENT: f64 = 0.99;
/// The scan's hot set, and what it passes over once.
pub const HOT_MIB: u64 = 96;
/// As [`HOT_MIB`].
pub const TAPE_MIB: u64 = 768;
const BATCH: usize = 20;
const THINK: Duration = Duration::from_millis(100);

/// Runs the workload of that name for so long.
///
/// # Errors
/// There is none of the name, or the disk fails.
pub fn run(name: &str, directory: &Path, minutes: u64) -> io::Result<()> {
    let length = Duration::from_secs(60 * minutes);
    match name {
        "kv" => key_value_store(directory, length),
        "scan" => scan(directory, length),
        "idle" => idle(directory, length),
        "compile" => compile(directory, length),
        "rest" => rest::run(directory, length),
        "tolerance" => tolerance::run(directory, length, &[Access::Mapped, Access::Anonymous]),
        // By itself, as a kernel with generations sees nothing of it, and what it misjudges holds all steps back.
        "tolerance-read" => tolerance::run(directory, length, &[Access::Read]),
        "bursts" => bursts::run(),
        _ => Err(io::Error::other(format!("no workload is called {name}"))),
    }
}

fn key_value_store(directory: &Path, length: Duration) -> io::Result<()> {
    let store = filled(&directory.join("store"), STORE_MIB)?;
    fadvise(&store, 0, None, Advice::Random)?;
    let mut zipf = Zipf::new(STORE_MIB * MIB / PAGE as u64, ZIPF_EXPONENT, 1);
    let mut meter = Meter::default();
    let mut serve = |meter: &mut Meter, length: Duration| {
        let start = Instant::now();
        while start.elapsed() < length {
            for _ in 0..BATCH {
                let at = zipf.key() * PAGE as u64;
                meter.request(|| read(&store, at))?;
            }
            meter.tell()?;
            sleep(THINK);
        }
        Ok::<_, io::Error>(())
    };
    serve(&mut meter, WARM)?;
    meter.start()?;
    serve(&mut meter, length)?;
    meter.finish()
}

/// A hot set of 96 MiB, 200 pages of it a second, beside a single pass over 768 MiB at 2 MiB a second.
fn scan(directory: &Path, length: Duration) -> io::Result<()> {
    let tape = filled(&directory.join("tape"), TAPE_MIB)?;
    forget(&tape)?;
    let hot = filled(&directory.join("hot"), HOT_MIB)?;
    fadvise(&hot, 0, None, Advice::Random)?;
    let pages = HOT_MIB * MIB / PAGE as u64;
    let mut random = oorandom::Rand64::new(1);
    let mut meter = Meter::default();
    let (mut buffer, mut read_to) = (vec![0; CHUNK], 0);
    let mut serve = |meter: &mut Meter, length: Duration, scans: bool| {
        let start = Instant::now();
        while start.elapsed() < length {
            for _ in 0..100 {
                let at = random.rand_range(0..pages) * PAGE as u64;
                meter.request(|| read(&hot, at))?;
            }
            if scans && read_to < TAPE_MIB * MIB {
                tape.read_exact_at(&mut buffer, read_to)?;
                read_to += CHUNK as u64;
            }
            meter.tell()?;
            sleep(Duration::from_millis(500));
        }
        Ok::<_, io::Error>(())
    };
    serve(&mut meter, WARM, false)?;
    meter.start()?;
    serve(&mut meter, length, true)?;
    meter.finish()
}

/// A service that idles after a burst, in which it reads 256 MiB and has 128 MiB of its own for a while. It wakes every 10 s
/// to read 16 MiB, and at the end there is the same burst again.
fn idle(directory: &Path, length: Duration) -> io::Result<()> {
    const CACHE_MIB: u64 = 256;
    const OWN_MIB: u64 = 128;
    const HOT_MIB: u64 = 16;
    let cache = filled(&directory.join("cache"), CACHE_MIB)?;
    forget(&cache)?;
    let mut meter = Meter::default();
    let burst = || -> io::Result<()> {
        read_through(&cache, CACHE_MIB)?;
        let own = vec![1_u8; (OWN_MIB * MIB) as usize];
        std::hint::black_box(&own);
        Ok(())
    };
    burst()?;
    sleep(WARM);
    meter.start()?;
    let start = Instant::now();
    while start.elapsed() < length {
        sleep(Duration::from_secs(10));
        meter.request(|| read_through(&cache, HOT_MIB))?;
        meter.tell()?;
    }
    meter.rested()?;
    meter.burst(burst)?;
    meter.finish()
}

/// Memory as a build has it: 32 units in turn, each reads 12 MiB of sources of which 4 MiB are the same for all, has 48 MiB of
/// its own for a while, and writes an object of 4 MiB; then a link reads all objects and has 160 MiB of its own. Then it
/// rests, and builds again.
fn compile(directory: &Path, length: Duration) -> io::Result<()> {
    const UNITS: u64 = 32;
    const SOURCES_MIB: u64 = 8;
    let headers = filled(&directory.join("headers"), 4)?;
    let sources = filled(&directory.join("sources"), UNITS * SOURCES_MIB)?;
    forget(&sources)?;
    let mut meter = Meter::default();
    let start = Instant::now();
    let build = |meter: &mut Meter| {
        let mut buffer = vec![0; CHUNK];
        for unit in 0..UNITS {
            meter.request(|| {
                read_through(&headers, 4)?;
                for mib in 0..SOURCES_MIB {
                    sources.read_exact_at(&mut buffer, (unit * SOURCES_MIB + mib) * MIB)?;
                }
                let own = vec![1_u8; 48 << 20];
                std::hint::black_box(&own);
                // What a compiler thinks, it thinks with its memory in hand.
                sleep(Duration::from_millis(1500));
                filled(&directory.join(format!("object{unit}")), 4).map(drop)
            })?;
            meter.tell()?;
        }
        meter.burst(|| {
            for unit in 0..UNITS {
                read_through(&File::open(directory.join(format!("object{unit}")))?, 4)?;
            }
            let own = vec![1_u8; 160 << 20];
            std::hint::black_box(&own);
            Ok(())
        })
    };
    meter.start()?;
    while start.elapsed() < length {
        build(&mut meter)?;
        let rest = Instant::now();
        while rest.elapsed() < Duration::from_secs(240) && start.elapsed() < length {
            sleep(Duration::from_secs(5));
            meter.tell()?;
        }
    }
    meter.finish()
}

/// A file of so many MiB, written anew and on the disk.
pub(super) fn filled(path: &Path, mib: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let chunk = vec![0x5a; CHUNK];
    for _ in 0..mib {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Drops what is cached of it.
pub(super) fn forget(file: &File) -> io::Result<()> {
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

fn read(file: &File, at: u64) -> io::Result<()> {
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, at)
}

pub(super) fn read_through(file: &File, mib: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    (0..mib).try_for_each(|at| file.read_exact_at(&mut buffer, at * MIB))
}
