//! What a recording says of a microVM's memory over time. Pure.

use balloon::policy::trace::{Did, Header, Line, Saw};
use balloon::policy::{Cause, Observation, Order};
use balloon::recording_line;

/// What the host held and allowed at a time, about once a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Since the VMM began.
    pub at_ms: u64,
    /// Guest memory that the host held.
    pub resident_bytes: u64,
    /// What the balloon left the guest.
    pub ceiling_bytes: u64,
}

/// What the law did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Ordered so many bytes to be reclaimed.
    Ordered(u64),
    /// Was answered that so many pages were.
    Reclaimed(u64),
    /// Ordered the balloon to leave the guest so many bytes.
    Ceiling(u64),
}

/// A sample of the agent's that could not wait for its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// When it was there, since the VMM began.
    pub at_ms: u64,
    /// When it was taken, by the guest's clock since its boot.
    pub taken_ms: u64,
}

/// A recording.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// In their order.
    pub moments: Vec<Moment>,
    /// With their time since the VMM began.
    pub deeds: Vec<(u64, Deed)>,
    /// In their order.
    pub alarms: Vec<Alarm>,
}

impl Recorded {
    /// Reads one. A last line that was cut off is left out.
    ///
    /// # Errors
    /// It is none, or has a line that is none of one.
    pub fn parse(text: &str) -> Result<Self, recording_line::Error> {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let mut lines = (1..).zip(whole.lines());
        let header = Header::read(lines.next().map_or("", |(_, line)| line).as_bytes())?;
        let mut recorded = Self::default();
        for (number, line) in lines {
            match Line::read(number, line.as_bytes())? {
                Line::Saw(Saw { now_ms, saw }) => {
                    recorded.see(now_ms.saturating_sub(header.now_ms), &saw);
                }
                Line::Did(Did { did }) => {
                    let deed = match did.order {
                        Order::Reclaim { bytes, .. } => Deed::Ordered(bytes),
                        Order::Ceiling { bytes } => Deed::Ceiling(bytes),
                        _ => continue,
                    };
                    recorded.deeds.push((did.now_ms.saturating_sub(header.now_ms), deed));
                }
            }
        }
        Ok(recorded)
    }

    fn see(&mut self, at_ms: u64, saw: &Observation) {
        match saw {
            Observation::Host(host) => {
                if let Some(resident_bytes) = host.resident_bytes {
                    let ceiling_bytes = host.ceiling_bytes;
                    self.moments.push(Moment { at_ms, resident_bytes, ceiling_bytes });
                }
            }
            Observation::Reclaimed(reclaimed) => {
                self.deeds.push((at_ms, Deed::Reclaimed(reclaimed.file_pages + reclaimed.anon_pages)));
            }
            Observation::Sample(sample) if sample.cause != Cause::Periodic => {
                self.alarms.push(Alarm { at_ms, taken_ms: sample.monotonic_us / 1000 });
            }
            _ => {}
        }
    }

    /// What the host held from one time to another, in MiB times seconds.
    #[must_use]
    pub fn integral_mib_s(&self, from_ms: u64, to_ms: u64) -> f64 {
        let mut sum = 0.0;
        for (number, moment) in self.moments.iter().enumerate() {
            let until_ms = self.moments.get(number + 1).map_or(to_ms, |next| next.at_ms);
            let held_ms = until_ms.min(to_ms).saturating_sub(moment.at_ms.max(from_ms));
            sum += moment.resident_bytes as f64 / f64::from(1 << 20) * held_ms as f64 / 1000.0;
        }
        sum
    }

    /// What the host held at a time, if it is known.
    #[must_use]
    pub fn resident_at(&self, at_ms: u64) -> Option<u64> {
        let moment = self.moments.iter().rev().find(|moment| moment.at_ms <= at_ms);
        moment.map(|moment| moment.resident_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::policy::{HostReading, Law, Mode, Orders, Settings, Tuning, trace};

    fn host(mib: u64) -> Observation {
        let resident_bytes = Some(mib << 20);
        Observation::Host(HostReading { resident_bytes, ceiling_bytes: 512 << 20, ..HostReading::default() })
    }

    #[test]
    fn what_the_host_held_is_the_area_below_its_readings() {
        let size_bytes = 512 << 20;
        let settings = Settings { mode: Mode::Off, ..Settings::new(size_bytes) };
        let mut text = Vec::new();
        trace::write(&Header::new(5000, size_bytes, settings, Tuning::default()), &mut text);
        let mut law = Law::new(5000, size_bytes, settings, Tuning::default());
        let mut orders = Orders::new();
        for (now_ms, mib) in [(6000, 100), (7000, 200), (9000, 50)] {
            law.observe(now_ms, &host(mib), &mut orders);
            trace::write(&Saw { now_ms, saw: host(mib) }, &mut text);
        }
        let mut text = String::from_utf8(text).unwrap();
        text.push_str("{\"now_ms\":10000,\"sa");
        let recorded = Recorded::parse(&text).unwrap();
        assert_eq!(recorded.moments.len(), 3);
        let all = recorded.integral_mib_s(1000, 6000);
        assert!((all - (100.0 + 400.0 + 100.0)).abs() < 1e-9, "{all}");
        let part = recorded.integral_mib_s(1500, 4500);
        assert!((part - (50.0 + 400.0 + 25.0)).abs() < 1e-9, "{part}");
        assert_eq!(recorded.resident_at(3999), Some(200 << 20));
        assert_eq!(recorded.resident_at(0), None);
        assert!(Recorded::parse("{}\n").is_err());
        assert!(Recorded::parse(&text.replacen("\n{", "\n[", 1)).is_err(), "a line that is none");
    }
}
