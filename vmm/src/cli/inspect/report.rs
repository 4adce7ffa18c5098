//! A microVM in lines for people. Pure.
//!
//! They read of guest memory, never of the balloon's size: what the guest has, may have, and costs the host.

use super::Inspected;
use super::words::{ceiling, guest_memory, lines, numbers, policy, resident, size};
use crate::cli::format::lasted;
use crate::cli::state::{Exit, Record};
use balloon::control::api::{DriverState, GuestStatistics, HostDocument, MemoryDocument, VmDocument};
use balloon::control::orders::LimitsDocument;
use balloon::control::reclaim::ReclaimDocument;
use balloon::policy::Mode;
use std::time::Duration;

/// A line a fact, each with a word in front; `now_ms` is the time since 1970.
pub(super) fn table(inspected: &Inspected, now_ms: u64) -> String {
    let mut rows = vec![("name", inspected.name.clone())];
    rows.extend(inspected.record.iter().flat_map(record_rows));
    rows.extend(inspected.exit.as_ref().map(|exit| ("ended", ended(exit, now_ms))));
    if let Some(running) = &inspected.running {
        rows.extend(vm_rows(&running.vm));
        rows.push(("limits", limits(&running.limits)));
        rows.extend(memory_rows(&running.memory));
        rows.extend(reclaim_rows(&running.reclaim));
        rows.extend(running.statistics.as_ref().map(|statistics| ("guest says", guest_row(statistics))));
    }
    lines(&rows)
}

fn record_rows(record: &Record) -> Vec<(&'static str, String)> {
    let mut rows = vec![("ID", record.id.clone()), ("image", record.image.clone())];
    if !record.command.is_empty() {
        rows.push(("command", record.command.join(" ")));
    }
    rows.extend(record.log.as_ref().map(|log| ("log", log.display().to_string())));
    rows
}

fn ended(exit: &Exit, now_ms: u64) -> String {
    let ago = |at: u64| format!(", {} ago", lasted(Duration::from_millis(now_ms.saturating_sub(at))));
    let ago = exit.ended_at_ms.map(ago).unwrap_or_default();
    let why = exit.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("with exit code {}{ago}{why}", exit.code)
}

fn vm_rows(vm: &VmDocument) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("kernel", vm.kernel_release.clone()),
        ("process", vm.pid.to_string()),
        ("up", lasted(Duration::from_millis(vm.uptime_ms))),
        ("CPUs", vm.cpus.to_string()),
    ];
    // Without a daemon there are no groups.
    rows.extend(vm.arbiter.as_ref().map(|arbiter| match arbiter.envelope.group.as_str() {
        "" => ("group", "none: directly below the pool".into()),
        group => ("group", group.into()),
    }));
    rows
}

/// `max 512 MiB, min 64 MiB, weight 100`.
fn limits(limits: &LimitsDocument) -> String {
    let mut text = format!("max {}", size(limits.max_bytes));
    for (name, bytes) in [("high", limits.high_bytes), ("low", limits.low_bytes), ("min", limits.min_bytes)] {
        if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
            text.push_str(&format!(", {name} {}", size(bytes)));
        }
    }
    text + &format!(", weight {}", limits.weight)
}

fn memory_rows(memory: &MemoryDocument) -> Vec<(&'static str, String)> {
    let mut rows =
        vec![("memory", guest_memory(memory)), ("ceiling", ceiling(memory)), ("resident", resident(memory))];
    rows.extend(memory.host.as_ref().map(|host| ("host", charged(host))));
    if memory.reported_total_bytes > 0 {
        let [now, ever] = [memory.reported_bytes, memory.reported_total_bytes].map(size);
        rows.push(("reported", format!("{now} free in the guest and returned to the host, {ever} so far")));
    }
    if memory.reported_poisoned_total_bytes > 0 {
        let kept = size(memory.reported_poisoned_total_bytes);
        rows.push(("kept", format!("{kept} free in the guest, which fills free memory with a pattern")));
    }
    rows.push(("driver", driver(memory.driver).into()));
    // On its way the driver's word is always a little behind.
    if memory.skew_bytes != 0 && memory.driver != DriverState::Moving {
        let amount = size(memory.skew_bytes.unsigned_abs());
        let (more, less) = if memory.skew_bytes > 0 { ("guest", "host") } else { ("host", "guest") };
        rows.push(("skew", format!("the {more} counts {amount} more as returned than the {less}")));
    }
    if let Some(bytes) = memory.ballooned_resident_bytes.filter(|bytes| *bytes > 0) {
        let back =
            format!("{} of the balloon, by the guest's touch or by huge pages of the host", size(bytes));
        rows.push(("came back", back));
    }
    if memory.release_failures > 0 || memory.advice_failures > 0 {
        rows.push(("host's refusals", refusals(memory)));
    }
    if memory.book_imbalances > 0 {
        rows.push(("books", "contradict themselves: a fault of Ballast, please report it".into()));
    }
    let errors: Vec<_> = memory
        .protocol_errors
        .iter()
        .chain(&memory.register_errors)
        // A tag that Ballast does not know yet is a newer kernel's, and no fault.
        .filter(|(kind, count)| **count > 0 && *kind != "unknown_statistics")
        .map(|(kind, count)| format!("{count} {}", kind.replace('_', " ")))
        .collect();
    if !errors.is_empty() {
        rows.push(("driver's faults", errors.join(", ")));
    }
    rows
}

