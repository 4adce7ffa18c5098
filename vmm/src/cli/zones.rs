//! `ballast zones [NAME]`: the zones of running microVMs, one a line. Each is asked over its own control socket.

use super::client;
use super::daemon::Daemon;
use super::dirs::Dirs;
use super::format::{Format, write_list, write_table};
use super::output::Output;
use super::zone_tree;
use balloon::control::api::{ZoneDocument, ZoneKind, ZonesDocument};
use balloon::size::Size;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// List the zones of memory that running microVMs have
#[derive(Args, Debug)]
pub struct ZonesArgs {
    /// Name of a microVM; without it, all are listed
    name: Option<String>,
    /// Show how the host's memory is divided: pool, groups, microVMs and zones, with their limits; needs ballastd
    #[arg(long, conflicts_with = "name")]
    tree: bool,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Listed {
    vm: String,
    #[serde(flatten)]
    zone: ZoneDocument,
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
    let listed = match &args.name {
        Some(name) => {
            let vm = client::find(&state, name)?;
            of(&vm.name, client::get(&vm, "/v1/zones")?)
        }
        None => {
            let running = client::running(&state)?;
            let answers = client::ask_all(&running, |vm| client::get(vm, "/v1/zones"));
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
        "RESIDENT",
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

fn of(vm: &str, zones: ZonesDocument) -> Vec<Listed> {
    zones.zones.into_iter().map(|zone| Listed { vm: vm.into(), zone }).collect()
}

fn row(Listed { vm, zone }: &Listed) -> [String; 10] {
    let size = |bytes| Size::from_bytes(bytes).to_string();
    [
        vm.clone(),
        super::format::printable(&zone.name),
        match zone.kind {
            ZoneKind::Private => "private".into(),
        },
        zone.node.to_string(),
        zone.host_node.map_or_else(|| "any".into(), |node| node.to_string()),
        size(zone.size_bytes),
        zone.resident_bytes.map_or_else(|| "-".into(), size),
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
            node: 1,
            host_node: None,
            huge_pages: true,
            size_bytes: 128 << 20,
            resident_bytes: None,
            ballooned_bytes: 3 << 20,
            reported_bytes: 0,
        };
        let listed = of("web", ZonesDocument { zones: vec![zone] });
        assert_eq!(row(&listed[0]).join("|"), "web|cache|private|1|any|128 MiB|-|3 MiB|0 B|yes");
    }
}
