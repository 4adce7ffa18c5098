//! `ballast zones [NAME]`: the zones of running microVMs, one a line. Each is asked over its own control socket.

use super::client;
use super::daemon::Daemon;
use super::dirs::Dirs;
use super::format::{Format, write_list, write_table};
use super::output::Output;
use super::state::Known;
use super::{charging, zone_tree};
use balloon::control::api::{VmDocument, ZoneDocument, ZoneKind, ZonesDocument};
use balloon::resident::{Mapping, parse_smaps};
use balloon::size::Size;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// List the zones of memory that running microVMs have
#[derive(Args, Debug)]
#[command(after_help = "\
RESIDENT is what the host has of it in memory, SHARE its part of a layer that others map, too, BALLOONED what its balloon
has, REPORTED what its guest reported free and gave back. In --tree, HELD is what it alone has in the host's memory, without
the kernel and layers that it shares, FOOTPRINT is that with its part of the layers, and PROTECTED is what of it is never
taken.")]
pub struct ZonesArgs {
    /// Name of a microVM; without it, all are listed
    name: Option<String>,
    /// Show how the host's memory is divided: pool, groups, microVMs and zones, with their limits; needs ballastd
    #[arg(long, conflicts_with = "name")]
    tree: bool,
    /// Show the image layers that microVMs share and who pays for them, in each of the three ways; needs ballastd
    #[arg(long, conflicts_with_all = ["name", "tree"])]
    charging: bool,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// An image of gigabytes is read in a few requests.
const LOOKS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

#[derive(Serialize)]
struct Listed {
    vm: String,
    #[serde(flatten)]
    zone: ZoneDocument,
    /// Of a shared zone, what this microVM has mapped of it, each page divided by the number of those who have; null if
    /// the zone is private or the host does not say.
    share_bytes: Option<u64>,
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, the state directory cannot be read, or nobody takes the list.
pub fn run(args: &ZonesArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    if args.tree {
        return tree(args.format, &state);
    }
    if args.charging {
        return charging(args.format, &state);
    }
    let listed = match &args.name {
        Some(name) => {
            let vm = client::find(&state, name)?;
            of(&vm.name, ask(&vm)?)
        }
        None => {
            let running = client::running(&state)?;
            let answers = client::ask_all(&running, ask);
            let mut listed = Vec::new();
            for (vm, answer) in answers {
                match answer {
                    Ok(zones) => listed.extend(of(&vm.name, zones)),
                    // It has no zones yet, or none any more.
                    Err(client::Error::Starting(_) | client::Error::Ending(_)) => {}
                    Err(error) => balloon::logging::print_chain("ballast", &error),
                }
            }
            listed
        }
    };
    let headings = [
        "VM",
        "ZONE",
        "KIND",
        "NODE",
        "HOST NODE",
        "SIZE",
        "MAX",
        "RESIDENT",
        "SHARE",
        "BALLOONED",
        "REPORTED",
        "HUGE PAGES",
    ];
    write_list(args.format, headings, &listed, row, &mut Output::lock())?;
    Ok(ExitCode::SUCCESS)
}

fn tree(format: Format, state: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let tree = Daemon::of(state).tree("--tree")?;
    let mut output = Output::lock();
    match format {
        Format::Table => {
            let rows: Vec<_> = tree.nodes.iter().map(zone_tree::row).collect();
            write_table(zone_tree::HEADINGS, &rows, &mut output)?;
            writeln!(output, "\n{}", zone_tree::summary(&tree.host))?;
        }
        Format::Json => {
            serde_json::to_writer(&mut output, &tree)?;
            writeln!(output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn charging(format: Format, state: &Path) -> Result<ExitCode, Box<dyn Error>> {
    let document = Daemon::of(state).charging("--charging")?;
    let mut output = Output::lock();
    match format {
        Format::Table => write_table(charging::HEADINGS, &charging::rows(&document), &mut output)?,
        Format::Json => {
            serde_json::to_writer(&mut output, &document)?;
            writeln!(output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The zones of a microVM, and what it has mapped.
type Zones = (ZonesDocument, Vec<Mapping>);

/// Asks until the first reading of all layers has ended: it goes on with each request.
fn ask(vm: &Known) -> Result<Zones, client::Error> {
    let unread = |zone: &ZoneDocument| zone.kind == ZoneKind::Shared && zone.resident_bytes.is_none();
    let mut zones: ZonesDocument = client::get(vm, "/v1/zones")?;
    for _ in 0..LOOKS {
        if !zones.zones.iter().any(unread) {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        zones = client::get(vm, "/v1/zones")?;
    }
    let is_shared = |zone: &ZoneDocument| zone.kind == ZoneKind::Shared;
    let mappings = if zones.zones.iter().any(is_shared) {
        let document: VmDocument = client::get(vm, "/v1/vm")?;
        // It walks the page tables of the process, and may be barred by a security module.
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", document.pid));
        smaps.map(|text| parse_smaps(&text)).unwrap_or_default()
    } else {
        Vec::new()
    };
    Ok((zones, mappings))
}

fn of(vm: &str, (zones, mappings): Zones) -> Vec<Listed> {
    let listed = |zone: ZoneDocument| {
        let share_bytes = (zone.kind == ZoneKind::Shared).then(|| share(&zone.name, &mappings)).flatten();
        Listed { vm: vm.into(), zone, share_bytes }
    };
    zones.zones.into_iter().map(listed).collect()
}

/// The share of the layer called `name`: a mapping of its file, or several where advice has cut it.
fn share(name: &str, mappings: &[Mapping]) -> Option<u64> {
    let is_layer = |mapping: &&Mapping| {
        let file = mapping.name.rsplit('/').next().unwrap_or_default();
        !name.is_empty() && file.starts_with(name) && file.contains(".erofs")
    };
    let shares = mappings.iter().filter(is_layer).map(|mapping| mapping.pss);
    shares.fold(None, |sum: Option<u64>, share| Some(sum.unwrap_or(0).saturating_add(share)))
}

fn row(Listed { vm, zone, share_bytes }: &Listed) -> [String; 12] {
    let size = |bytes| Size::from_bytes(bytes).to_string();
    [
        vm.clone(),
        super::format::printable(&zone.name),
        match zone.kind {
            ZoneKind::Private => "private".into(),
            ZoneKind::Shared => "shared".into(),
        },
        zone.node.map_or_else(|| "-".into(), |node| node.to_string()),
        zone.host_node.map_or_else(|| "any".into(), |node| node.to_string()),
        size(zone.size_bytes),
        zone.max_bytes.map_or_else(|| "-".into(), size),
        zone.resident_bytes.map_or_else(|| "-".into(), size),
        share_bytes.map_or_else(|| "-".into(), size),
        size(zone.ballooned_bytes),
        size(zone.reported_bytes),
        if zone.huge_pages { "yes" } else { "no" }.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_a_line() {
        let zone = ZoneDocument {
            name: "cache".into(),
            kind: ZoneKind::Private,
            node: Some(1),
            host_node: None,
            huge_pages: true,
            size_bytes: 128 << 20,
            max_bytes: Some(64 << 20),
            resident_bytes: None,
            ballooned_bytes: 3 << 20,
            reported_bytes: 0,
        };
        let layer = ZoneDocument {
            name: "0123456789ab".into(),
            kind: ZoneKind::Shared,
            node: None,
            resident_bytes: Some(8 << 20),
            huge_pages: false,
            max_bytes: None,
            ballooned_bytes: 0,
            ..zone.clone()
        };
        let mapping = |name: &str, pss| Mapping { name: name.into(), pss, ..Mapping::default() };
        let mappings = vec![
            mapping("/data/layers/0123456789abcd.erofs", 1 << 20),
            mapping("/data/layers/0123456789abcd.erofs (deleted)", 3 << 20),
            mapping("/data/0123456789ab/ffff.erofs", 1 << 30),
            mapping("", 1 << 30),
        ];
        let listed = of("web", (ZonesDocument { zones: vec![zone, layer] }, mappings));
        assert_eq!(row(&listed[0]).join("|"), "web|cache|private|1|any|128 MiB|64 MiB|-|-|3 MiB|0 B|yes");
        let layer = "web|0123456789ab|shared|-|any|128 MiB|-|8 MiB|4 MiB|0 B|0 B|no";
        assert_eq!(row(&listed[1]).join("|"), layer);
    }
}
