//! `ballast set NAME`: changes a running microVM.

mod values;

use super::client;
use super::daemon::Daemon;
use super::dirs::Dirs;
use super::format::Format;
use super::output::Output;
use super::state::Known;
use balloon::control::api::{CeilingRequest, MemoryDocument};
use balloon::control::fleet::GroupLimitsRequest;
use balloon::control::orders::{
    LimitsDocument, LimitsRequest, MoveDocument, MoveRequest, NodeDocument, NodeRequest, ZoneMaxDocument,
    ZoneMaxRequest,
};
use balloon::control::reclaim::{ReclaimDocument, ReclaimRequest};
use balloon::device::LEAST_FLOOR_BYTES;
use balloon::size::Size;
use balloon::working_set::{StallBudget, WorkingSetAge};
use balloon::zone::WEIGHTS;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use values::{Ceiling, Inherits, Limit, Node};

/// Change a running microVM, or with --group and without its name the limits of a group
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ballast set web --working-set-age 60s      give back sooner what it does not use; auto as before
  ballast set web --memory-high 200m         bring it back to that when it has more
  ballast set web --memory-max 256m          never let it have more
  ballast set web --group ci                 let the limits of a group hold for it
  ballast set --group ci --memory-max 4g     change those
A guest is left 96 MiB at least, or what its kernel has taken at its start and 16 MiB more.")]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
#[command(group(clap::ArgGroup::new("zone_change").args(["moved", "node", "memory_max"]).multiple(true)))]
pub struct SetArgs {
    /// How to say what came of it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Name of the microVM; without it --group names a group, whose limits are changed until ballastd reads its
    /// configuration anew
    #[arg(required_unless_present = "group")]
    name: Option<String>,
    /// Memory that the guest may have from now on: 512m, 1g, 1GiB; Ballast takes no more and gives none until auto leaves it
    /// to it again
    #[arg(long, value_name = "SIZE|auto", group = "change")]
    memory_ceiling: Option<Ceiling>,
    /// Memory that the guest may ever have: at most what it was started with, which max stands for; with --zone, what its
    /// workload may use of that
    #[arg(long, value_name = "SIZE|max", group = "change")]
    memory_max: Option<Limit>,
    /// Memory that it is brought back to when it has more; max is no such limit
    #[arg(long, value_name = "SIZE|max", group = "change", conflicts_with = "zone")]
    memory_high: Option<Limit>,
    /// Memory that is taken from it only when nothing unprotected is left; 0 is none
    #[arg(long, value_name = "SIZE", group = "change", conflicts_with = "zone")]
    memory_low: Option<Size>,
    /// Memory that is never taken from it; 0 is none
    #[arg(long, value_name = "SIZE", group = "change", conflicts_with = "zone")]
    memory_min: Option<Size>,
    /// Keep what the guest uses at least that often: 300s, 5m, 1h; auto leaves it to its group again, or to the default of
    /// 300s
    #[arg(long, value_name = "TIME|auto", group = "change")]
    working_set_age: Option<Inherits<WorkingSetAge>>,
    /// Share of time that the guest may lose waiting for memory that was taken from it: 0.1%; auto leaves it to its group
    /// again, or to the default of 0.1%
    #[arg(long, value_name = "PERCENT|auto", group = "change")]
    stall_budget: Option<Inherits<StallBudget>>,
    /// How much longer than others it keeps what it does not use, when memory is short; 100 is usual
    #[arg(long, value_name = "N", group = "change", value_parser = clap::value_parser!(u32).range(weights()))]
    weight: Option<u32>,
    /// Group whose limits hold for it from now on, such as ci/linux, or / for none; needs ballastd
    #[arg(long, value_name = "PATH", group = "change")]
    group: Option<String>,
    /// Move a process of the guest, by its number there, and its memory to the zone that --zone names
    #[arg(long = "move", value_name = "PID", group = "change", requires = "zone")]
    moved: Option<u32>,
    /// Take the zone that --zone names from this NUMA node of the host from now on, and move there what it holds; any
    /// has the host choose, and moves nothing
    #[arg(long, value_name = "N|any", group = "change", requires = "zone", conflicts_with = "moved")]
    node: Option<Node>,
    /// The zone that --memory-max, --move or --node is about
    #[arg(long, value_name = "NAME", requires = "zone_change")]
    zone: Option<String>,
}

