//! What is said of a microVM's memory and of its reclaim law, by `ballast inspect` and `ballast why`. Pure.

use crate::cli::format::printable;
use balloon::control::api::{DriverState, MemoryDocument};
use balloon::control::reclaim::ReclaimDocument;
use balloon::size::Size;
use balloon::working_set::{StallBudget, WorkingSetAge};

/// A line a fact, each with a word in front.
pub(in crate::cli) fn lines(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(word, _)| word.len()).max().unwrap_or(0);
    rows.iter().map(|(word, fact)| format!("{word:width$}  {}\n", printable(fact))).collect()
}

pub(in crate::cli) fn size(bytes: u64) -> String {
    Size::from_bytes(bytes).to_string()
}

/// What the guest has: `400 MiB of 512 MiB`.
pub(in crate::cli) fn guest_memory(memory: &MemoryDocument) -> String {
    let [now, all] = [memory.guest_bytes, memory.size_bytes].map(size);
    if memory.guest_bytes == memory.size_bytes { all } else { format!("{now} of {all}") }
}

pub(in crate::cli) fn ceiling(memory: &MemoryDocument) -> String {
    let bytes = size(memory.ceiling.bytes);
    if memory.driver == DriverState::Absent {
        return format!("{bytes}, fixed");
    }
    if memory.driver == DriverState::Broken {
        return format!("{bytes}, which the guest is not told of any more");
    }
    let how = if memory.ceiling.auto { "automatic" } else { "set by hand" };
    let [floor, max] = [memory.floor_bytes, memory.max_bytes].map(size);
    format!("{bytes}, {how}; can be {floor} to {max}")
}

pub(in crate::cli) fn resident(memory: &MemoryDocument) -> String {
    let Some(bytes) = memory.resident_bytes else { return "unknown".into() };
    let mut text = format!("{} of the host's memory", size(bytes));
    if let Some(huge) = memory.huge_page_bytes {
        let percent = huge.saturating_mul(100).checked_div(bytes).unwrap_or(0);
        text.push_str(&format!(", {percent} % in huge pages"));
    }
    if let Some(swapped) = memory.swapped_bytes.filter(|bytes| *bytes > 0) {
        text.push_str(&format!(", and {} swapped out by it", size(swapped)));
    }
    text
}

/// `working-set age 60 s (group ci), stall budget 0.1 % (default)`.
pub(in crate::cli) fn policy(reclaim: &ReclaimDocument) -> String {
    let age = WorkingSetAge::from_ms(reclaim.working_set_age_ms).map(|age| age.to_string());
    let budget = StallBudget::from_ppm(reclaim.stall_budget_ppm).map(|budget| budget.to_string());
    format!(
        "working-set age {} ({}), stall budget {} ({})",
        age.unwrap_or_else(|| "unknown".into()),
        reclaim.working_set_age_from,
        budget.unwrap_or_else(|| "unknown".into()),
        reclaim.stall_budget_from
    )
}

/// `trimming; target 48 MiB, stall 0.000 %, 0.250 refaults/s`.
pub(in crate::cli) fn numbers(reclaim: &ReclaimDocument) -> String {
    let status = &reclaim.status;
    format!(
        "{}; target {}, stall {}.{:03} %, {}.{:03} refaults/s",
        status.state,
        size(status.target_bytes),
        status.stall_ppm / 10_000,
        status.stall_ppm % 10_000 / 10,
        status.refault_millis / 1000,
        status.refault_millis % 1000
    )
}
