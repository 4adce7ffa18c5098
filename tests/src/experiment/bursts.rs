//! A guest below a low ceiling that needs more at once, again and again: how soon it has it. Wiring.

use super::beat::Counters;
use super::lifts::Lift;
use super::load::MIB;
use super::meter::{Meter, uptime_ms};
use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// More than the promise asks for, as a burst without pressure tells nothing.
const BURSTS: usize = 52;
/// Half of the guest's memory in two seconds.
const BURST_MIB: u64 = 128;
const BURST: Duration = Duration::from_secs(2);
/// Until whoever reads has lowered the ceiling again, and the balloon has followed.
const PAUSE: Duration = Duration::from_secs(8);
const GLANCE: Duration = Duration::from_millis(10);
/// The pressure event: the agent's trigger, `some 20000 500000`.
const WINDOW: Duration = Duration::from_millis(500);
const STALL_US: u64 = 20_000;

/// Takes 128 MiB in two seconds, holds them for a moment and frees them, again and again.
pub(super) fn run() -> io::Result<()> {
    let mut meter = Meter::default();
    meter.start()?;
    for _ in 0..BURSTS {
        sleep(PAUSE);
        let is_over = AtomicBool::new(false);
        let lift = thread::scope(|scope| {
            let watch = scope.spawn(|| watch(&is_over));
            take();
            is_over.store(true, Ordering::Relaxed);
            watch.join().map_err(|_| io::Error::other("the watch ended early"))
        })?;
        say(&lift)?;
        meter.tell()?;
    }
    meter.finish()
}

/// Nothing that compressed swap could make small.
fn take() {
    let start = Instant::now();
    let mut random = oorandom::Rand64::new(1);
    let mut own: Vec<Vec<u64>> = Vec::new();
    for mib in 0..BURST_MIB {
        own.push((0..MIB / 8).map(|_| random.rand_u64()).collect());
        let due = BURST.mul_f64(mib as f64 / BURST_MIB as f64);
        sleep(due.saturating_sub(start.elapsed()));
    }
    sleep(WINDOW);
    std::hint::black_box(&own);
}

/// Looks at pressure and balloon until it is over.
fn watch(is_over: &AtomicBool) -> Lift {
    let mut lift = Lift::default();
    let mut stalls: Vec<(Instant, u64)> = Vec::new();
    let deflated = deflated_pages();
    while !is_over.load(Ordering::Relaxed) {
        let some_us = pressure_us();
        let now = Instant::now();
        stalls.push((now, some_us));
        stalls.retain(|(at, _)| now.duration_since(*at) <= WINDOW);
        let stalled_us = some_us - stalls.first().map_or(some_us, |(_, us)| *us);
        // Each is looked at on its own, as what is read between may wait for memory itself.
        if lift.pressed_ms.is_none() && stalled_us >= STALL_US {
            lift.pressed_ms = Some(now_ms());
        }
        if lift.moved_ms.is_none() && deflated_pages() > deflated {
            lift.moved_ms = Some(now_ms());
        }
        sleep(GLANCE);
    }
    lift
}

fn say(lift: &Lift) -> io::Result<()> {
    let mut line = serde_json::to_vec(lift)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

fn now_ms() -> u64 {
    uptime_ms(&read("/proc/uptime"))
}

fn pressure_us() -> u64 {
    Counters::parse("", &read("/sys/fs/cgroup/memory.pressure"), "").memory_some_us
}

fn deflated_pages() -> u64 {
    let vmstat = read("/proc/vmstat");
    let count = vmstat.lines().find_map(|line| line.strip_prefix("balloon_deflate ")?.parse().ok());
    count.unwrap_or(0)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