fn weights() -> std::ops::RangeInclusive<i64> {
    i64::from(*WEIGHTS.start())..=i64::from(*WEIGHTS.end())
}

/// Some of what was asked for is done, and then something was refused.
#[derive(Debug, thiserror::Error)]
#[error("{done} changed, and then the microVM was left as it is")]
struct Partly {
    done: String,
    source: Box<dyn Error>,
}

/// Runs the verb and prints the microVM's name, as docker does.
///
/// # Errors
/// There is no such microVM, or it refuses.
pub fn run(args: &SetArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let daemon = Daemon::of(&state);
    let Some(name) = &args.name else { return change_group(args, daemon) };
    let vm = client::find(&state, name)?;
    let mut done = Vec::new();
    change_vm(&vm, args, daemon, &mut done).map_err(|source| match done.as_slice() {
        [] => source,
        done => Partly { done: done.join(" and "), source }.into(),
    })
}

/// Makes one change after another and prints what came of it. `done` is what was changed, also in a failure.
fn change_vm(
    vm: &Known,
    args: &SetArgs,
    daemon: Daemon<'_>,
    done: &mut Vec<&'static str>,
) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(group) = &args.group {
        daemon.move_vm(&vm.name, group.trim_matches('/'))?;
        done.push("the group");
    }
    if args.changes_limits() {
        set_limits(vm, args, daemon)?;
        done.push("the limits");
    }
    let law = ReclaimRequest {
        working_set_age_ms: args.working_set_age.map(|age| age.own().map(WorkingSetAge::ms)),
        stall_budget_ppm: args.stall_budget.map(|budget| budget.own().map(StallBudget::ppm)),
    };
    if law != ReclaimRequest::default() {
        let _: ReclaimDocument = client::put(vm, "/v1/reclaim", &law)?;
        done.push("the reclaim law");
    }
    if let Some(ceiling) = args.memory_ceiling {
        let request = match ceiling {
            Ceiling::Size(size) => CeilingRequest { bytes: Some(size.bytes()), auto: None },
            Ceiling::Auto => CeilingRequest { bytes: None, auto: Some(true) },
        };
        let _: MemoryDocument = client::put(vm, "/v1/memory/ceiling", &request)?;
        done.push("the ceiling");
    }
    if let (Some(max), Some(zone)) = (args.memory_max, &args.zone) {
        let request = ZoneMaxRequest { zone: zone.clone(), max_bytes: max.bytes() };
        let _: ZoneMaxDocument = client::order(vm, "/v1/zones/max", &request)?;
        done.push("the zone's limit");
    }
    if let (Some(node), Some(zone)) = (args.node, &args.zone) {
        let request = NodeRequest { zone: zone.clone(), node: node.number() };
        let placed: NodeDocument = client::order(vm, "/v1/zones/node", &request)?;
        done.push("the zone's node");
        let words = format!("{}: {}", vm.name, describe(&placed));
        return say(args, &words, &Changed { placed: Some(placed), ..Changed::new(&vm.name, done) });
    }
    if let (Some(pid), Some(zone)) = (args.moved, &args.zone) {
        let moved: MoveDocument = client::order(vm, "/v1/move", &MoveRequest { pid, zone: zone.clone() })?;
        let (there, elsewhere) =
            (Size::from_bytes(moved.there_bytes), Size::from_bytes(moved.elsewhere_bytes));
        done.push("the process's zone");
        let words = format!("{}: process {pid} has {there} in {zone} and {elsewhere} elsewhere", vm.name);
        return say(args, &words, &Changed { moved: Some(moved), ..Changed::new(&vm.name, done) });
    }
    say(args, &vm.name, &Changed::new(&vm.name, done))
}

/// What was changed, as JSON.
#[derive(Serialize)]
struct Changed<'a> {
    /// Of the microVM, or the group's path.
    name: &'a str,
    /// In words.
    changed: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    placed: Option<NodeDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<MoveDocument>,
}

