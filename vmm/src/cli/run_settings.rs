//! What a command line of `ballast run` comes to, and what is wrong with it. Pure but for one look at standard input.

use super::launch::Reclaim;
use super::run_args::RunArgs;
use super::{workload, zone_argument};
use crate::config::ZoneConfig;
use crate::kernel;
use balloon::BLOCK_BYTES;
use balloon::device::{FEATURE_NAMES, LEAST_FLOOR_BYTES, OFFERED, named_features};
use balloon::size::Size;
use balloon::working_set::{StallBudget, WorkingSetAge};
use balloon::zone::Limits;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;

/// Below this a stock kernel does not boot.
const LEAST_MEMORY: u64 = 96 << 20;

/// Lists the balloon's features to offer, to find out whether a failure is theirs.
pub(super) const BALLOON_VARIABLE: &str = "BALLAST_BALLOON";

/// What is wrong with the command line itself.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("-t needs a terminal, and standard input is none: leave -t away")]
    NoTerminal,
    #[error("{0} of memory are too few for a guest kernel: use at least {least}", least = Size::from_bytes(LEAST_MEMORY))]
    TooLittleMemory(Size),
    #[error(
        "standard input cannot be both the image and the command's input: import the image first, or leave -i away"
    )]
    TwoInputs,
    #[error("{0} cannot be the microVM's --memory-high: it takes {least} to {1}, its -m", least = Size::from_bytes(LEAST_FLOOR_BYTES))]
    High(Size, Size),
    #[error("{0} of memory are more than any host has: lower -m")]
    TooMuchMemory(Size),
    #[error(
        "${BALLOON_VARIABLE} is a list of the balloon's features that the guest is offered, with commas between: {}",
        FEATURE_NAMES.map(|(name, _)| name).join(", ")
    )]
    BalloonFeatures,
    #[error(transparent)]
    Workload(#[from] workload::Error),
    #[error(transparent)]
    Zone(#[from] zone_argument::ArgumentError),
    #[error(transparent)]
    KernelParameters(#[from] kernel::ParameterError),
}

/// Everything that can be refused before anything is looked for or made.
pub(super) fn check(args: &RunArgs) -> Result<(), Refusal> {
    if args.tty && !args.detach && !std::io::stdin().is_terminal() {
        return Err(Refusal::NoTerminal);
    }
    if args.memory.bytes() < LEAST_MEMORY {
        return Err(Refusal::TooLittleMemory(args.memory));
    }
    if args.interactive && args.image() == "-" {
        return Err(Refusal::TwoInputs);
    }
    let max_bytes = memory_bytes(args)?;
    if let Some(high) =
        args.memory_high.filter(|high| !(LEAST_FLOOR_BYTES..=max_bytes).contains(&high.bytes()))
    {
        return Err(Refusal::High(high, Size::from_bytes(max_bytes)));
    }
    workload::check(args)?;
    kernel::command_line(args.boot_log, zones(args)?.len(), args.tracing, &args.kernel_arg)?;
    Ok(())
}

/// Its limits in the zone tree: all of guest memory is its max.
pub(super) fn limits(args: &RunArgs) -> Result<Limits, Refusal> {
    let max = zones(args)?.iter().fold(0, |sum: u64, zone| sum.saturating_add(zone.bytes));
    Ok(Limits {
        min: args.memory_min.map(Size::bytes),
        low: args.memory_low.map(Size::bytes),
        high: args.memory_high.map(Size::bytes),
        max: Some(max),
        ..Limits::default()
    })
}

/// The features that `list` names; all if there is no list.
pub(super) fn balloon_features(list: Option<&OsStr>) -> Result<u64, Refusal> {
    let Some(list) = list else { return Ok(OFFERED) };
    list.to_str().and_then(named_features).ok_or(Refusal::BalloonFeatures)
}

/// Memory of the guest in bytes, in whole blocks.
fn memory_bytes(args: &RunArgs) -> Result<u64, Refusal> {
    let bytes = args.memory.bytes().checked_next_multiple_of(BLOCK_BYTES);
    bytes.ok_or(Refusal::TooMuchMemory(args.memory))
}

/// The zones that its memory is divided into.
pub(super) fn zones(args: &RunArgs) -> Result<Vec<ZoneConfig>, Refusal> {
    let zones = zone_argument::zones(memory_bytes(args)?, &args.zone)?;
    workload_zone(args, &zones)?;
    Ok(zones)
}

/// The number of the zone that the command runs in.
pub(super) fn workload_zone(args: &RunArgs, zones: &[ZoneConfig]) -> Result<usize, Refusal> {
    Ok(args.in_zone.as_deref().map_or(Ok(0), |name| zone_argument::find_zone(zones, name))?)
}

/// The reclaim law that is wanted, written down to `recording`.
pub(super) fn reclaim(args: &RunArgs, recording: Option<OwnedFd>) -> Reclaim {
    Reclaim {
        mode: args.reclaim.into(),
        working_set_age_ms: args.working_set_age.map(WorkingSetAge::ms),
        stall_budget_ppm: args.stall_budget.map(StallBudget::ppm),
        recording,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::device::features;
    use clap::Parser;
    use std::os::unix::ffi::OsStrExt;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    #[test]
    fn a_high_lies_between_what_a_guest_needs_and_its_size() {
        let check = |high: &str| {
            let words = ["run", "-m", "256m", "--memory-high", high, "image"];
            check(&Line::try_parse_from(words).unwrap().args)
        };
        assert!(check("96m").is_ok() && check("256m").is_ok());
        for high in ["0", "1", "95m", "257m", "1g"] {
            let refusal = check(high).unwrap_err();
            assert!(matches!(refusal, Refusal::High(..)), "{refusal}");
            assert!(refusal.to_string().ends_with("96 MiB to 256 MiB, its -m"), "{refusal}");
        }
    }

    #[test]
    fn features_of_the_balloon_are_listed_or_all() {
        let listed = |list: &str| balloon_features(Some(OsStr::new(list))).ok();
        assert_eq!(balloon_features(None).ok(), Some(OFFERED));
        assert_eq!(listed(""), Some(0));
        assert_eq!(listed("reporting,statistics"), Some(features::REPORTING | features::STATS_VQ));
        assert_eq!(listed("reporting,hinting"), None);
        let refusal = balloon_features(Some(OsStr::from_bytes(b"\xff"))).unwrap_err().to_string();
        assert!(
            refusal.starts_with("$BALLAST_BALLOON is a list") && refusal.contains("page-poison"),
            "{refusal}"
        );
    }
}
