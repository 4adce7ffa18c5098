//! Times a workload's requests and says how it does. Wiring.

use super::beat::{Beat, Counters, Phase};
use super::latencies::Latencies;
use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Time between two beats: fine enough for a plot, and reading `/proc/vmstat` that often is no load.
const BEAT: Duration = Duration::from_secs(5);

/// Of one workload.
#[derive(Debug)]
pub struct Meter {
    beat: Beat,
    latencies: Latencies,
    next: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        Self { beat: Beat::default(), latencies: Latencies::default(), next: Instant::now() }
    }
}

impl Meter {
    /// Nothing has been done yet.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn booted(&mut self) -> io::Result<()> {
        self.enter(Phase::Booted)
    }

    /// What was measured until now is no longer of interest.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn start(&mut self) -> io::Result<()> {
        *self = Self::default();
        self.enter(Phase::Working)
    }

    /// Serves one request.
    ///
    /// # Errors
    /// Its own.
    pub fn request<T>(&mut self, serve: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let start = Instant::now();
        let served = serve()?;
        let took = start.elapsed();
        self.latencies.add(took);
        self.beat.requests += 1;
        self.beat.busy_us += micros(took);
        self.beat.worst_us = self.beat.worst_us.max(micros(took));
        Ok(served)
    }

    /// Does what comes all at once.
    ///
    /// # Errors
    /// Its own.
    pub fn burst<T>(&mut self, serve: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let start = Instant::now();
        let served = serve()?;
        self.beat.burst_us = Some(micros(start.elapsed()));
        Ok(served)
    }

    /// Only a last burst is left to do.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn rested(&mut self) -> io::Result<()> {
        self.enter(Phase::Rested)
    }

    /// Says how it does if that was long ago.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn tell(&mut self) -> io::Result<()> {
        if Instant::now() >= self.next { self.say() } else { Ok(()) }
    }

    /// Says that all is done.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn finish(&mut self) -> io::Result<()> {
        self.beat.latencies = Some(self.latencies.percentiles());
        self.enter(Phase::Done)
    }

    fn enter(&mut self, phase: Phase) -> io::Result<()> {
        self.beat.phase = phase;
        self.say()
    }

    fn say(&mut self) -> io::Result<()> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        // The control group that the workload sees at the top is its own.
        self.beat.kernel = Counters::parse(
            &read("/proc/vmstat"),
            &read("/sys/fs/cgroup/memory.pressure"),
            &read("/sys/fs/cgroup/io.pressure"),
        );
        self.beat.at_ms = uptime_ms(&read("/proc/uptime"));
        let mut line = serde_json::to_vec(&self.beat)?;
        line.push(b'\n');
        io::stdout().write_all(&line)?;
        self.beat.worst_us = 0;
        self.next = Instant::now() + BEAT;
        Ok(())
    }
}

/// Of `/proc/uptime`, which has hundredths of seconds.
pub(super) fn uptime_ms(text: &str) -> u64 {
    let seconds: Option<f64> = text.split(' ').next().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(0, |seconds| (seconds * 1000.0).round() as u64)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
