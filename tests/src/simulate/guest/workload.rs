//! What the processes of a guest do over time: how busy they are, what they stream, when they burst. Pure: functions
//! of the moment alone.

/// How busy a guest is over time, as a share of full activity.
#[derive(Clone, Copy, Debug)]
pub enum Activity {
    /// Always the same.
    Steady(f64),
    /// Busy for a part of each period and at `low` for the rest.
    Square {
        /// Length of a period.
        period_s: f64,
        /// Where in it the guest starts.
        offset_s: f64,
        /// Busy part of it.
        duty: f64,
        /// Activity in the other part.
        low: f64,
    },
    /// Rises from `low` to full and falls again, evenly.
    Diurnal {
        /// Length of a day.
        period_s: f64,
        /// Where in it the guest starts.
        offset_s: f64,
        /// Activity at night.
        low: f64,
    },
}

/// A pass over pages that nobody reads again, now and then or always.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// While it lasts.
    pub pages_per_s: f64,
    /// Length of a period; 0 is no stream at all.
    pub period_s: f64,
    /// Where in it the guest starts.
    pub offset_s: f64,
    /// Part of it in which the stream runs.
    pub duty: f64,
}

/// Anonymous memory that is allocated, used hard and freed again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Burst {
    /// How much.
    pub pages: f64,
    /// When the first begins.
    pub first_s: f64,
    /// Time from one to the next; 0 is no other.
    pub period_s: f64,
    /// Time in which it is allocated.
    pub ramp_s: f64,
    /// Time until it is freed.
    pub length_s: f64,
}

/// All of it.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// How busy.
    pub activity: Activity,
    /// What is read once.
    pub stream: Stream,
    /// What is allocated for a while.
    pub burst: Burst,
    /// Each so many seconds a share of the file pages is replaced by others; 0 is never.
    pub turn_over: (f64, f64),
}

fn position(now_s: f64, period_s: f64, offset_s: f64) -> f64 {
    let periods = (now_s + offset_s) / period_s.max(1e-9);
    periods - periods.floor()
}

impl Activity {
    /// At a moment.
    #[must_use]
    pub fn at(&self, now_s: f64) -> f64 {
        match *self {
            Self::Steady(activity) => activity,
            Self::Square { period_s, offset_s, duty, low } => {
                if position(now_s, period_s, offset_s) < duty {
                    1.0
                } else {
                    low
                }
            }
            Self::Diurnal { period_s, offset_s, low } => {
                low + (1.0 - low) * (1.0 - (2.0 * position(now_s, period_s, offset_s) - 1.0).abs())
            }
        }
    }
}

impl Stream {
    /// Pages a second at a moment.
    #[must_use]
    pub fn at(&self, now_s: f64) -> f64 {
        let runs = self.period_s > 0.0 && position(now_s, self.period_s, self.offset_s) < self.duty;
        if runs { self.pages_per_s } else { 0.0 }
    }
}

impl Burst {
    /// Pages wanted at a moment.
    #[must_use]
    pub fn at(&self, now_s: f64) -> f64 {
        let Some(since_s) = self.since(now_s) else { return 0.0 };
        self.pages * (since_s / self.ramp_s.max(1e-9)).min(1.0)
    }

    /// Whether memory is being allocated now, so that a second is too long a tick.
    #[must_use]
    pub fn ramps(&self, now_s: f64) -> bool {
        self.since(now_s).is_some_and(|since_s| since_s <= self.ramp_s + 2.0)
    }

    /// Number of the burst at a moment, and time since it began.
    fn since(&self, now_s: f64) -> Option<f64> {
        if self.pages <= 0.0 || now_s < self.first_s {
            return None;
        }
        let mut since_s = now_s - self.first_s;
        if self.period_s > 0.0 {
            since_s -= (since_s / self.period_s).floor() * self.period_s;
        }
        (since_s < self.length_s).then_some(since_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_come_and_go() {
        let burst = Burst { pages: 100.0, first_s: 10.0, period_s: 60.0, ramp_s: 2.0, length_s: 20.0 };
        assert_eq!(burst.at(9.0), 0.0);
        assert_eq!(burst.at(11.0), 50.0);
        assert_eq!(burst.at(25.0), 100.0);
        assert_eq!(burst.at(31.0), 0.0);
        assert_eq!(burst.at(71.0), 50.0);
        assert!(burst.ramps(71.0) && !burst.ramps(76.0));
    }

    #[test]
    fn days_and_squares_average_as_they_should() {
        let mean =
            |activity: Activity| (0..10_000).map(|second| activity.at(f64::from(second))).sum::<f64>() / 1e4;
        let square = mean(Activity::Square { period_s: 100.0, offset_s: 7.0, duty: 0.25, low: 0.0 });
        let day = mean(Activity::Diurnal { period_s: 1000.0, offset_s: 30.0, low: 0.5 });
        assert!((square - 0.25).abs() < 0.01 && (day - 0.75).abs() < 0.01, "{square} {day}");
    }
}
