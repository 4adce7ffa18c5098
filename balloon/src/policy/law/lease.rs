//! The ceiling that leases impose, and what becomes of it without one: who is not told any more sheds nothing.

use super::Law;
use crate::policy::Tuning;
use crate::policy::arithmetic::permille;
use crate::policy::observation::Envelope;

/// What the last envelope imposed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Imposed {
    bytes: Option<u64>,
    /// When its lease ended, or it last rose after that.
    moved_ms: u64,
}

impl Imposed {
    /// The ceiling without pressure, if there is one.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// An envelope has come. The first one of a daemon that is new knows of no pressure: until the second it lifts nothing.
    fn lease(&mut self, envelope: &Envelope, before: Option<&Envelope>, until_ms: u64) {
        let is_first = before.is_some_and(|before| envelope.sequence <= before.sequence);
        let kept = self.bytes.filter(|_| is_first);
        self.bytes = [envelope.high_bytes, kept].into_iter().flatten().min();
        self.moved_ms = until_ms;
    }

    /// No lease holds: it climbs as where an agent is silent, until it is no limit.
    fn lapse(&mut self, now_ms: u64, size_bytes: u64, tuning: &Tuning) {
        let Some(bytes) = self.bytes.filter(|_| now_ms.saturating_sub(self.moved_ms) >= tuning.climb_ms)
        else {
            return;
        };
        self.moved_ms = now_ms;
        let raised = bytes.saturating_add(permille(size_bytes, tuning.climb_permille));
        self.bytes = Some(raised).filter(|bytes| *bytes < size_bytes);
    }
}

impl Law {
    pub(super) fn lease(&mut self, now_ms: u64, envelope: &Envelope) {
        self.lease_until_ms = now_ms.saturating_add(envelope.lease_ms);
        self.imposed.lease(envelope, self.envelope.as_ref(), self.lease_until_ms);
        self.envelope = Some(*envelope);
        self.granted_from_bytes = self.ceiling.bytes();
    }

    pub(super) fn lapse(&mut self, now_ms: u64) {
        if self.leased(now_ms).is_none() && !self.host_is_short() {
            self.imposed.lapse(now_ms, self.size_bytes, &self.tuning);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "a test may fail by it")]

    use super::*;
    use crate::policy::{HostReading, Mode, Observation, Orders, Settings, State};

    const MIB: u64 = 1 << 20;
    const SIZE: u64 = 1000 * MIB;

    /// A law that does nothing of itself, on a host.
    struct Bench {
        law: Law,
        now_ms: u64,
        available_permille: u64,
    }

    impl Bench {
        fn tell(&mut self, observation: &Observation) {
            self.law.observe(self.now_ms, observation, &mut Orders::new());
        }

        /// Its ceiling after so many seconds.
        fn after(&mut self, seconds: u64) -> u64 {
            for _ in 0..seconds {
                self.now_ms += 1000;
                let available_permille = self.available_permille;
                self.tell(&Observation::Host(HostReading { available_permille, ..HostReading::default() }));
            }
            self.law.ceiling_bytes() / MIB
        }

        /// Its ceiling when a daemon has imposed one for three minutes, with envelopes from this number on.
        fn leased(&mut self, first: u64, mib: u64) -> u64 {
            let mut ceiling = 0;
            for sequence in first..first + 90 {
                self.envelope(sequence, Some(mib * MIB));
                ceiling = self.after(2);
            }
            ceiling
        }

        fn envelope(&mut self, sequence: u64, high_bytes: Option<u64>) {
            self.pressed_envelope(sequence, high_bytes, 1000);
        }

        fn pressed_envelope(&mut self, sequence: u64, high_bytes: Option<u64>, lambda_permille: u64) {
            self.tell(&Observation::Envelope(Envelope {
                sequence,
                lease_ms: 10_000,
                lambda_permille,
                max_bytes: SIZE,
                high_bytes,
                floor_bytes: 0,
                grant_bytes: 0,
                take_bytes: 0,
            }));
        }
    }

    /// Brought to 200 MiB by a daemon.
    fn imposed() -> Bench {
        let settings = Settings { mode: Mode::Off, ..Settings::new(SIZE) };
        let law = Law::new(0, SIZE, settings, Tuning::default());
        let mut bench = Bench { law, now_ms: 0, available_permille: 10 };
        assert_eq!(bench.leased(1, 200), 200);
        bench
    }

    #[test]
    fn a_lease_that_ends_sheds_no_ceiling_on_a_short_host_and_lets_it_climb_elsewhere() {
        let mut bench = imposed();
        assert_eq!(bench.after(3600), 200);
        bench.available_permille = 500;
        let mut last = bench.after(1);
        assert_eq!(last, 250);
        for _ in 0..14 {
            let next = bench.after(10);
            assert_eq!(next, last + 50);
            last = next;
        }
        assert_eq!((last, bench.after(20), bench.after(100)), (950, 1000, 1000));
    }

    #[test]
    fn it_climbs_only_when_nobody_is_told_any_more() {
        let mut bench = imposed();
        bench.available_permille = 500;
        // The last envelope came two seconds ago.
        assert_eq!((bench.after(17), bench.after(1)), (200, 250));
        assert_eq!(bench.leased(100, 200), 200, "the daemon is there again");
    }

    #[test]
    fn whose_agent_falls_silent_comes_down_under_pressure_and_climbs_without() {
        let law = Law::new(0, SIZE, Settings::new(SIZE), Tuning::default());
        let mut bench = Bench { law, now_ms: 0, available_permille: 500 };
        assert_eq!(bench.after(60), 1000);
        assert_eq!(bench.law.status(bench.now_ms).state, State::Safe);
        for sequence in 1..90 {
            bench.pressed_envelope(sequence, Some(200 * MIB), 1100);
            bench.after(2);
        }
        assert_eq!((bench.after(0), bench.law.status(bench.now_ms).state), (200, State::Safe));
        bench.pressed_envelope(90, Some(900 * MIB), 1100);
        assert_eq!(bench.after(9), 200, "pressure lifts nothing");
        bench.pressed_envelope(91, Some(200 * MIB), 1000);
        assert_eq!(bench.after(9), 250);
    }

    #[test]
    fn the_first_word_of_another_daemon_lifts_nothing() {
        let mut bench = imposed();
        bench.envelope(1, None);
        assert_eq!(bench.after(2), 200);
        assert_eq!(bench.leased(2, 150), 150);
        bench.envelope(100, None);
        assert_eq!(bench.after(1), 1000);
    }
}
