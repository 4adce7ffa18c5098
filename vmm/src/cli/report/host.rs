//! What a host's recording tells of it over time. Pure, and bounded whatever the recording says: of all moments two are kept.

#![forbid(unsafe_code)]

use super::curve::Curve;
use balloon::control::host_trace::{Guest, Header, Moment};
use balloon::recording_line::Error;
use balloon::zone::Kind;
use std::collections::HashMap;
use std::rc::Rc;

/// A host's recording as it is read.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    history: Option<HostHistory>,
    lines: u64,
}

/// A host over time. Times are milliseconds since its daemon began; sizes are bytes.
#[derive(Clone, Debug)]
pub struct HostHistory {
    /// When the daemon began, in milliseconds since 1970.
    pub began_ms: u64,
    /// When the last line was written.
    pub end_ms: u64,
    /// All memory of the host.
    pub total: Curve,
    /// What of it was available.
    pub available: Curve,
    /// What microVMs might hold together.
    pub capacity: Curve,
    /// What the pool was charged: microVMs, what they share, and what is left of those that ended.
    pub held: Curve,
    /// What microVMs held themselves.
    pub charges: Curve,
    /// What their laws wanted them to hold. Who has no law, or has not said, wants what it holds.
    pub targets: Curve,
    /// What their balloons left them. Who has not said has what it holds.
    pub ceilings: Curve,
    /// What of them the host had swapped out.
    pub swapped: Curve,
    /// Swap that was free.
    pub swap_free: Curve,
    /// Pages a second that guests evicted and needed again, in sum.
    pub refaults: Curve,
    /// Share of time in which some task of the host waited for memory.
    pub stall: Curve,
    /// The same of guests, on average.
    pub guest_stall: Curve,
    /// The pressure on the pool: 1 is none.
    pub lambda: Curve,
    /// Pages that were needed again.
    pub refaulted: u64,
    /// Most microVMs at a time.
    pub most_vms: u64,
    /// The least memory that was available.
    pub least_available_bytes: Option<u64>,
    /// The last moment.
    pub last: Option<Rc<Moment>>,
    /// The first at which the pool was charged most.
    pub highest: Option<Rc<Moment>>,
    /// What guests had counted at the last moment: refaults, and microseconds stalled.
    counted: HashMap<String, Guest>,
}

impl Reader {
    /// Takes the next line, given without its end.
    ///
    /// # Errors
    /// It is no line of a host's recording.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.lines = self.lines.saturating_add(1);
        match &mut self.history {
            None => self.history = Some(HostHistory::new(Header::read(bytes)?)),
            Some(history) => history.take(Moment::read(self.lines, bytes)?),
        }
        Ok(())
    }

    /// The recording ends here.
    ///
    /// # Errors
    /// There is no first line.
    pub fn end(self) -> Result<HostHistory, Error> {
        self.history.ok_or_else(Error::empty)
    }
}

impl HostHistory {
    fn new(header: Header) -> Self {
        let new = Curve::default;
        Self {
            began_ms: header.began_ms,
            end_ms: 0,
            total: new(),
            available: new(),
            capacity: new(),
            held: new(),
            charges: new(),
            targets: new(),
            ceilings: new(),
            swapped: new(),
            swap_free: new(),
            refaults: new(),
            stall: new(),
            guest_stall: new(),
            lambda: new(),
            refaulted: 0,
            most_vms: 0,
            least_available_bytes: None,
            last: None,
            highest: None,
            counted: HashMap::new(),
        }
    }

    fn take(&mut self, moment: Moment) {
        // Time does not run backwards.
        let before_ms = self.end_ms;
        self.end_ms = before_ms.max(moment.now_ms);
        let at_ms = self.end_ms;
        let (host, pool) = (&moment.host, &moment.pool);
        if host.total_bytes > 0 {
            let available = self.least_available_bytes.unwrap_or(u64::MAX).min(host.available_bytes);
            self.least_available_bytes = Some(available);
            self.total.add(at_ms, host.total_bytes as f64, 1.0);
            self.available.add(at_ms, host.available_bytes.min(host.total_bytes) as f64, 1.0);
        }
        self.capacity.add(at_ms, pool.capacity_bytes as f64, 1.0);
        self.held.add(at_ms, held_bytes(&moment) as f64, 1.0);
        self.swap_free.add(at_ms, host.swap_free_bytes as f64, 1.0);
        self.stall.add(at_ms, (host.stall_ppm as f64 / 1e6).min(1.0), 1.0);
        self.lambda.add(at_ms, pool.lambda_permille.max(1000) as f64 / 1000.0, 1.0);
        self.sum(at_ms, at_ms.saturating_sub(before_ms), &moment);
        let moment = Rc::new(moment);
        if self.highest.as_ref().is_none_or(|highest| held_bytes(&moment) > held_bytes(highest)) {
            self.highest = Some(Rc::clone(&moment));
        }
        self.last = Some(moment);
    }

