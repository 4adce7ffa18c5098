//! Who pays for image layers, as a table: what `ballastd` says of shared zones. Pure.

use super::format::printable;
use balloon::control::fleet::{ChargingDocument, ShareDocument, SharedZoneDocument};
use balloon::size::Size;
use balloon::zone::{Charging, Kind, Scope};

/// Headings of the table.
pub const HEADINGS: [&str; 9] =
    ["ZONE", "SCOPE", "VMS", "RESIDENT", "PROPORTIONAL", "FIRST TOUCH", "COMMON", "CHARGED", "TO"];

/// A line for each layer, with those who pay for it below, the most by the way that is in force first.
#[must_use]
pub fn rows(document: &ChargingDocument) -> Vec<[String; 9]> {
    let mut zones: Vec<_> = document.zones.iter().collect();
    zones.sort_by(|a, b| (&a.scope, &a.name).cmp(&(&b.scope, &b.name)));
    zones.into_iter().flat_map(|zone| std::iter::once(layer(zone)).chain(payers(zone))).collect()
}

fn size(bytes: u64) -> String {
    Size::from_bytes(bytes).to_string()
}

fn layer(zone: &SharedZoneDocument) -> [String; 9] {
    let scope = match &zone.scope {
        Scope::Host => "host".into(),
        Scope::Group(path) => format!("group {path}"),
        Scope::Vm(name) => format!("VM {name}"),
    };
    let way = match zone.charging {
        Charging::Proportional => "proportional",
        Charging::FirstTouch => "first-touch",
        Charging::Common => "common",
    };
    let home = if zone.home.is_empty() { "host" } else { &zone.home };
    let resident = size(zone.resident_bytes);
    [
        printable(&zone.name),
        printable(&scope),
        zone.vms.to_string(),
        resident.clone(),
        resident.clone(),
        resident.clone(),
        resident,
        way.into(),
        printable(home),
    ]
}

fn payers(zone: &SharedZoneDocument) -> Vec<[String; 9]> {
    let in_force = |share: &ShareDocument| match zone.charging {
        Charging::Proportional => share.proportional_bytes,
        Charging::FirstTouch => share.first_touch_bytes,
        Charging::Common => share.common_bytes,
    };
    let mut shares: Vec<_> = zone.shares.iter().collect();
    shares.sort_by(|a, b| (in_force(b), &a.name).cmp(&(in_force(a), &b.name)));
    let row = |share: &ShareDocument| {
        let name = if share.kind == Kind::Pool { "host" } else { &share.name };
        [
            format!("  {}", printable(name)),
            share.kind.to_string(),
            "-".into(),
            "-".into(),
            size(share.proportional_bytes),
            size(share.first_touch_bytes),
            size(share.common_bytes),
            size(in_force(share)),
            "-".into(),
        ]
    };
    shares.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_pay_stand_below_what_they_pay_for() {
        const MIB: u64 = 1 << 20;
        let share = |name: &str, kind, [a, b, c]: [u64; 3]| ShareDocument {
            proportional_bytes: a * MIB,
            first_touch_bytes: b * MIB,
            common_bytes: c * MIB,
            ..ShareDocument::new(name.into(), kind)
        };
        let zone = SharedZoneDocument {
            name: "0123456789ab".into(),
            scope: Scope::Group("ci".into()),
            home: "ci".into(),
            charging: Charging::FirstTouch,
            size_bytes: 9 * MIB,
            resident_bytes: 6 * MIB,
            vms: 2,
            shares: vec![
                share("ci", Kind::Group, [0, 1, 6]),
                share("a", Kind::Vm, [3, 0, 0]),
                share("b", Kind::Vm, [3, 5, 0]),
            ],
        };
        let host =
            SharedZoneDocument { scope: Scope::Host, home: String::new(), shares: vec![], ..zone.clone() };
        let rows = rows(&ChargingDocument { zones: vec![zone, host] });
        let lines: Vec<String> = rows.iter().map(|row| row.join("|")).collect();
        assert_eq!(
            lines,
            [
                "0123456789ab|host|2|6 MiB|6 MiB|6 MiB|6 MiB|first-touch|host",
                "0123456789ab|group ci|2|6 MiB|6 MiB|6 MiB|6 MiB|first-touch|ci",
                "  b|VM|-|-|3 MiB|5 MiB|0 B|5 MiB|-",
                "  ci|group|-|-|0 B|1 MiB|6 MiB|1 MiB|-",
                "  a|VM|-|-|3 MiB|0 B|0 B|0 B|-",
            ]
        );
    }
}
