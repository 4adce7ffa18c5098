//! A guest that rests: what once used much memory and will not again. Wiring.

use super::load::{MIB, PAGE, read_through};
use super::meter::Meter;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Boot is over, and free page reporting has given back what it freed.
const BOOT: Duration = Duration::from_secs(20);
const CACHE_MIB: u64 = 400;
const OWN_MIB: u64 = 300;
const BURST_MIB: u64 = 512;
const BURST_PARTS: u32 = 32;
const BURST: Duration = Duration::from_secs(2);

/// Does nothing at first, so that it shows what such a guest needs. Then reads 400 MiB, of a file without a block on the disk,
/// and has 300 MiB of its own, which it frees, and does nothing any more, until it takes half of its memory within two
/// seconds.
pub(super) fn run(directory: &Path, length: Duration) -> io::Result<()> {
    let mut meter = Meter::default();
    sleep(BOOT);
    meter.booted()?;
    let cache = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(directory.join("cache"))?;
    cache.set_len(CACHE_MIB * MIB)?;
    let own = touched(OWN_MIB);
    read_through(&cache, CACHE_MIB)?;
    drop(std::hint::black_box(own));
    meter.start()?;
    let start = Instant::now();
    while start.elapsed() < length {
        sleep(Duration::from_secs(10));
        meter.tell()?;
    }
    meter.rested()?;
    meter.burst(|| {
        let start = Instant::now();
        let mut own = Vec::new();
        for part in 1..=BURST_PARTS {
            own.push(touched(BURST_MIB / u64::from(BURST_PARTS)));
            sleep((BURST / BURST_PARTS * part).saturating_sub(start.elapsed()));
        }
        std::hint::black_box(&own);
        Ok(())
    })?;
    meter.finish()
}

/// Memory of which each page is in use.
fn touched(mib: u64) -> Vec<u8> {
    let mut own = vec![0_u8; (mib * MIB) as usize];
    own.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(own)
}