impl<'a> Changed<'a> {
    fn new(name: &'a str, changed: &'a [&'static str]) -> Self {
        Self { name, changed, placed: None, moved: None }
    }
}

fn say(args: &SetArgs, words: &str, changed: &Changed<'_>) -> Result<ExitCode, Box<dyn Error>> {
    match args.format {
        Format::Table => writeln!(Output::lock(), "{words}")?,
        Format::Json => {
            serde_json::to_writer(&mut Output::lock(), changed)?;
            writeln!(Output::lock())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets limits of a group, all or none, and prints its path.
fn change_group(args: &SetArgs, daemon: Daemon<'_>) -> Result<ExitCode, Box<dyn Error>> {
    let group = args.group.as_deref().unwrap_or_default().trim_matches('/');
    if args.working_set_age.is_some() || args.stall_budget.is_some() {
        return Err("the working-set age and stall budget of a group are set in ballastd's configuration, by working-set-age \
                    and stall-budget below [groups.NAME]: change them there and have ballastd reload it"
            .into());
    }
    if args.memory_ceiling.is_some() || args.moved.is_some() || args.node.is_some() || !args.changes_limits()
    {
        return Err("without the name of a microVM, --group takes limits of the group: --memory-max, -high, -low, -min \
                    or --weight"
            .into());
    }
    if let Some(max) = args.own_max().and_then(Limit::bytes).filter(|max| *max < LEAST_FLOOR_BYTES) {
        let [max, least] = [max, LEAST_FLOOR_BYTES].map(Size::from_bytes);
        return Err(format!(
            "no microVM could keep to {max}, as any guest is left {least}: give the group more"
        )
        .into());
    }
    let protection = |size: Size| Some(size.bytes()).filter(|bytes| *bytes > 0);
    daemon.change_group(&GroupLimitsRequest {
        group: group.into(),
        min: args.memory_min.map(protection),
        low: args.memory_low.map(protection),
        high: args.memory_high.map(Limit::bytes),
        max: args.own_max().map(Limit::bytes),
        weight: args.weight,
    })?;
    say(args, group, &Changed::new(group, &["the limits"]))
}

/// What came of a zone's move, for people.
fn describe(placed: &NodeDocument) -> String {
    let NodeDocument { zone, node, moved_bytes, there_bytes, elsewhere_bytes } = placed;
    let Some(node) = node else { return format!("zone {zone} is taken from any node from now on") };
    let [moved, there, elsewhere] =
        [moved_bytes, there_bytes, elsewhere_bytes].map(|bytes| Size::from_bytes(*bytes));
    let rest = match elsewhere_bytes {
        0 => String::new(),
        _ => format!(
            "; {elsewhere} could not be moved, as it was in use all the while or node {node} is full: try again later"
        ),
    };
    format!("zone {zone} has {there} on node {node}, {moved} of it moved there now{rest}")
}

impl SetArgs {
    /// The limit of the microVM, or of the group, itself.
    fn own_max(&self) -> Option<Limit> {
        self.memory_max.filter(|_| self.zone.is_none())
    }

    fn changes_limits(&self) -> bool {
        self.own_max().is_some()
            || self.memory_high.is_some()
            || self.memory_low.is_some()
            || self.memory_min.is_some()
            || self.weight.is_some()
    }

    /// What only a daemon can do: alone, a microVM can be limited, but nobody protects its memory from others.
    fn need(&self) -> Option<&'static str> {
        let protections = [("--memory-min", self.memory_min), ("--memory-low", self.memory_low)];
        protections
            .into_iter()
            .find_map(|(option, size)| size.filter(|size| size.bytes() > 0).map(|_| option))
    }

    /// The limits as they are to be: those that are not named stay.
    fn limits(&self, now: LimitsDocument) -> LimitsRequest {
        let protection = |size: Size| Some(size.bytes()).filter(|bytes| *bytes > 0);
        let now = LimitsRequest::from(now);
        LimitsRequest {
            min_bytes: self.memory_min.map_or(now.min_bytes, protection),
            low_bytes: self.memory_low.map_or(now.low_bytes, protection),
            high_bytes: self.memory_high.map_or(now.high_bytes, Limit::bytes),
            max_bytes: self.own_max().map_or(now.max_bytes, Limit::bytes),
            weight: self.weight.or(now.weight),
        }
    }
}

/// Sets all limits or none. Somebody else's change between reading and setting makes the microVM refuse, not lose it.
/// The daemon is asked first, whether the pool admits them; what the microVM then refuses, the daemon hears from it.
fn set_limits(vm: &Known, args: &SetArgs, daemon: Daemon<'_>) -> Result<(), Box<dyn Error>> {
    let memory: MemoryDocument = client::get(vm, "/v1/memory")?;
    let now: LimitsDocument = client::get(vm, "/v1/limits")?;
    let wanted = args.limits(now);
    let wanted = LimitsRequest { max_bytes: wanted.max_bytes.or(Some(memory.size_bytes)), ..wanted };
    daemon.change(&vm.name, wanted.into(), args.need())?;
    let _: LimitsDocument = client::replace(vm, "/v1/limits", now.generation, &wanted)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        args: SetArgs,
    }

    fn parse(words: &[&str]) -> Result<SetArgs, String> {
        let line = Line::try_parse_from(["set", "web"].iter().chain(words));
        line.map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_that_are_not_named_stay() {
        let now = LimitsDocument {
            generation: 3,
            min_bytes: Some(1),
            low_bytes: Some(2),
            high_bytes: Some(3),
            max_bytes: 4,
            weight: 5,
        };
        let set = |words: &[&str]| parse(words).unwrap().limits(now);
        let kept = LimitsRequest::from(now);
        assert_eq!(set(&["--weight", "7"]), LimitsRequest { weight: Some(7), ..kept });
        let none = LimitsRequest { min_bytes: None, high_bytes: None, max_bytes: None, ..kept };
        assert_eq!(set(&["--memory-min", "0", "--memory-high", "max", "--memory-max", "MAX"]), none);
        assert_eq!(set(&["--memory-low", "1g"]), LimitsRequest { low_bytes: Some(1 << 30), ..kept });
    }

    #[test]
    fn what_was_changed_before_a_refusal_is_said() {
        let source = "1 KiB is no ceiling of this microVM".into();
        let error = Partly { done: "the limits".into(), source };
        let chain = format!("{error}: {}", error.source().unwrap());
        assert_eq!(
            chain,
            "the limits changed, and then the microVM was left as it is: 1 KiB is no ceiling of this microVM"
        );
    }

    #[test]
    fn something_is_set_and_a_move_has_a_zone() {
        for bad in [
            &[][..],
            &["--move", "5"],
            &["--zone", "a"],
            &["--weight", "0"],
            &["--weight", "10001"],
            &["--node", "1"],
            &["--node", "-1", "--zone", "a"],
            &["--node", "1", "--move", "5", "--zone", "a"],
            &["--memory-max", "1g", "--memory-min", "1m", "--zone", "a"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&["--move", "5", "--zone", "a"]).is_ok());
        let zones = parse(&["--memory-max", "1g", "--zone", "a"]).unwrap();
        assert!(!zones.changes_limits() && parse(&["--memory-max", "1g"]).unwrap().changes_limits());
        let line = Line::try_parse_from(["set", "--group", "ci", "--memory-max", "1g"]).unwrap();
        assert_eq!((line.args.name, line.args.group.as_deref()), (None, Some("ci")));
        assert!(Line::try_parse_from(["set", "--memory-max", "1g"]).is_err());
        let node = |word| parse(&["--node", word, "--zone", "a"]).unwrap().node.unwrap().number();
        let age = |word| parse(&["--working-set-age", word]).map(|args| args.working_set_age.unwrap().own());
        assert_eq!(age("auto"), Ok(None));
        assert_eq!(age("60s").unwrap().map(WorkingSetAge::ms), Some(60_000));
        assert!(
            age("0s").unwrap_err().contains("from 1s to 30d") && parse(&["--stall-budget", "0%"]).is_err()
        );
        assert_eq!((node("1"), node("Any")), (Some(1), None));
    }

    #[test]
    fn what_could_not_be_moved_is_said() {
        let placed = NodeDocument {
            zone: "cache".into(),
            node: Some(1),
            moved_bytes: 6 << 20,
            there_bytes: 8 << 20,
            elsewhere_bytes: 0,
        };
        assert_eq!(describe(&placed), "zone cache has 8 MiB on node 1, 6 MiB of it moved there now");
        let stuck = NodeDocument { elsewhere_bytes: 1 << 20, ..placed.clone() };
        assert!(describe(&stuck).contains("; 1 MiB could not be moved"), "{}", describe(&stuck));
        assert!(describe(&NodeDocument { node: None, ..placed }).contains("any node"));
    }
}
