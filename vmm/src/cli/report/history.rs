//! What a recording tells of a microVM over time. Pure, and bounded whatever the recording says.

#![forbid(unsafe_code)]

use super::curve::{Curve, Moments};
use crate::reclaim::words;
use balloon::policy::meter::{Delta, Meter, Taken};
use balloon::policy::trace::{Header, Line};
use balloon::policy::{Decision, HostReading, Observation, Order, Sample};
use balloon::recording_line::Error;

/// A recording as it is read.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    history: Option<History>,
    lines: u64,
}

/// A microVM over time. Times are milliseconds since the recording began; sizes are bytes.
#[derive(Clone, Debug)]
pub struct History {
    /// What the law was made of.
    pub header: Header,
    /// When the last line was written.
    pub end_ms: u64,
    /// Guest memory that the host held.
    pub resident: Curve,
    /// What the balloon left the guest.
    pub ceiling: Curve,
    /// What neither the balloon had nor the guest's kernel called available.
    pub used: Curve,
    /// Pages a second that were evicted and needed again.
    pub refaults: Curve,
    /// Share of time in which some task of the guest waited for memory.
    pub stall: Curve,
    /// The daemon's pressure: 1 is none. Nothing was recorded of it without one.
    pub lambda: Curve,
    /// States that the law entered.
    pub states: Moments,
    /// Ceilings that it ordered.
    pub ceilings: Moments,
    /// Evictions that it ordered.
    pub evictions: Moments,
    /// How many decisions there were.
    pub decisions: u64,
    /// Pages that were needed again.
    pub refaulted: u64,
    /// Pages that were evicted by order.
    pub evicted: u64,
    /// By the last reading.
    ballooned_bytes: u64,
    meter: Meter,
}

impl Reader {
    /// Takes the next line, given without its end.
    ///
    /// # Errors
    /// It is no line of a recording.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.lines = self.lines.saturating_add(1);
        match &mut self.history {
            None => self.history = Some(History::new(Header::read(bytes)?)),
            Some(history) => match Line::read(self.lines, bytes)? {
                Line::Saw(saw) => history.saw(saw.now_ms, &saw.saw),
                Line::Did(did) => history.did(&did.did),
            },
        }
        Ok(())
    }

    /// The recording ends here.
    ///
    /// # Errors
    /// There is no first line.
    pub fn end(self) -> Result<History, Error> {
        self.history.ok_or_else(Error::empty)
    }
}

impl History {
    fn new(header: Header) -> Self {
        Self {
            header,
            end_ms: 0,
            resident: Curve::default(),
            ceiling: Curve::default(),
            used: Curve::default(),
            refaults: Curve::default(),
            stall: Curve::default(),
            lambda: Curve::default(),
            states: Moments::default(),
            ceilings: Moments::default(),
            evictions: Moments::default(),
            decisions: 0,
            refaulted: 0,
            evicted: 0,
            ballooned_bytes: 0,
            meter: Meter::default(),
        }
    }

    /// Time does not run backwards.
    fn at(&mut self, now_ms: u64) -> u64 {
        self.end_ms = self.end_ms.max(now_ms.saturating_sub(self.header.now_ms));
        self.end_ms
    }

    fn saw(&mut self, now_ms: u64, saw: &Observation) {
        let at_ms = self.at(now_ms);
        match saw {
            Observation::Host(reading) => self.host(at_ms, reading),
            Observation::Sample(sample) => self.sample(at_ms, sample),
            Observation::Envelope(envelope) => {
                self.lambda.add(at_ms, envelope.lambda_permille as f64 / 1000.0, 1.0);
            }
            Observation::Reclaimed(reclaimed) => {
                let pages = reclaimed.file_pages.saturating_add(reclaimed.anon_pages);
                self.evicted = self.evicted.saturating_add(pages);
            }
            Observation::Tick
            | Observation::Capabilities(_)
            | Observation::Statistics(_)
            | Observation::Settings(_) => {}
        }
    }

