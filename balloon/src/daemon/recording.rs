//! The fleet as a line of a host's recording, and how long a recording gets. Pure; [`super::recorder`] writes it.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::arbitration::CALM_PERMILLE;
use super::fleet::Fleet;
use super::member::Member;
use crate::control::fleet::HostDocument;
use crate::control::host_trace::{Guest, MOST_NODES, Moment, Node, PoolState, RECORDING_BYTES};
use crate::zone::Kind;

impl Fleet {
    /// What a recording has of the fleet as the last tick left it, of which `document` is the host's part. Computes nothing
    /// anew.
    #[must_use]
    pub fn moment(&self, now_ms: u64, document: &HostDocument) -> Moment {
        let mut nodes = Vec::new();
        let mut left_out = 0u64;
        let mut next = vec![(self.tree.root(), 0u64)];
        while let Some((id, depth)) = next.pop() {
            let Some(node) = self.tree.get(id) else { continue };
            let before = next.len();
            next.extend(self.tree.children(id).map(|child| (child, depth.saturating_add(1))));
            next.get_mut(before..).unwrap_or_default().reverse();
            if nodes.len() >= MOST_NODES {
                left_out = left_out.saturating_add(1);
                continue;
            }
            let name = self.layers.label(id).unwrap_or(node.name());
            let name = name.rsplit('/').next().unwrap_or_default();
            let member = (node.kind() == Kind::Vm).then(|| self.vms.get(node.name())).flatten();
            let limits = node.limits();
            nodes.push(Node {
                orphan: node.is_orphan(),
                charge_bytes: node.charge_bytes(),
                protected_bytes: self.protection.get(id).unwrap_or_default().min,
                min_bytes: limits.min,
                low_bytes: limits.low,
                high_bytes: limits.high,
                max_bytes: limits.max,
                // What is left of one that had the name before is no guest.
                guest: member.filter(|member| member.id == id && member.linked).map(guest),
                ..Node::new(depth, node.kind(), name)
            });
        }
        let pool = PoolState {
            capacity_bytes: document.capacity_bytes,
            protected_bytes: document.protected_bytes,
            committed_bytes: document.committed_bytes,
            lambda_permille: document.lambda_permille,
            deficit_bytes: document.deficit_bytes,
            refuses: document.refuses,
        };
        Moment { now_ms, host: self.arbitration.host, pool, nodes, left_out }
    }
}

fn guest(member: &Member) -> Guest {
    let totals = member.usage.totals;
    Guest {
        target_bytes: member.usage.target_bytes,
        ceiling_bytes: member.ceiling_bytes,
        swapped_bytes: member.swapped_bytes,
        lambda_permille: member.allotment.map_or(CALM_PERMILLE, |allotment| allotment.lambda_permille),
        refault_pages: totals.refault_file.saturating_add(totals.refault_anon),
        stall_us: totals.stall_us,
    }
}

/// What a recording may still take.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    left_bytes: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { left_bytes: RECORDING_BYTES }
    }
}

