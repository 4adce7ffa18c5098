//! The law's orders in words, for people. Pure.

#![forbid(unsafe_code)]

use balloon::policy::{Memory, Order};
use balloon::size::Size;

/// What `order` says.
#[must_use]
pub fn of(order: Order) -> String {
    let size = Size::from_bytes;
    match order {
        Order::Reclaim { bytes, memory, older_than_ms, .. } => {
            let what = match memory {
                Memory::File => "page cache",
                Memory::Anon => "anonymous memory",
                Memory::Both => "memory",
            };
            let idle = older_than_ms.map(|ms| format!(", unused for {} s", ms / 1000)).unwrap_or_default();
            format!("evict {} of {what}{idle}", size(bytes))
        }
        Order::Age => "begin a generation of pages".into(),
        Order::Reporting { order, compact } => {
            let after = if compact { "after compaction, " } else { "" };
            match 1u64.checked_shl(order.into()).unwrap_or(0) {
                1 => format!("{after}report each free page"),
                pages => format!("{after}report free blocks of {pages} pages and more"),
            }
        }
        Order::Pace { sample_ms } => format!("sample every {} ms", sample_ms),
        Order::Ceiling { bytes } => format!("set the ceiling to {}", size(bytes)),
        Order::Enter { state } => format!("now {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_sentences() {
        let reclaim =
            |older_than_ms| Order::Reclaim { number: 7, bytes: 3 << 20, memory: Memory::File, older_than_ms };
        assert_eq!(of(reclaim(Some(300_000))), "evict 3 MiB of page cache, unused for 300 s");
        assert_eq!(of(reclaim(None)), "evict 3 MiB of page cache");
        let fine = Order::Reporting { order: 4, compact: true };
        assert_eq!(of(fine), "after compaction, report free blocks of 16 pages and more");
        let finest = Order::Reporting { order: 0, compact: false };
        assert_eq!(of(finest), "report each free page");
        assert_eq!(of(Order::Ceiling { bytes: 256 << 20 }), "set the ceiling to 256 MiB");
    }
}