/// Nothing of a law that is off.
fn reclaim_rows(reclaim: &ReclaimDocument) -> Vec<(&'static str, String)> {
    if reclaim.mode == Mode::Off {
        return Vec::new();
    }
    let last = reclaim.last.as_ref().map(|last| {
        let ago = lasted(Duration::from_millis(last.age_ms));
        ("last decision", format!("{ago} ago: {}: {}", last.order, last.reason))
    });
    [("policy", policy(reclaim)), ("reclaim", numbers(reclaim))].into_iter().chain(last).collect()
}

/// `131 MiB charged (100 MiB guest and VMM, 28 MiB files, 3 MiB kernel) of at most 632 MiB`.
fn charged(host: &HostDocument) -> String {
    let [all, anonymous, file, kernel] =
        [host.charged_bytes, host.anonymous_bytes, host.file_bytes, host.kernel_bytes].map(size);
    let limit = host
        .limit_bytes
        .map_or_else(|| "without a limit".into(), |limit| format!("of at most {}", size(limit)));
    let mut text =
        format!("{all} charged ({anonymous} guest and VMM, {file} files, {kernel} kernel) {limit}");
    if host.limit_reached_total > 0 {
        text.push_str(&format!(", which it reached {} times", host.limit_reached_total));
    }
    text
}

fn refusals(memory: &MemoryDocument) -> String {
    let failed = size(memory.release_failed_bytes);
    let last = memory.release_last_errno.map(std::io::Error::from_raw_os_error);
    let last = last.map(|error| format!("; the last: {error}")).unwrap_or_default();
    let advice = match memory.advice_failures {
        0 => String::new(),
        calls => format!(", {calls} to heed what was advised on huge pages"),
    };
    format!("{} to take memory back, {failed} in all{advice}{last}", memory.release_failures)
}

fn driver(state: DriverState) -> &'static str {
    match state {
        DriverState::Absent => "none: memory is fixed",
        DriverState::Settled => "the guest has reached its ceiling",
        DriverState::Moving => "the guest is on its way to its ceiling",
        DriverState::Stuck => "the guest cannot reach its ceiling, or will not",
        DriverState::Broken => "broke its device: memory stays as it is until it is loaded anew",
    }
}