    fn host(&mut self, at_ms: u64, reading: &HostReading) {
        let size_bytes = self.header.size_bytes;
        if let Some(bytes) = reading.resident_bytes {
            self.resident.add(at_ms, bytes.min(size_bytes) as f64, 1.0);
        }
        // Nothing is what a microVM without a balloon says.
        let ceiling_bytes = if reading.ceiling_bytes == 0 { size_bytes } else { reading.ceiling_bytes };
        self.ceiling.add(at_ms, ceiling_bytes.min(size_bytes) as f64, 1.0);
        self.ballooned_bytes = size_bytes.saturating_sub(ceiling_bytes);
    }

    fn sample(&mut self, at_ms: u64, sample: &Sample) {
        // What no such machine can have is not drawn.
        let taken = self.meter.take(sample, self.header.size_bytes);
        if taken == Taken::Dropped {
            return;
        }
        // To its kernel what the balloon has is neither available nor gone.
        let others = sample.available_bytes.saturating_add(self.ballooned_bytes);
        self.used.add(at_ms, sample.total_bytes.saturating_sub(others) as f64, 1.0);
        let Taken::Delta(delta) = taken else { return };
        let Delta { elapsed_us, stall_us, .. } = delta;
        let seconds = elapsed_us as f64 / 1e6;
        self.refaulted = self.refaulted.saturating_add(delta.refaults());
        self.refaults.add(at_ms, delta.refaults() as f64 / seconds, seconds);
        self.stall.add(at_ms, stall_us as f64 / elapsed_us as f64, seconds);
    }

    fn did(&mut self, decision: &Decision) {
        let at_ms = self.at(decision.now_ms);
        self.decisions = self.decisions.saturating_add(1);
        let moments = match decision.order {
            Order::Enter { .. } => &mut self.states,
            Order::Ceiling { .. } => &mut self.ceilings,
            Order::Reclaim { .. } => &mut self.evictions,
            // How it looks is no news of what the guest has.
            Order::Age | Order::Reporting { .. } | Order::Pace { .. } => return,
        };
        moments.add(at_ms, || format!("{}: {}", words::of(decision.order), decision.reason));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use balloon::policy::trace::{Did, Saw, VERSION, write};
    use balloon::policy::{
        Capabilities, Envelope, Law, Memory, Orders, Reason, Reclaimed, Settings, Source, Tuning,
    };

    const MIB: u64 = 1 << 20;

    /// Five minutes of an idle guest, some of whose page cache is needed again after 200 s.
    pub fn recording() -> Vec<u8> {
        let (settings, tuning) = (Settings::new(1024 * MIB), Tuning::default());
        let mut law = Law::new(5000, 1024 * MIB, settings, tuning);
        let mut recording = Vec::new();
        write(&Header::new(5000, 1024 * MIB, settings, tuning), &mut recording);
        let mut see = |now_ms, saw| {
            let mut orders = Orders::new();
            law.observe(now_ms, &saw, &mut orders);
            write(&Saw { now_ms, saw }, &mut recording);
            orders.iter().for_each(|did| write(&Did { did: *did }, &mut recording));
            orders.iter().find_map(|decision| match decision.order {
                Order::Reclaim { number, bytes, .. } => Some((number, bytes / 4096)),
                _ => None,
            })
        };
        let can = Capabilities { psi: true, memory_reclaim: true, ..Capabilities::default() };
        see(5000, Observation::Capabilities(can));
        let mut evicted = 0;
        for second in 1..300 {
            let now_ms = 5000 + second * 1000;
            let held = 400 * MIB - evicted * 4096;
            let resident_bytes = Some(held + 100 * MIB);
            see(
                now_ms,
                Observation::Host(HostReading {
                    resident_bytes,
                    ceiling_bytes: 1024 * MIB,
                    balloon: true,
                    available_permille: 500,
                    ..HostReading::default()
                }),
            );
            let sample = Sample {
                sequence: second,
                monotonic_us: second * 1_000_000,
                total_bytes: 1000 * MIB,
                free_bytes: 1000 * MIB - held,
                available_bytes: 1000 * MIB - held / 2,
                inactive_file_bytes: held / 2,
                refault_file: if second > 200 { 4000 } else { 0 },
                memory_some_us: if second > 200 { 100_000 } else { 0 },
                ..Sample::default()
            };
            if let Some((number, file_pages)) = see(now_ms, Observation::Sample(sample)) {
                evicted += file_pages;
                see(now_ms, Observation::Reclaimed(Reclaimed { number, file_pages, ..Reclaimed::default() }));
            }
        }
        let envelope = Envelope {
            sequence: 1,
            lease_ms: 10_000,
            lambda_permille: 4000,
            max_bytes: 1024 * MIB,
            high_bytes: None,
            floor_bytes: 0,
            grant_bytes: 0,
            take_bytes: 0,
        };
        see(306_000, Observation::Envelope(envelope));
        // Whatever the law thought of it, one eviction is ordered and carried out.
        let order = Order::Reclaim { number: 99, bytes: 4 * MIB, memory: Memory::File, older_than_ms: None };
        let did = Decision { now_ms: 306_000, order, reason: Reason::Source { source: Source::Agent } };
        write(&Did { did }, &mut recording);
        let saw = Observation::Reclaimed(Reclaimed { number: 99, file_pages: 1024, ..Reclaimed::default() });
        write(&Saw { now_ms: 306_000, saw }, &mut recording);
        recording
    }

    fn read(recording: &[u8]) -> Result<History, Error> {
        let mut reader = Reader::default();
        for line in recording.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            reader.line(line)?;
        }
        reader.end()
    }

