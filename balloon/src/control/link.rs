//! What `ballastd` and a microVM say to one another over a connection that was upgraded from HTTP at `/v1/link`: JSON
//! documents, each behind its length in four bytes, lowest first. Pure.
//!
//! ```text
//! microVM   Hello                   Report            Report                 End
//! ballastd          Envelope 1              Envelope 2         ...every 2 s
//! ```
//!
//! An envelope is a lease: what it grants ends with it, unless the next one comes before. The microVM answers each with
//! a report, and says how it ended if it can. Neither trusts the other: what is too long or makes no sense ends the link.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use crate::policy::{COLD_POINTS, Cold, Totals};
use crate::zone::Limits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::time::Duration;

/// Where a microVM's control socket offers it.
pub const PATH: &str = "/v1/link";
/// The protocol's name in HTTP's `Upgrade`.
pub const PROTOCOL: &str = "ballast-link/1";
/// Longest document. A report of a microVM with all its zones has about 4 KiB.
pub const DOCUMENT_BYTES: usize = 64 << 10;
/// How often envelopes come.
pub const RENEWAL: Duration = Duration::from_secs(2);
/// How long one holds: four may be lost before anything ends.
pub const LEASE: Duration = Duration::from_secs(10);

const LENGTH_BYTES: usize = 4;

/// What a microVM says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromVm {
    /// First of all: what it is.
    Hello(Hello),
    /// After each envelope: how it does.
    Report(Report),
    /// Last of all: how it ended. Who is killed says nothing.
    End(End),
}

/// How a microVM ended, by its own word: for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum End {
    /// Its workload ended.
    Exited {
        /// The exit code that a shell shows.
        code: u8,
        /// The guest's kernel killed one of its processes for lack of memory.
        out_of_memory: bool,
    },
    /// Its workload could not be started.
    NotStarted {
        /// 125, 126 or 127; 128 and a signal's number if that came first.
        code: u8,
    },
    /// The microVM failed.
    Failed,
}

/// What a microVM is and keeps, so that an arbiter that is new needs nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Its name.
    pub name: String,
    /// Process of its VMM.
    pub pid: u32,
    /// The path of its group; empty is none.
    pub group: String,
    /// Its own limits.
    pub limits: Limits,
    /// Size of guest memory.
    pub memory_bytes: u64,
    /// Its private zones, by name.
    pub zones: Vec<String>,
    /// Whether its law works with what its groups say. One of an older Ballast does not know of it.
    #[serde(default)]
    pub inherits: bool,
}

/// How a microVM does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Number of the envelope that it answers.
    pub sequence: u64,
    /// What its balloon leaves the guest.
    pub ceiling_bytes: u64,
    /// A user chose that ceiling.
    #[serde(default)]
    pub manual: bool,
    /// The least that it would leave it.
    pub floor_bytes: u64,
    /// Its own limits, which may have changed since its hello.
    pub limits: Limits,
    /// Its private zones.
    pub zones: Vec<ZoneUse>,
    /// What it can give back.
    pub offer: Offer,
    /// What else is worth a curve.
    #[serde(default)]
    pub usage: Usage,
}

/// How a microVM does, for people: nothing is arbitrated by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// In the balloon by the VMM's books.
    pub ballooned_bytes: u64,
    /// Free by the guest's report, given back to the host and not seen to be taken again.
    pub reported_bytes: u64,
    /// The footprint that its law wants it to have; null without a law.
    pub target_bytes: Option<u64>,
    /// What neither its balloon has nor its guest's kernel calls available; null while its agent has not said.
    pub guest_used_bytes: Option<u64>,
    /// How long ago its agent last said something; null as above.
    pub sample_age_ms: Option<u64>,
    /// What trimming costs it: 1000 is as much as its stall budget allows.
    pub harm_permille: u64,
    /// What its guest's kernel has counted.
    pub totals: Totals,
    /// What its law was told.
    #[serde(skip_serializing_if = "OwnPolicy::is_nothing")]
    pub own: OwnPolicy,
}

