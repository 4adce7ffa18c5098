//! TMO's rule (ASPLOS'22, section 3.3) played inside the guest: `memory.reclaim` every six seconds, in proportion to the
//! room below a pressure threshold. Wiring.

use super::beat::Counters;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

const GROUP: &str = "/sys/fs/cgroup";
const STEP: Duration = Duration::from_secs(6);
/// Share of the group's memory that a step without pressure takes, at gain 1.
const RATIO: f64 = 0.0005;
/// Most that a step takes of it.
const MOST: f64 = 0.01;
/// Share of time stalled at which nothing is taken.
const THRESHOLD: f64 = 0.001;
/// The law leaves a guest alone for its first minute, and so does this.
const START: Duration = Duration::from_secs(60);

/// Plays it for the control group of the caller, each step `gain` times as large as published.
pub fn play(gain: f64) -> ! {
    sleep(START);
    // A reclaimer's own waiting counts as its group's: it is subtracted.
    let mut own_us = 0.0;
    let mut last = (Instant::now(), stalled_us());
    loop {
        sleep(STEP);
        let now = (Instant::now(), stalled_us());
        let passed_us = (now.0 - last.0).as_micros() as f64;
        let pressure = (now.1.saturating_sub(last.1) as f64 - own_us).max(0.0) / passed_us;
        last = now;
        let share = (RATIO * gain * (1.0 - pressure / THRESHOLD).max(0.0)).min(MOST);
        let bytes = (current() * share) as u64;
        own_us = 0.0;
        if bytes > 0 {
            let start = Instant::now();
            // It fails when it could reclaim less, which the next step sees.
            let _ = fs::write(format!("{GROUP}/memory.reclaim"), bytes.to_string());
            own_us = start.elapsed().as_micros() as f64;
        }
    }
}

fn stalled_us() -> u64 {
    let pressure = fs::read_to_string(format!("{GROUP}/memory.pressure")).unwrap_or_default();
    Counters::parse("", &pressure, "").memory_some_us
}

fn current() -> f64 {
    let current = fs::read_to_string(format!("{GROUP}/memory.current")).unwrap_or_default();
    current.trim().parse().unwrap_or(0.0)
}
