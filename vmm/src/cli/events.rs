//! `ballast events`: what has happened on this host, and with `--follow` what happens.
//!
//! The daemon keeps the last of them and is asked for those after the last one seen; its answer waits a little for the
//! next. Who follows is not bothered by a daemon that starts anew: its numbers go on.

#![forbid(unsafe_code)]

use super::daemon::{Daemon, Error as DaemonError};
use super::dirs::Dirs;
use super::format::{Format, printable};
use super::output::{Output, end_if_unread, eprint};
use super::since::since;
use balloon::control::events::{EventDocument, EventsDocument};
use clap::Args;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

/// Tell what has happened to the microVMs of this host, and why
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Go on with what happens, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what happened since then: 10m, 1h30m, 2026-01-02T03:04:05Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
    /// Only what happened to this microVM or group, or in it; several add up
    #[arg(long, value_name = "NAME")]
    filter: Vec<String>,
    /// How to write them; json is one document a line, with all numbers
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Between two questions of who follows, if the daemon did not make it wait.
const PAUSE: Duration = Duration::from_secs(1);
const NEED: &str = "`ballast events`";

/// Runs the verb.
///
/// # Errors
/// There is no daemon, or nobody takes the list.
pub fn run(args: &EventsArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let daemon = Daemon::of(&state);
    let mut page = daemon.events(None, NEED)?;
    let newest = page.newest;
    if args.format == Format::Table {
        writeln!(Output::lock(), "{}", columns(["TIME", "KIND", "WHO", "WHAT AND WHY"]))?;
    }
    loop {
        show(&page, args)?;
        if !args.follow && page.next >= newest {
            return Ok(ExitCode::SUCCESS);
        }
        page = next(daemon, page.next, args.follow)?;
    }
}

/// The events after `number`. For who follows, a daemon that is away is waited for.
fn next(daemon: Daemon<'_>, number: u64, follow: bool) -> Result<EventsDocument, DaemonError> {
    let mut is_away = false;
    loop {
        end_if_unread();
        let asked = Instant::now();
        match daemon.events(Some(number), NEED) {
            Ok(page) if page.events.is_empty() && follow => {
                sleep(PAUSE.saturating_sub(asked.elapsed()));
                return Ok(page);
            }
            Err(DaemonError::Missing(_) | DaemonError::NoAnswer(_)) if follow => {
                if !std::mem::replace(&mut is_away, true) {
                    eprint("ballast: ballastd is away; what happens meanwhile is not told\n");
                }
                sleep(PAUSE);
            }
            answer => return answer,
        }
    }
}

fn show(page: &EventsDocument, args: &EventsArgs) -> io::Result<()> {
    if page.forgotten > 0 {
        eprint(&format!("ballast: {} events before these are kept no longer\n", page.forgotten));
    }
    let mut output = Output::lock();
    for event in page.events.iter().filter(|event| is_wanted(event, args)) {
        match args.format {
            Format::Table => writeln!(output, "{}", row(event))?,
            Format::Json => {
                serde_json::to_writer(&mut output, event)?;
                writeln!(output)?;
            }
        }
    }
    output.flush()
}

fn is_wanted(event: &EventDocument, args: &EventsArgs) -> bool {
    let is_late = args.since.is_none_or(|since| time(event) >= since);
    let is_within = |filter: &String| {
        // As a group's name is shown, too.
        let name = filter.strip_suffix('/').unwrap_or(filter);
        let is_in = |group: &String| {
            group.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        event.vm.as_ref() == Some(filter) || event.group.as_ref().is_some_and(is_in)
    };
    is_late && (args.filter.is_empty() || args.filter.iter().any(is_within))
}

/// Times that nobody can write down are those of a clock that is wrong.
fn time(event: &EventDocument) -> SystemTime {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(250_000_000_000);
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(event.time_ms))
        .map_or(last, |time| time.min(last))
}

fn row(event: &EventDocument) -> String {
    let who = match (&event.vm, &event.group) {
        (Some(vm), _) => printable(vm),
        (None, Some(group)) => format!("{}/", printable(group)),
        (None, None) => "-".into(),
    };
    let time = humantime::format_rfc3339_millis(time(event)).to_string();
    columns([&time, &event.kind.to_string(), &who, &printable(&event.reason)])
}

/// What follows cannot be measured: columns are as wide as times, the longest kinds and usual names.
fn columns([time, kind, who, what]: [&str; 4]) -> String {
    format!("{time:<24}  {kind:<16}  {who:<12}  {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::control::events::EventKind;

    fn event(vm: Option<&str>, group: Option<&str>) -> EventDocument {
        EventDocument {
            number: 7,
            time_ms: 1_767_323_045_000,
            kind: EventKind::TakeBegun,
            vm: vm.map(Into::into),
            group: group.map(Into::into),
            reason: "it is\x1b[2J".into(),
            figures: [("take_bytes".to_owned(), 7)].into(),
        }
    }

    fn args(filter: &[&str], since: Option<SystemTime>) -> EventsArgs {
        let filter = filter.iter().map(ToString::to_string).collect();
        EventsArgs { follow: false, since, filter, format: Format::Table }
    }

    #[test]
    fn who_is_asked_for_is_shown_with_all_in_it() {
        let wanted = |filter: &[&str], vm, group| is_wanted(&event(vm, group), &args(filter, None));
        assert!(wanted(&[], None, None));
        assert!(wanted(&["web"], Some("web"), Some("ci")));
        assert!(
            wanted(&["ci"], Some("web"), Some("ci/linux")) && wanted(&["ci/linux"], None, Some("ci/linux"))
        );
        assert!(!wanted(&["ci"], Some("cicero"), Some("cicero")) && !wanted(&["web"], None, None));
        assert!(wanted(&["x", "web"], Some("web"), None));
    }

    #[test]
    fn what_is_older_is_not_shown() {
        let at = |ms| Some(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        let wanted = |since| is_wanted(&event(None, None), &args(&[], since));
        assert!(wanted(at(1_767_323_045_000)) && !wanted(at(1_767_323_045_001)));
        let never = EventDocument { time_ms: u64::MAX, ..event(None, None) };
        assert!(is_wanted(&never, &args(&[], at(0))) && row(&never).contains("take-begun"));
    }

    #[test]
    fn a_row_is_a_line_that_changes_no_terminal() {
        let text = "2026-01-02T03:04:05.000Z  take-begun        web           it is\u{fffd}[2J";
        assert_eq!(row(&event(Some("web"), Some("ci"))), text);
        assert!(row(&event(None, Some("ci"))).contains("  ci/  "));
    }
}