fn guest_row(statistics: &GuestStatistics) -> String {
    let values = &statistics.values;
    let parts = [
        (values.available_bytes, "available"),
        (values.free_bytes, "free"),
        (values.disk_caches_bytes, "page cache"),
    ];
    let mut words: Vec<_> =
        parts.iter().filter_map(|(bytes, what)| Some(format!("{} {what}", size((*bytes)?)))).collect();
    if statistics.stale {
        words.push(format!(
            "{} ago: it does not answer now",
            lasted(Duration::from_millis(statistics.age_ms))
        ));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::inspect::Running;
    use crate::reclaim::owner::Owner;
    use balloon::control::api::CeilingState;
    use balloon::control::reclaim::Origin;
    use balloon::device::Values;
    use balloon::policy::State;

    const MIB: u64 = 1 << 20;

    fn running() -> Running {
        Running {
            vm: VmDocument {
                name: "web".into(),
                image: "ngi\u{1b}nx".into(),
                kernel_release: "6.1.0".into(),
                pid: 42,
                cpus: 2,
                memory_bytes: 512 * MIB,
                started_at_ms: 0,
                uptime_ms: 200_000,
                arbiter: None,
            },
            limits: LimitsDocument {
                generation: 1,
                min_bytes: Some(64 * MIB),
                low_bytes: None,
                high_bytes: Some(0),
                max_bytes: 512 * MIB,
                weight: 100,
            },
            memory: MemoryDocument::fixed(512 * MIB, 100 * MIB),
            reclaim: Owner::off(512 * MIB).document(0),
            statistics: None,
        }
    }

    fn inspected() -> Inspected {
        let command = ["sleep", "9"].map(Into::into).to_vec();
        let record = Record::new("5a41c0de77d2".into(), "ngi\u{1b}nx".into(), command, 0);
        Inspected { name: "web".into(), record: Some(record), exit: None, running: Some(running()) }
    }

    #[test]
    fn one_that_has_ended_is_told_of_by_what_was_written_down() {
        let exit = Exit::new(7, Some(60_000), "the guest powered off");
        let ended = Inspected { exit: Some(exit), running: None, ..inspected() };
        let expected = "\
name     web
ID       5a41c0de77d2
image    ngi\u{fffd}nx
command  sleep 9
ended    with exit code 7, 4 min ago: the guest powered off
";
        assert_eq!(table(&ended, 300_000), expected);
        let json = serde_json::to_value(&ended).unwrap();
        assert!(json["exit"]["code"] == 7 && json.get("memory").is_none(), "{json}");
    }

    #[test]
    fn a_vm_without_a_driver_is_told_in_few_lines() {
        let expected = "\
name      web
ID        5a41c0de77d2
image     ngi\u{fffd}nx
command   sleep 9
kernel    6.1.0
process   42
up        3 min
CPUs      2
limits    max 512 MiB, min 64 MiB, weight 100
memory    512 MiB
ceiling   512 MiB, fixed
resident  100 MiB of the host's memory
driver    none: memory is fixed
";
        assert_eq!(table(&inspected(), 0), expected);
    }

    #[test]
    fn all_that_can_be_wrong_is_said() {
        let mut running = running();
        running.memory = MemoryDocument {
            ceiling: CeilingState { bytes: 300 * MIB, auto: false },
            guest_bytes: 400 * MIB,
            skew_bytes: -2 * MIB as i64,
            reported_bytes: MIB,
            reported_total_bytes: 9 * MIB,
            huge_page_bytes: Some(75 * MIB),
            swapped_bytes: Some(3 * MIB),
            ballooned_resident_bytes: Some(4096),
            reported_poisoned_total_bytes: 2 * MIB,
            release_failures: 2,
            release_failed_bytes: 8192,
            advice_failures: 1,
            release_last_errno: Some(12),
            book_imbalances: 1,
            driver: DriverState::Stuck,
            host: Some(HostDocument {
                limit_bytes: Some(632 * MIB),
                charged_bytes: 131 * MIB,
                anonymous_bytes: 100 * MIB,
                file_bytes: 28 * MIB,
                kernel_bytes: 3 * MIB,
                limit_reached_total: 2,
            }),
            protocol_errors: [("duplicate_pages".to_owned(), 3), ("unknown_statistics".to_owned(), 9)].into(),
            register_errors: [("impossible_statuses".to_owned(), 1)].into(),
            ..running.memory
        };
        running.reclaim.mode = Mode::Auto;
        running.reclaim.working_set_age_ms = 60_000;
        running.reclaim.working_set_age_from = Origin::Group("ci/linux".into());
        running.reclaim.status.state = State::Trimming;
        running.reclaim.status.target_bytes = 90 * MIB;
        running.reclaim.status.stall_ppm = 1234;
        running.reclaim.status.refault_millis = 2500;
        let values = Values { available_bytes: Some(200 * MIB), ..Values::default() };
        running.statistics = Some(GuestStatistics { age_ms: 5000, stale: true, values });
        let text = table(&Inspected { running: Some(running), ..inspected() }, 0);
        for line in [
            "memory           400 MiB of 512 MiB",
            "ceiling          300 MiB, set by hand; can be 128 MiB to 512 MiB",
            "resident         100 MiB of the host's memory, 75 % in huge pages, and 3 MiB swapped out by it",
            "host             131 MiB charged (100 MiB guest and VMM, 28 MiB files, 3 MiB kernel) of at most 632 MiB, which it reached 2 times",
            "came back        4 KiB of the balloon, by the guest's touch or by huge pages of the host",
            "host's refusals  2 to take memory back, 8 KiB in all, 1 to heed what was advised on huge pages; the last: Cannot allocate memory (os error 12)",
            "kept             2 MiB free in the guest, which fills free memory with a pattern",
            "books            contradict themselves: a fault of Ballast, please report it",
            "reported         1 MiB free in the guest and returned to the host, 9 MiB so far",
            "driver           the guest cannot reach its ceiling, or will not",
            "skew             the host counts 2 MiB more as returned than the guest",
            "driver's faults  3 duplicate pages, 1 impossible statuses",
            "policy           working-set age 60 s (group ci/linux), stall budget 0.1 % (default)",
            "reclaim          trimming; target 90 MiB, stall 0.123 %, 2.500 refaults/s",
            "guest says       200 MiB available, 5 s ago: it does not answer now",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n---\n{text}");
        }
    }
}
