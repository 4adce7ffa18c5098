//! What a run did to one guest: measured from outside, by the truth of the model. Pure. Times are seconds, sizes pages.

use super::guest::machine::Machine;

/// Longest recovery that is told apart.
pub const LONGEST_RECOVERY_S: usize = 60;

/// Part of a tick's time lost to memory above which a guest has not recovered.
const RECOVERED: f64 = 0.05;

/// A turn of the footprint counts when it came by more than this share of the guest's memory from the last extreme.
const TURN: f64 = 0.03;

/// Sums over the measured part of a run, and what is needed to form them.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Measured time.
    pub seconds: f64,
    /// Integral of the footprint.
    pub footprint: f64,
    /// Time lost to memory.
    pub stall_s: f64,
    /// Refaults.
    pub refaults: f64,
    /// Of those, of pages that had been used more than once.
    pub restores: f64,
    /// Kills for want of memory.
    pub kills: f64,
    /// Turns of the footprint.
    pub reversals: u32,
    /// How long it took to recover from each burst or start of work: counts by whole seconds.
    pub recoveries: [u32; LONGEST_RECOVERY_S + 1],
    /// Least footprint seen.
    pub least: f64,
    started: Option<(f64, f64, f64, f64)>,
    extreme: f64,
    rises: Option<bool>,
    event: Option<(f64, f64)>,
    activity: f64,
    burst: bool,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            seconds: 0.0,
            footprint: 0.0,
            stall_s: 0.0,
            refaults: 0.0,
            restores: 0.0,
            kills: 0.0,
            reversals: 0,
            recoveries: [0; LONGEST_RECOVERY_S + 1],
            least: f64::INFINITY,
            started: None,
            extreme: f64::NAN,
            rises: None,
            event: None,
            activity: 0.0,
            burst: false,
        }
    }
}

impl Meter {
    /// After a measured tick of `seconds` that ended at `now_s`.
    pub fn tick(&mut self, machine: &Machine, now_s: f64, seconds: f64) {
        let counters = &machine.counters;
        let now = (
            counters.refault[0] + counters.refault[1],
            counters.restore[0] + counters.restore[1],
            counters.oom_kill,
            0.0,
        );
        let last = self.started.replace(now).filter(|last| last.0 <= now.0).unwrap_or(now);
        let footprint = machine.footprint();
        self.seconds += seconds;
        self.footprint += footprint * seconds;
        self.stall_s += machine.stalled_s;
        self.refaults += now.0 - last.0;
        self.restores += (now.1 - last.1).max(0.0);
        self.kills += (now.2 - last.2).max(0.0);
        self.least = self.least.min(footprint);
        self.follow_turns(footprint, TURN * machine.spec.total);
        self.follow_recovery(machine, now_s, seconds);
    }

    fn follow_turns(&mut self, footprint: f64, enough: f64) {
        if self.extreme.is_nan() {
            self.extreme = footprint;
        }
        let moved = footprint - self.extreme;
        match self.rises {
            Some(rises) if (moved > 0.0) == rises => self.extreme = footprint,
            _ if moved.abs() > enough => {
                self.reversals += u32::from(self.rises.is_some());
                self.rises = Some(moved > 0.0);
                self.extreme = footprint;
            }
            _ => {}
        }
    }

    fn follow_recovery(&mut self, machine: &Machine, now_s: f64, seconds: f64) {
        let bursts = machine.spec.workload.burst.at(now_s) > 0.0;
        if machine.activity > self.activity + 0.5 || (bursts && !self.burst) {
            self.finish_event();
            self.event = Some((now_s - seconds, 0.0));
        }
        (self.activity, self.burst) = (machine.activity, bursts);
        if let Some((began_s, hurt_s)) = &mut self.event {
            if machine.stalled_s > RECOVERED * seconds {
                *hurt_s = now_s - *began_s;
            }
            if now_s - *began_s > LONGEST_RECOVERY_S as f64 {
                self.finish_event();
            }
        }
    }

    fn finish_event(&mut self) {
        if let Some((_, hurt_s)) = self.event.take() {
            self.recoveries[(hurt_s.round() as usize).min(LONGEST_RECOVERY_S)] += 1;
        }
    }

    /// Share of its time that the guest lost.
    #[must_use]
    pub fn stall(&self) -> f64 {
        self.stall_s / self.seconds.max(1e-9)
    }
}
