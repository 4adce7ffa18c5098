//! The zone tree as a table: what `ballastd` says of pool, groups, microVMs and zones. Pure.

use super::format::printable;
use balloon::control::fleet::{HostDocument, NodeDocument};
use balloon::size::Size;
use balloon::zone::Kind;

/// Headings of the table.
pub const HEADINGS: [&str; 10] =
    ["NAME", "KIND", "HELD", "FOOTPRINT", "MIN", "LOW", "HIGH", "MAX", "WEIGHT", "PROTECTED"];

/// One node, further to the right the deeper it lies.
#[must_use]
pub fn row(node: &NodeDocument) -> [String; 10] {
    let size = |bytes: u64| Size::from_bytes(bytes).to_string();
    let limit = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), size);
    // Zones of a microVM bear no limits of their own.
    let has_limits = matches!(node.kind, Kind::Group | Kind::Vm) && !node.orphan;
    let name = match (node.kind, node.name.rsplit_once('/')) {
        (Kind::Pool, _) => "host",
        (Kind::Group, Some((_, last))) => last,
        _ => &node.name,
    };
    let kind = match (node.orphan, node.linked) {
        (true, _) => format!("orphan {}", node.kind),
        (false, Some(false)) => format!("{}, starting", node.kind),
        (false, _) => node.kind.to_string(),
    };
    [
        format!("{}{}", "  ".repeat(node.depth), printable(name)),
        kind,
        size(node.charge_bytes),
        if node.kind == Kind::Shared { "-".into() } else { size(node.footprint_bytes) },
        limit(node.limits.min),
        limit(node.limits.low),
        limit(node.limits.high),
        limit(node.limits.max),
        if has_limits { node.limits.weight.to_string() } else { "-".into() },
        if node.kind == Kind::Pool { "-".into() } else { size(node.effective_min_bytes) },
    ]
}

/// The host in a sentence.
#[must_use]
pub fn summary(host: &HostDocument) -> String {
    let size = |bytes: u64| Size::from_bytes(bytes).to_string();
    let free = match u64::try_from(host.main_bytes) {
        Ok(bytes) => format!("{} in no zone", size(bytes)),
        Err(_) => format!("{} held beyond it", size(host.main_bytes.unsigned_abs())),
    };
    let short = match (host.deficit_bytes, host.refuses) {
        (0, false) => String::new(),
        (bytes, refuses) => format!(
            "\nMemory is short: {} too much is held and being taken back, at {}.{} times the pressure of a calm host{}.",
            size(bytes),
            host.lambda_permille / 1000,
            host.lambda_permille % 1000 / 100,
            if refuses { "; no microVM is started meanwhile" } else { "" },
        ),
    };
    format!(
        "The pool has {}, {free}; minimums promised {}, maximums {}; overcommit {}.{short}",
        size(host.capacity_bytes),
        size(host.protected_bytes),
        size(host.committed_bytes),
        if host.overcommit { "on" } else { "off" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::zone::Limits;

    fn node(name: &str, kind: Kind, depth: usize) -> NodeDocument {
        NodeDocument {
            name: name.into(),
            kind,
            depth,
            orphan: false,
            limits: Limits::default(),
            charge_bytes: 3 << 20,
            footprint_bytes: 4 << 20,
            effective_min_bytes: 0,
            effective_low_bytes: 0,
            linked: None,
        }
    }

    #[test]
    fn the_host_is_summed_up_even_when_more_is_held_than_there_is() {
        let host = HostDocument {
            pid: 1,
            capacity_bytes: 4 << 30,
            overcommit: true,
            main_bytes: 3 << 30,
            protected_bytes: 1 << 20,
            committed_bytes: 5 << 30,
            vms: 2,
            orphans: 0,
            available_bytes: 1 << 30,
            lambda_permille: 1000,
            deficit_bytes: 0,
            refuses: false,
        };
        let text =
            "The pool has 4 GiB, 3 GiB in no zone; minimums promised 1 MiB, maximums 5 GiB; overcommit on.";
        assert_eq!(summary(&host), text);
        assert!(
            summary(&HostDocument { main_bytes: -4096, ..host.clone() }).contains(", 4 KiB held beyond it;")
        );
        let short = HostDocument { lambda_permille: 3250, deficit_bytes: 5 << 20, refuses: true, ..host };
        let text = "on.\nMemory is short: 5 MiB too much is held and being taken back, at 3.2 times the pressure of a \
                    calm host; no microVM is started meanwhile.";
        assert!(summary(&short).ends_with(text), "{}", summary(&short));
    }

    #[test]
    fn nodes_stand_below_what_they_lie_in() {
        let line = |node: &NodeDocument| row(node).join("|");
        assert_eq!(line(&node("", Kind::Pool, 0)), "host|pool|3 MiB|4 MiB|-|-|-|-|-|-");
        let limits = Limits { min: Some(1 << 20), max: Some(1 << 30), ..Limits::default() };
        let group = NodeDocument { limits, ..node("ci/linux", Kind::Group, 2) };
        assert_eq!(line(&group), "    linux|group|3 MiB|4 MiB|1 MiB|-|-|1 GiB|100|0 B");
        let vm = NodeDocument { linked: Some(false), ..node("web", Kind::Vm, 1) };
        assert_eq!(line(&vm), "  web|VM, starting|3 MiB|4 MiB|-|-|-|-|100|0 B");
        let orphan = NodeDocument { orphan: true, ..node("ram", Kind::Zone, 3) };
        let layer = node("0123456789ab", Kind::Shared, 1);
        assert_eq!(line(&layer), "  0123456789ab|shared zone|3 MiB|-|-|-|-|-|-|0 B");
        assert_eq!(line(&orphan), "      ram|orphan zone|3 MiB|4 MiB|-|-|-|-|-|0 B");
    }
}