/// What the law of a microVM was told itself, in place of what its groups say. Null: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OwnPolicy {
    /// Memory that is used at least that often is kept.
    pub working_set_age_ms: Option<u64>,
    /// Share of time that the guest may lose to memory stalls, in millionths.
    pub stall_budget_ppm: Option<u64>,
}

impl OwnPolicy {
    /// Whether it was told nothing: then a daemon of an older Ballast, which does not know of it, is told nothing either.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a microVM can give back, as its law sees it. Nothing is what one without a law offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// How much of its memory is unused for how long, ages ascending; those of no age are none.
    pub cold: [Cold; COLD_POINTS],
    /// What its law gives back unasked.
    pub yield_bytes_per_s: u64,
    /// Whether its guest carries out orders. Who does not is left to the balloon.
    pub follows: bool,
    /// Whether its VMM has the host swap out what an envelope says. One of an older Ballast does not know of it.
    #[serde(default)]
    pub pages_out: bool,
}

/// What a private zone holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneUse {
    /// Its name.
    pub name: String,
    /// What of it the host holds by the VMM's reading; null: not known yet.
    pub resident_bytes: Option<u64>,
}

/// What the arbiter says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToVm {
    /// What holds until the lease ends.
    Envelope(Envelope),
}

/// What a microVM may have, on a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Number of the envelope, ascending on one link.
    pub sequence: u64,
    /// The path of the group that it is in now; empty is none. It keeps that beyond the lease.
    pub group: String,
    /// How long it holds.
    pub lease_ms: u64,
    /// The pressure on it, in thousandths: 1000 is none. Its working-set age is divided by it.
    pub lambda_permille: u64,
    /// Lowest `max` of the microVM and all above it.
    pub max_bytes: u64,
    /// Lowest `high` of the microVM and all above it, or less while the host is short of memory.
    pub high_bytes: Option<u64>,
    /// What the microVM is not taken below: what is protected of it now.
    pub floor_bytes: u64,
    /// By how much it may raise its ceiling under pressure without asking.
    pub grant_bytes: u64,
    /// What it is to give back now, whatever that costs it. That of each envelope is given once.
    pub take_bytes: u64,
    /// What the host is to swap out of it now, likewise. Only who offers that is told so.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub page_out_bytes: u64,
    /// What its law works with unless it was told itself. It keeps that beyond the lease. Absent for who does not inherit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<GroupPolicy>,
}

/// What the groups of a microVM say of how its law works: of each figure the nearest one that says it. Null: none does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPolicy {
    /// Memory that is used at least that often is kept.
    pub working_set_age_ms: Option<Inherited>,
    /// Share of time that the guest may lose to memory stalls, in millionths.
    pub stall_budget_ppm: Option<Inherited>,
}

/// A figure that a group says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inherited {
    /// The group's path.
    pub group: String,
    /// The figure.
    pub value: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
pub(super) fn is_nothing(bytes: &u64) -> bool {
    *bytes == 0
}

/// The other end does not speak this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A document's length is out of bounds.
    #[error("a document of {0} bytes on the link: at most {DOCUMENT_BYTES} are taken")]
    TooLong(u32),
    /// A document is none.
    #[error("a document on the link cannot be understood")]
    Garbled,
}

/// Appends `document` to `output`. One that is too long is left out: none of ours is.
pub fn encode(document: &impl Serialize, output: &mut Vec<u8>) {
    let Ok(text) = serde_json::to_vec(document) else { return };
    let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= DOCUMENT_BYTES);
    if let Some(length) = length {
        output.extend_from_slice(&length.to_le_bytes());
        output.extend_from_slice(&text);
    }
}

/// Bytes that become documents.
#[derive(Debug)]
pub struct Decoder<T> {
    bytes: Vec<u8>,
    document: PhantomData<T>,
}

impl<T> Default for Decoder<T> {
    fn default() -> Self {
        Self { bytes: Vec::new(), document: PhantomData }
    }
}