impl Room {
    /// Takes room for a line of so many bytes; once one does not fit, none does.
    pub fn take(&mut self, bytes: usize) -> bool {
        let left = u64::try_from(bytes).ok().and_then(|bytes| self.left_bytes.checked_sub(bytes));
        self.left_bytes = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a test may fail by it")]
mod tests {
    use super::*;
    use crate::control::fleet::StartRequest;
    use crate::control::host_trace::line;
    use crate::control::link::{Hello, Offer, Report, Usage, ZoneUse};
    use crate::daemon::host::{Held, Process};
    use crate::policy::Totals;
    use crate::policy::fleet::Host;
    use crate::zone::{Limits, Pool, Tree};

    const MIB: u64 = 1 << 20;
    const PROCESS: Process = Process { pid: 7, start_ticks: 9 };

    fn fleet() -> Fleet {
        let mut fleet = Fleet::new(Tree::new(Pool { capacity_bytes: 1024 * MIB, overcommit: true }).unwrap());
        let limits = Limits { min: Some(64 * MIB), max: Some(512 * MIB), ..Limits::default() };
        let request = StartRequest { name: "web".into(), group: "ci/linux".into(), limits, share: None };
        fleet.admit(&request, PROCESS).unwrap();
        let zones = vec!["ram".into()];
        let group = "ci/linux".into();
        let hello = Hello {
            name: "web".into(),
            pid: 7,
            group,
            limits,
            memory_bytes: 512 * MIB,
            zones,
            inherits: false,
        };
        fleet.greet(&hello, PROCESS).unwrap();
        let sequence = fleet.envelope("web").unwrap().sequence;
        let totals = Totals { refault_file: 5, refault_anon: 6, stall_us: 7 };
        let report = Report {
            sequence,
            ceiling_bytes: 300 * MIB,
            manual: false,
            floor_bytes: 0,
            limits,
            zones: vec![ZoneUse { name: "ram".into(), resident_bytes: Some(100 * MIB) }],
            offer: Offer::default(),
            usage: Usage { target_bytes: Some(90 * MIB), totals, ..Usage::default() },
        };
        let held = Held { private_bytes: 101 * MIB, swapped_bytes: 3 * MIB, ..Held::default() };
        fleet.observe("web", &report, || Some(held)).unwrap();
        fleet.arbitrate(Host { total_bytes: 2048 * MIB, available_bytes: 1000 * MIB, ..Host::default() });
        fleet
    }

    #[test]
    fn a_line_has_the_tree_and_how_each_does() {
        let fleet = fleet();
        let moment = fleet.moment(2000, &fleet.host());
        let names: Vec<_> = moment.nodes.iter().map(|node| (node.depth, node.name.as_str())).collect();
        assert_eq!(names, [(0, ""), (1, "ci"), (2, "linux"), (3, "web"), (4, "ram")]);
        let charges: Vec<_> = moment.nodes.iter().map(|node| node.charge_bytes / MIB).collect();
        assert_eq!(charges, [101, 101, 101, 101, 100]);
        let web = &moment.nodes[3];
        assert_eq!((web.min_bytes, web.protected_bytes), (Some(64 * MIB), 64 * MIB));
        let guest = Guest {
            target_bytes: Some(90 * MIB),
            ceiling_bytes: 300 * MIB,
            swapped_bytes: 3 * MIB,
            lambda_permille: 1000,
            refault_pages: 11,
            stall_us: 7,
        };
        assert_eq!(web.guest, Some(guest));
        assert_eq!((moment.pool.capacity_bytes, moment.pool.committed_bytes), (1024 * MIB, 512 * MIB));
        assert_eq!((moment.host.available_bytes, moment.left_out), (1000 * MIB, 0));
    }

    #[test]
    fn more_nodes_than_a_line_has_are_counted_and_those_above_them_are_there() {
        let mut fleet = Fleet::new(Tree::new(Pool { capacity_bytes: 1024 * MIB, overcommit: true }).unwrap());
        for number in 0..5000 {
            let name = format!("vm{number}");
            let request = StartRequest { name, group: "ci".into(), limits: Limits::default(), share: None };
            fleet.admit(&request, PROCESS).unwrap();
        }
        let moment = fleet.moment(0, &fleet.host());
        assert_eq!((moment.nodes.len(), moment.left_out), (MOST_NODES, 10_002 - MOST_NODES as u64));
        assert!(line(&moment).is_some());
    }

    #[test]
    fn a_recording_ends_with_the_last_line_that_fits() {
        let mut room = Room::default();
        let all = usize::try_from(RECORDING_BYTES).unwrap();
        assert!(room.take(1) && room.take(all - 1));
        assert!(!room.take(1));
        let mut room = Room::default();
        assert!(!room.take(all + 1) && !room.take(1));
    }
}
