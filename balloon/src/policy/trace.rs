//! Recordings: what a law was told and what it ordered, one JSON document a line; and their replay.
//!
//! ```text
//! {"ballast-trace":5,"now_ms":0,"size_bytes":1073741824,"settings":{...},"tuning":{...}}
//! {"now_ms":1000,"saw":{"sample":{...}}}
//! {"did":{"now_ms":1000,"order":{"reclaim":{...}},"reason":{"step":{...}}}}
//! ```
//!
//! The first line says what the law was made of. Then follows each observation, and behind it the decisions that it
//! brought about. A replay makes the same law, tells it the same, and compares what it orders byte for byte. A recording
//! that was cut off, as when its disk was full, replays up to there.

use super::{Decision, Law, Observation, Orders, Settings, Tuning};
use crate::recording_line;
use serde::{Deserialize, Serialize};

/// Version of the format.
pub const VERSION: u32 = 5;

/// How each recording begins, whatever its version.
pub const BEGINNING: &[u8] = b"{\"ballast-trace\":";

/// Longest line. A sample with the largest of all numbers takes about two thirds of it.
pub const LINE_BYTES: usize = 4096;

/// What a law is made of: the first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format: [`VERSION`].
    #[serde(rename = "ballast-trace")]
    pub version: u32,
    /// When the law was made.
    pub now_ms: u64,
    /// Size of the microVM.
    pub size_bytes: u64,
    /// What the user wanted.
    pub settings: Settings,
    /// The law's constants.
    pub tuning: Tuning,
}

impl Header {
    /// Of a law made of the same.
    #[must_use]
    pub fn new(now_ms: u64, size_bytes: u64, settings: Settings, tuning: Tuning) -> Self {
        Self { version: VERSION, now_ms, size_bytes, settings, tuning }
    }

    /// Reads the first line, given without its end.
    ///
    /// # Errors
    /// It is no first line of a recording, or of another version's.
    pub fn read(bytes: &[u8]) -> Result<Self, recording_line::Error> {
        // Alone: of another version the rest may be anything.
        let Version { version } = recording_line::read(1, bytes, LINE_BYTES)?;
        recording_line::expect_version(version, VERSION)?;
        recording_line::read(1, bytes, LINE_BYTES)
    }

    fn law(&self) -> Law {
        Law::new(self.now_ms, self.size_bytes, self.settings, self.tuning)
    }
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "ballast-trace")]
    version: u32,
}

/// An observation and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saw {
    /// When.
    pub now_ms: u64,
    /// What.
    pub saw: Observation,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Did {
    /// Which.
    pub did: Decision,
}

/// A line that is not the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected what a law saw or what it decided")]
#[expect(clippy::large_enum_variant, reason = "one at a time, and none is kept")]
pub enum Line {
    /// What the law was told.
    Saw(Saw),
    /// What it decided.
    Did(Did),
}

impl Line {
    /// Reads the line of number `line`, from one, given without its end.
    ///
    /// # Errors
    /// It is none.
    pub fn read(line: u64, bytes: &[u8]) -> Result<Self, recording_line::Error> {
        recording_line::read(line, bytes, LINE_BYTES)
    }
}

/// A recording does not replay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A line is none of a law's recording.
    #[error(transparent)]
    Line(#[from] recording_line::Error),
    /// The law decides differently.
    #[error("line {line}: recorded was {recorded}, and the law decides {decided}")]
    Diverged {
        /// Which, from one.
        line: u64,
        /// What the recording has.
        recorded: String,
        /// What the law decides now.
        decided: String,
    },
}

/// Appends a line to `output`.
pub fn write(line: &impl Serialize, output: &mut Vec<u8>) {
    let before = output.len();
    if serde_json::to_writer(&mut *output, line).is_ok() {
        output.push(b'\n');
    } else {
        // Memory takes whatever is written, and all of these types can be.
        output.truncate(before);
    }
}

/// A recording as it is replayed.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    law: Option<Law>,
    orders: Orders,
    /// How many of `orders` the recording has had.
    matched: usize,
    lines: u64,
    decisions: u64,
    scratch: Vec<u8>,
}