    #[test]
    fn a_recording_becomes_curves_and_decisions() {
        let history = read(&recording()).unwrap();
        assert_eq!((history.end_ms, history.refaulted), (301_000, 4000));
        assert_eq!(history.resident.points().next(), Some((1000.0, (500 * MIB) as f64)));
        assert_eq!(history.ceiling.mean(), Some((1024 * MIB) as f64));
        assert!((history.refaults.most() - 4000.0).abs() < 1e-9, "{}", history.refaults.most());
        assert!((history.stall.most() - 0.1).abs() < 1e-9, "{}", history.stall.most());
        assert!((history.lambda.most() - 4.0).abs() < 1e-9);
        assert!(history.evicted >= 1024, "{}", history.evicted);
        let last = history.evictions.iter().last().unwrap();
        assert!(last.words.starts_with("evict 4 MiB of page cache: "), "{}", last.words);
        assert!(history.states.iter().any(|moment| moment.words.starts_with("now trimming")));
    }

    #[test]
    fn what_the_balloon_has_is_not_used() {
        let mut history =
            History::new(Header::new(0, 1024 * MIB, Settings::new(1024 * MIB), Tuning::default()));
        history.host(1000, &HostReading { ceiling_bytes: 512 * MIB, ..HostReading::default() });
        let (total_bytes, available_bytes) = (1000 * MIB, 100 * MIB);
        let sample = Sample { monotonic_us: 1, total_bytes, available_bytes, ..Sample::default() };
        history.sample(2000, &sample);
        assert_eq!(history.used.mean(), Some((388 * MIB) as f64));
    }

    #[test]
    fn a_recording_that_is_none_is_named_by_its_line() {
        let whole = recording();
        assert!(matches!(read(b""), Err(Error::Garbled { line: 1, .. })));
        assert!(matches!(read(b"<html>\n"), Err(Error::Garbled { line: 1, .. })));
        assert!(matches!(read(&[&whole[..], b"x\n"].concat()), Err(Error::Garbled { .. })));
        let version = |version: u32| format!("\"ballast-trace\":{version}");
        let (ours, others) = (version(VERSION), version(VERSION + 1));
        let text = String::from_utf8(whole).unwrap().replacen(&ours, &others, 1);
        assert!(matches!(read(text.as_bytes()), Err(Error::Version { found, .. }) if found == VERSION + 1));
    }

    #[test]
    fn lies_are_bounded() {
        let header = Header::new(10, 100, Settings::new(100), Tuning::default());
        let mut history = History::new(header);
        history.saw(
            5,
            &Observation::Host(HostReading {
                resident_bytes: Some(u64::MAX),
                ceiling_bytes: u64::MAX,
                ..HostReading::default()
            }),
        );
        history.saw(u64::MAX, &Observation::Tick);
        history.saw(0, &Observation::Host(HostReading::default()));
        assert_eq!((history.resident.most(), history.ceiling.most()), (100.0, 100.0));
        assert_eq!(history.end_ms, u64::MAX - 10);
    }
}
