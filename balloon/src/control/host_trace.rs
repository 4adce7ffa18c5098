//! Recordings of a host: what `ballastd --record` writes and `ballast report` plots, one JSON document a line. Pure.
//!
//! ```text
//! {"ballast-host-trace":1,"began_ms":1760000000000}
//! {"now_ms":2000,"host":{...},"pool":{...},"nodes":[{"kind":"pool","charge":...},{"depth":1,"kind":"group","name":"ci",...},...]}
//! ```
//!
//! The first line says what it is. Then follows a line a tick of the daemon: what the host has, what arbitration made of it,
//! and the zone tree, each node before those in it. Numbers that are zero and limits that are not set are left out: a node
//! takes 60 to 160 bytes. A last line that was cut off is none.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::link::is_nothing;
use crate::policy::fleet::Host;
use crate::recording_line::{self, Error};
use crate::zone::Kind;
use serde::{Deserialize, Serialize};

/// Version of the format.
pub const VERSION: u32 = 1;

/// How each recording of a host begins, whatever its version.
pub const BEGINNING: &[u8] = b"{\"ballast-host-trace\":";

/// Most nodes of a line; those beyond are in what their parents hold.
pub const MOST_NODES: usize = 8192;

/// Longest line: each of so many nodes with the longest name and the largest of all numbers.
pub const LINE_BYTES: usize = 4 << 20;

/// Longest recording: a day of twenty microVMs. It ends with the last line that fits.
pub const RECORDING_BYTES: u64 = 256 << 20;

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Version of the format: [`VERSION`].
    #[serde(rename = "ballast-host-trace")]
    pub version: u32,
    /// When the daemon began, in milliseconds since 1970.
    pub began_ms: u64,
}

impl Header {
    /// Of a recording that is made now.
    #[must_use]
    pub fn new(began_ms: u64) -> Self {
        Self { version: VERSION, began_ms }
    }

    /// Reads the first line, given without its end.
    ///
    /// # Errors
    /// It is no first line of a host's recording, or of another version's.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        // Alone: of another version the rest may be anything.
        let Version { version } = recording_line::read(1, bytes, LINE_BYTES)?;
        recording_line::expect_version(version, VERSION)?;
        recording_line::read(1, bytes, LINE_BYTES)
    }
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "ballast-host-trace")]
    version: u32,
}

/// A tick of the daemon: a line that is not the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// When, since the daemon began.
    pub now_ms: u64,
    /// What the host has.
    pub host: Host,
    /// What microVMs may have of it.
    pub pool: PoolState,
    /// The zone tree, each node before those in it; the pool first.
    pub nodes: Vec<Node>,
    /// How many nodes were too many for the line.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub left_out: u64,
}

impl Moment {
    /// Reads the line of number `line`, from one, given without its end.
    ///
    /// # Errors
    /// It is none.
    pub fn read(line: u64, bytes: &[u8]) -> Result<Self, Error> {
        recording_line::read(line, bytes, LINE_BYTES)
    }
}

/// The pool, and how short it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolState {
    /// What microVMs may hold together.
    pub capacity_bytes: u64,
    /// The sum of minimums that are promised.
    pub protected_bytes: u64,
    /// The sum of maximums.
    pub committed_bytes: u64,
    /// The pressure on all microVMs, in thousandths: 1000 is none.
    pub lambda_permille: u64,
    /// What they hold too much together.
    pub deficit_bytes: u64,
    /// Whether no microVM is started.
    pub refuses: bool,
}

/// A node of the zone tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// How many it lies in.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub depth: u64,
    /// What it is.
    pub kind: Kind,
    /// Its own name: of a group the last part of its path, of the pool nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its microVM has ended and its memory is not yet back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphan: bool,
    /// What it holds, with all that is in it.
    #[serde(default, rename = "charge", skip_serializing_if = "is_nothing")]
    pub charge_bytes: u64,
    /// What of that is never taken.
    #[serde(default, rename = "protected", skip_serializing_if = "is_nothing")]
    pub protected_bytes: u64,
    /// Its limit of that name.
    #[serde(default, rename = "min", skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
    /// Its limit of that name.
    #[serde(default, rename = "low", skip_serializing_if = "Option::is_none")]
    pub low_bytes: Option<u64>,
    /// Its limit of that name.
    #[serde(default, rename = "high", skip_serializing_if = "Option::is_none")]
    pub high_bytes: Option<u64>,
    /// Its limit of that name.
    #[serde(default, rename = "max", skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// How its guest does, of a microVM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
}