impl Replay {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lines that were replayed.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Decisions that were the same.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// Replays the next line, given without its end.
    ///
    /// # Errors
    /// It is no line of a recording, or the law decides differently.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.lines = self.lines.saturating_add(1);
        let line = self.lines;
        if self.law.is_none() {
            self.law = Some(Header::read(bytes)?.law());
            return Ok(());
        }
        match Line::read(line, bytes)? {
            Line::Saw(saw) => {
                self.all_matched()?;
                self.orders.clear();
                self.matched = 0;
                if let Some(law) = &mut self.law {
                    law.observe(saw.now_ms, &saw.saw, &mut self.orders);
                }
            }
            Line::Did(_) => {
                let decided = self.next().unwrap_or_else(|| "nothing".into());
                if decided.as_bytes() != bytes {
                    let recorded = String::from_utf8_lossy(bytes).into_owned();
                    return Err(Error::Diverged { line, recorded, decided });
                }
                self.matched = self.matched.saturating_add(1);
                self.decisions = self.decisions.saturating_add(1);
            }
        }
        Ok(())
    }

    /// The recording ends here. One that is cut off between an observation and its decisions still replays.
    ///
    /// # Errors
    /// There is no first line.
    pub fn end(&self) -> Result<(), Error> {
        Ok(self.law.as_ref().map(|_| ()).ok_or_else(recording_line::Error::empty)?)
    }

    /// The decision that the recording must have next, as it is written.
    fn next(&mut self) -> Option<String> {
        let did = *self.orders.iter().nth(self.matched)?;
        self.scratch.clear();
        write(&Did { did }, &mut self.scratch);
        Some(String::from_utf8_lossy(&self.scratch).trim_end().into())
    }

    fn all_matched(&mut self) -> Result<(), Error> {
        let line = self.lines;
        match self.next() {
            None => Ok(()),
            Some(decided) => Err(Error::Diverged { line, recorded: "nothing".into(), decided }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use crate::policy::{Capabilities, Generation, HostReading, Order, Reclaimed, Sample};
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_recording_tells_its_version_whatever_else_it_has() {
        let recording = record();
        assert!(recording.starts_with(BEGINNING));
        let of_version =
            |version: u32| Header::read(format!("{{\"ballast-trace\":{version},\"new\":0}}").as_bytes());
        assert_eq!(of_version(1), Err(recording_line::Error::Version { found: 1, read: VERSION }));
        assert!(matches!(of_version(VERSION), Err(recording_line::Error::Garbled { line: 1, .. })));
    }

    fn record() -> Vec<u8> {
        let (settings, tuning) = (Settings::new(1024 * MIB), Tuning::default());
        let mut law = Law::new(0, 1024 * MIB, settings, tuning);
        let mut recording = Vec::new();
        write(&Header::new(0, 1024 * MIB, settings, tuning), &mut recording);
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
        see(0, Observation::Capabilities(can));
        see(0, Observation::Host(HostReading { resident_bytes: Some(900 * MIB), ..HostReading::default() }));
        for second in 1..120 {
            let sample = Sample {
                sequence: second,
                monotonic_us: second * 1_000_000,
                total_bytes: 1000 * MIB,
                inactive_file_bytes: (500 + second) * MIB,
                ..Sample::default()
            };
            if let Some((number, file_pages)) = see(second * 1000, Observation::Sample(sample)) {
                let reclaimed = Reclaimed { number, file_pages, ..Reclaimed::default() };
                see(second * 1000, Observation::Reclaimed(reclaimed));
            }
        }
        recording
    }

    fn replay(recording: &[u8]) -> Result<u64, Error> {
        let mut replay = Replay::new();
        for line in recording.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            replay.line(line)?;
        }
        replay.end().map(|()| replay.decisions())
    }

    #[test]
    fn what_was_recorded_replays_byte_for_byte() {
        let recording = record();
        assert!(replay(&recording).unwrap() > 5);
        assert_eq!(recording, record());
    }

    #[test]
    fn another_decision_is_noticed() {
        let text = String::from_utf8(record()).unwrap();
        let (first, _) = text.match_indices("{\"did\":").nth(3).unwrap();
        let changed = format!("{}{}", &text[..first], text[first..].replacen("now_ms\":", "now_ms\":9", 1));
        assert!(matches!(replay(changed.as_bytes()), Err(Error::Diverged { .. })), "changed");
        let end = first + text[first..].find('\n').unwrap();
        let missing = format!("{}{}", &text[..first], &text[end + 1..]);
        assert!(matches!(replay(missing.as_bytes()), Err(Error::Diverged { .. })), "missing");
        assert!(matches!(replay(b""), Err(Error::Line(recording_line::Error::Garbled { .. }))), "empty");
    }

    #[test]
    fn the_longest_line_fits() {
        let most = u64::MAX;
        let text = serde_json::to_string(&Sample::default()).unwrap();
        let text = text.replace(":0", &format!(":{most}"));
        let sample: Sample = serde_json::from_str(&text).unwrap();
        let generation = Generation { age_ms: most, anon_bytes: most, file_bytes: most };
        let sample = Sample { boot_id: [255; 16], ages: [generation; 4], ..sample };
        let mut line = Vec::new();
        write(&Saw { now_ms: most, saw: Observation::Sample(sample) }, &mut line);
        assert!(line.len() < LINE_BYTES, "{}", line.len());
    }

    proptest! {
        #[test]
        fn nothing_breaks_a_replay(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10)) {
            let mut replay = Replay::new();
            let recording = record();
            let mut good = recording.split(|byte| *byte == b'\n');
            for line in &lines {
                let _ = replay.line(line);
                let _ = replay.line(good.next().unwrap_or_default());
            }
        }
    }
}
