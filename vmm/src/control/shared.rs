//! The image layers that a VM maps, as zones. Wiring between the control socket and the host's page cache.

use balloon::control::api::{ZoneDocument, ZoneKind};
use balloon::resident::PageCache;
use std::time::{Duration, Instant};

/// An ended reading is told for so long before another begins.
const FRESH: Duration = Duration::from_secs(1);
/// A reading goes on at most so often, for all requests together,
const PACE: Duration = Duration::from_millis(20);
/// by so much: 131,072 pages, a millisecond or two.
const STEP_BYTES: usize = 512 << 20;

/// The shared zones of a VM.
#[derive(Debug, Default)]
pub struct SharedZones {
    names: Vec<String>,
    cache: PageCache,
    ended: Option<Instant>,
    stepped: Option<Instant>,
}

impl SharedZones {
    /// The layers called `names`, whose files `cache` reads.
    #[must_use]
    pub fn new(names: Vec<String>, cache: PageCache) -> Self {
        Self { names, cache, ended: None, stepped: None }
    }

    /// What there is to say of each.
    pub fn documents(&mut self) -> Vec<ZoneDocument> {
        self.read_on(Instant::now());
        let resident = |number: usize| self.cache.last()?.get(number).copied();
        let zones = self.names.iter().zip(self.cache.files()).enumerate();
        zones
            .map(|(number, (name, file))| ZoneDocument {
                name: name.clone(),
                kind: ZoneKind::Shared,
                node: None,
                host_node: None,
                huge_pages: false,
                size_bytes: file.bytes() as u64,
                max_bytes: None,
                resident_bytes: resident(number),
                ballooned_bytes: 0,
                reported_bytes: 0,
            })
            .collect()
    }

    fn read_on(&mut self, now: Instant) {
        let is_past =
            |then: Option<Instant>, age| then.is_none_or(|then| now.saturating_duration_since(then) >= age);
        if !is_past(self.ended, FRESH) || !is_past(self.stepped, PACE) {
            return;
        }
        self.stepped = Some(now);
        match self.cache.read_on(STEP_BYTES) {
            Ok(true) => self.ended = Some(now),
            Ok(false) => self.ended = None,
            Err(error) => log::warn!("the host does not say how much of the image it holds: {error}"),
        }
    }
}