    /// Sums over microVMs, `elapsed_ms` after the line before.
    fn sum(&mut self, at_ms: u64, elapsed_ms: u64, moment: &Moment) {
        let [mut charge, mut target, mut ceiling, mut swapped] = [0u64; 4];
        let (mut refaults, mut stall_us, mut vms, mut compared) = (0u64, 0u64, 0u64, 0u64);
        let mut counted = HashMap::new();
        for node in moment.nodes.iter().filter(|node| node.kind == Kind::Vm && !node.orphan) {
            let guest = node.guest.unwrap_or_default();
            vms = vms.saturating_add(1);
            charge = charge.saturating_add(node.charge_bytes);
            target = target.saturating_add(guest.target_bytes.unwrap_or(node.charge_bytes));
            let has_said = guest.ceiling_bytes > 0;
            ceiling = ceiling.saturating_add(if has_said { guest.ceiling_bytes } else { node.charge_bytes });
            swapped = swapped.saturating_add(guest.swapped_bytes);
            if let Some(before) = self.counted.get(&node.name) {
                compared = compared.saturating_add(1);
                // One that counts from nothing again is another of its name.
                refaults = refaults.saturating_add(guest.refault_pages.saturating_sub(before.refault_pages));
                let delta_us = guest.stall_us.saturating_sub(before.stall_us);
                stall_us = stall_us.saturating_add(delta_us.min(elapsed_ms.saturating_mul(1000)));
            }
            if node.guest.is_some() {
                counted.insert(node.name.clone(), guest);
            }
        }
        self.counted = counted;
        self.most_vms = self.most_vms.max(vms);
        self.charges.add(at_ms, charge as f64, 1.0);
        self.targets.add(at_ms, target as f64, 1.0);
        self.ceilings.add(at_ms, ceiling as f64, 1.0);
        self.swapped.add(at_ms, swapped as f64, 1.0);
        let seconds = elapsed_ms as f64 / 1000.0;
        if seconds > 0.0 {
            self.refaulted = self.refaulted.saturating_add(refaults);
            self.refaults.add(at_ms, refaults as f64 / seconds, seconds);
        }
        if seconds > 0.0 && compared > 0 {
            let share = stall_us as f64 / 1e6 / (seconds * compared as f64);
            self.guest_stall.add(at_ms, share, seconds);
        }
    }
}