impl Node {
    /// One that holds nothing and has no limits.
    #[must_use]
    pub fn new(depth: u64, kind: Kind, name: &str) -> Self {
        Self {
            depth,
            kind,
            name: name.into(),
            orphan: false,
            charge_bytes: 0,
            protected_bytes: 0,
            min_bytes: None,
            low_bytes: None,
            high_bytes: None,
            max_bytes: None,
            guest: None,
        }
    }
}

/// How a microVM's guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// The footprint that its law wants; nothing without a law.
    #[serde(default, rename = "target", skip_serializing_if = "Option::is_none")]
    pub target_bytes: Option<u64>,
    /// What its balloon leaves it; zero before its first report.
    #[serde(default, rename = "ceiling", skip_serializing_if = "is_nothing")]
    pub ceiling_bytes: u64,
    /// What of its VMM the host has swapped out.
    #[serde(default, rename = "swapped", skip_serializing_if = "is_nothing")]
    pub swapped_bytes: u64,
    /// The pressure on it, in thousandths: 1000 is none.
    #[serde(default, rename = "lambda", skip_serializing_if = "is_nothing")]
    pub lambda_permille: u64,
    /// Pages that its kernel evicted and needed again, since its VMM began.
    #[serde(default, rename = "refaults", skip_serializing_if = "is_nothing")]
    pub refault_pages: u64,
    /// Time in which some task of it waited for memory, since then.
    #[serde(default, rename = "stalled", skip_serializing_if = "is_nothing")]
    pub stall_us: u64,
}

/// A line with its end; nothing of what would be too long.
#[must_use]
pub fn line(document: &impl Serialize) -> Option<Vec<u8>> {
    let mut text = serde_json::to_vec(document).ok().filter(|text| text.len() <= LINE_BYTES)?;
    text.push(b'\n');
    Some(text)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(name: &str) -> Node {
        let most = Some(u64::MAX);
        let guest = Guest {
            target_bytes: most,
            ceiling_bytes: u64::MAX,
            swapped_bytes: u64::MAX,
            lambda_permille: u64::MAX,
            refault_pages: u64::MAX,
            stall_us: u64::MAX,
        };
        Node {
            orphan: true,
            charge_bytes: u64::MAX,
            protected_bytes: u64::MAX,
            min_bytes: most,
            low_bytes: most,
            high_bytes: most,
            max_bytes: most,
            guest: Some(guest),
            ..Node::new(999, Kind::Shared, name)
        }
    }

    #[test]
    fn the_longest_line_fits() {
        let nodes = vec![full(&"n".repeat(64)); MOST_NODES];
        let moment = Moment { now_ms: u64::MAX, nodes, left_out: u64::MAX, ..Moment::default() };
        let line = line(&moment).unwrap();
        assert!(line.len() < LINE_BYTES, "{}", line.len());
        assert_eq!(Moment::read(2, line.trim_ascii_end()), Ok(moment));
        assert_eq!(
            Moment::read(2, &vec![b' '; LINE_BYTES + 1]),
            Err(Error::TooLong { line: 2, most: LINE_BYTES })
        );
    }

    #[test]
    fn what_is_nothing_takes_no_room() {
        let zone = Node { charge_bytes: 52_428_800, ..Node::new(3, Kind::Zone, "ram") };
        let text = String::from_utf8(line(&zone).unwrap()).unwrap();
        assert_eq!(text, "{\"depth\":3,\"kind\":\"zone\",\"name\":\"ram\",\"charge\":52428800}\n");
        assert_eq!(serde_json::from_str::<Node>(&text).unwrap(), zone);
    }

    #[test]
    fn a_recording_tells_its_version_whatever_else_it_has() {
        let first = line(&Header::new(7)).unwrap();
        assert!(first.starts_with(BEGINNING));
        assert_eq!(Header::read(first.trim_ascii_end()), Ok(Header::new(7)));
        assert_eq!(
            Header::read(b"{\"ballast-host-trace\":9,\"new\":0}"),
            Err(Error::Version { found: 9, read: VERSION })
        );
        assert!(matches!(Header::read(b"{\"ballast-trace\":3}"), Err(Error::Garbled { line: 1, .. })));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in ".*", numbers in prop::collection::vec(any::<u64>(), 6), orphan: bool) {
            let node = Node {
                orphan,
                charge_bytes: numbers[0],
                high_bytes: Some(numbers[1]),
                guest: Some(Guest { refault_pages: numbers[2], ..Guest::default() }),
                ..Node::new(numbers[3], Kind::Vm, &name)
            };
            let moment = Moment { now_ms: numbers[4], nodes: vec![node], left_out: numbers[5], ..Moment::default() };
            let line = line(&moment).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(Moment::read(2, &line[..line.len() - 1]), Ok(moment));
        }

        #[test]
        fn nothing_breaks_a_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (Header::read(&bytes), Moment::read(2, &bytes));
        }
    }
}