impl<T: DeserializeOwned> Decoder<T> {
    /// Bytes that can be taken now: never more than one document's are held.
    #[must_use]
    pub fn room(&self) -> usize {
        LENGTH_BYTES.saturating_add(DOCUMENT_BYTES).saturating_sub(self.bytes.len())
    }

    /// Takes bytes.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next document, if it has come whole.
    ///
    /// # Errors
    /// What came is none; nothing that follows can be understood.
    pub fn take(&mut self) -> Result<Option<T>, Error> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length);
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= DOCUMENT_BYTES);
        let bytes = bytes.ok_or(Error::TooLong(length))?;
        let Some(text) = rest.get(..bytes) else { return Ok(None) };
        let document = serde_json::from_slice(text).map_err(|_| Error::Garbled)?;
        self.bytes.drain(..bytes.saturating_add(LENGTH_BYTES).min(self.bytes.len()));
        Ok(Some(document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn envelope(sequence: u64) -> ToVm {
        ToVm::Envelope(Envelope {
            sequence,
            group: "ci/linux".into(),
            lease_ms: 10_000,
            lambda_permille: 1000,
            max_bytes: u64::MAX,
            high_bytes: None,
            floor_bytes: 0,
            grant_bytes: 1,
            take_bytes: 2,
            page_out_bytes: sequence,
            policy: None,
        })
    }

    proptest! {
        #[test]
        fn documents_survive_any_cut(cuts in prop::collection::vec(1..200usize, 1..20), count in 0..9u64) {
            let mut bytes = Vec::new();
            (0..count).for_each(|number| encode(&envelope(number), &mut bytes));
            let (mut decoder, mut came, mut rest) = (Decoder::<ToVm>::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                decoder.receive(now);
                while let Some(document) = decoder.take().unwrap() {
                    came.push(document);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(came, (0..count).map(envelope).collect::<Vec<_>>());
            prop_assert!(decoder.bytes.is_empty());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::<FromVm>::default();
            decoder.receive(&bytes);
            while let Ok(Some(_)) = decoder.take() {}
        }
    }

    #[test]
    fn who_does_not_page_out_is_told_nothing_of_it() {
        let text = |bytes| serde_json::to_string(&envelope(bytes)).unwrap();
        assert!(!text(0).contains("page_out") && text(1).contains("page_out"));
        let offer = r#"{"cold":[{"age_ms":0,"bytes":0},{"age_ms":0,"bytes":0},{"age_ms":0,"bytes":0}],
                        "yield_bytes_per_s":0,"follows":false}"#;
        assert_eq!(serde_json::from_str::<Offer>(offer).unwrap(), Offer::default());
    }

    #[test]
    fn who_does_not_inherit_is_told_nothing_of_it() {
        let ToVm::Envelope(envelope) = envelope(1);
        let text = |policy| serde_json::to_string(&Envelope { policy, ..envelope.clone() }).unwrap();
        assert!(!text(None).contains("policy"));
        let said = GroupPolicy {
            stall_budget_ppm: Some(Inherited { group: "ci".into(), value: 3000 }),
            ..GroupPolicy::default()
        };
        let told = r#""policy":{"working_set_age_ms":null,"stall_budget_ppm":{"group":"ci","value":3000}}"#;
        assert!(text(Some(said)).contains(told));
        assert!(!serde_json::to_string(&Usage::default()).unwrap().contains("own"));
        let hello = r#"{"name":"a","pid":7,"group":"","limits":{},"memory_bytes":1,"zones":[]}"#;
        assert!(!serde_json::from_str::<Hello>(hello).unwrap().inherits);
    }

    #[test]
    fn what_is_no_document_ends_the_link() {
        for (bytes, error) in [
            (&[1, 0, 1, 0][..], Error::TooLong(65_537)),
            (&[255; 4], Error::TooLong(u32::MAX)),
            (&[2, 0, 0, 0, b'{', b'}'], Error::Garbled),
            (&[0; 4], Error::Garbled),
        ] {
            let mut decoder = Decoder::<ToVm>::default();
            decoder.receive(bytes);
            assert_eq!(decoder.take(), Err(error));
        }
    }
}