/// What the pool was charged then.
pub fn held_bytes(moment: &Moment) -> u64 {
    let pool = moment.nodes.first().filter(|node| node.kind == Kind::Pool);
    pool.map_or(0, |pool| pool.charge_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use balloon::control::host_trace::{Node, PoolState, line};
    use balloon::policy::fleet::Host;

    const MIB: u64 = 1 << 20;

    fn node(depth: u64, kind: Kind, name: &str, mib: u64) -> Node {
        Node { charge_bytes: mib * MIB, ..Node::new(depth, kind, name) }
    }

    /// Ten minutes of a host with two microVMs of a group and one of none, of which one grows until memory is short.
    pub fn recording() -> Vec<u8> {
        let mut recording = line(&Header::new(1_760_000_000_000)).unwrap();
        for tick in 0..300u64 {
            let grown = if tick < 200 { tick } else { 100 };
            let is_short = (150..220).contains(&tick);
            let guest = |target, refault_pages| {
                Some(Guest {
                    target_bytes: Some(target * MIB),
                    ceiling_bytes: 512 * MIB,
                    lambda_permille: 1000,
                    refault_pages,
                    stall_us: tick * 2000,
                    ..Guest::default()
                })
            };
            let max_bytes = Some(512 * MIB);
            let nodes = vec![
                node(0, Kind::Pool, "", 680 + grown),
                Node { high_bytes: Some(900 * MIB), ..node(1, Kind::Group, "ci", 400 + grown) },
                Node { max_bytes, guest: guest(150, 0), ..node(2, Kind::Vm, "lint", 200) },
                node(3, Kind::Zone, "ram", 199),
                Node { max_bytes, guest: guest(180, tick * 100), ..node(2, Kind::Vm, "test", 170 + grown) },
                node(3, Kind::Zone, "ram", 100 + grown),
                node(3, Kind::Zone, "cache", 69),
                node(2, Kind::Shared, "6860e79f2085", 30),
                Node {
                    min_bytes: Some(64 * MIB),
                    protected_bytes: 64 * MIB,
                    guest: guest(250, 0),
                    ..node(1, Kind::Vm, "web", 260)
                },
                node(2, Kind::Zone, "ram", 259),
                Node { orphan: true, ..node(1, Kind::Zone, "ram", 20) },
            ];
            let pool = PoolState {
                capacity_bytes: 1024 * MIB,
                protected_bytes: 64 * MIB,
                committed_bytes: 1536 * MIB,
                lambda_permille: if is_short { 4000 } else { 1000 },
                ..PoolState::default()
            };
            let host = Host {
                total_bytes: 2048 * MIB,
                available_bytes: (1100 - grown) * MIB,
                stall_ppm: if is_short { 20_000 } else { 0 },
                ..Host::default()
            };
            let moment = Moment { now_ms: tick * 2000, host, pool, nodes, left_out: 0 };
            recording.extend(line(&moment).unwrap());
        }
        recording
    }

    pub fn read(recording: &[u8]) -> Result<HostHistory, Error> {
        let mut reader = Reader::default();
        for line in recording.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            reader.line(line)?;
        }
        reader.end()
    }

    #[test]
    fn a_recording_becomes_curves_and_two_moments() {
        let history = read(&recording()).unwrap();
        assert_eq!((history.end_ms, history.most_vms), (598_000, 3));
        assert_eq!(history.held.points().next(), Some((0.0, (680 * MIB) as f64)));
        assert_eq!(history.charges.points().next(), Some((0.0, (630 * MIB) as f64)));
        assert_eq!(history.targets.mean(), Some((580 * MIB) as f64));
        assert_eq!(history.ceilings.mean(), Some((1536 * MIB) as f64));
        assert!((history.refaults.most() - 50.0).abs() < 1e-9, "{}", history.refaults.most());
        assert!((history.guest_stall.most() - 0.001).abs() < 1e-9, "{}", history.guest_stall.most());
        assert!((history.stall.most() - 0.02).abs() < 1e-9 && (history.lambda.most() - 4.0).abs() < 1e-9);
        assert_eq!(history.refaulted, 29_900);
        assert_eq!(history.least_available_bytes, Some(901 * MIB));
        let at = |moment: &Option<Rc<Moment>>| moment.as_ref().unwrap().now_ms;
        assert_eq!((at(&history.last), at(&history.highest)), (598_000, 398_000));
    }

    #[test]
    fn who_counts_from_nothing_again_has_not_counted_backwards() {
        let with = |now_ms, refault_pages| {
            let guest = Some(Guest { refault_pages, ..Guest::default() });
            let nodes = vec![node(0, Kind::Pool, "", 0), Node { guest, ..node(1, Kind::Vm, "web", 0) }];
            Moment { now_ms, nodes, ..Moment::default() }
        };
        let mut history = HostHistory::new(Header::new(0));
        let moments = [with(0, 1000), with(2000, 3), with(1000, 9), with(4000, 10)];
        moments.into_iter().for_each(|moment| history.take(moment));
        assert_eq!((history.refaulted, history.end_ms), (1, 4000));
    }

    #[test]
    fn a_recording_that_is_none_is_named_by_its_line() {
        let whole = recording();
        assert!(matches!(read(b""), Err(Error::Garbled { line: 1, .. })));
        assert!(matches!(read(&[&whole[..], b"x\n"].concat()), Err(Error::Garbled { line: 302, .. })));
        let other = [b"{\"ballast-host-trace\":2}\n", &whole[..]].concat();
        assert!(matches!(read(&other), Err(Error::Version { found: 2, .. })));
    }
}
