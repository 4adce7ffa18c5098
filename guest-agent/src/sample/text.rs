//! The kernel's texts as numbers. Pure, and for every version: what a kernel does not tell stays 0, what it tells more is
//! passed over.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use proto::{Counters, Sizes};

/// Takes the counters of `/proc/vmstat` into `counters`.
pub fn vmstat(text: &str, counters: &mut Counters) {
    let mut alloc_stall = 0u64;
    for (name, value) in pairs(text) {
        let counter = match name {
            "workingset_refault_file" => &mut counters.refault_file,
            "workingset_refault_anon" => &mut counters.refault_anon,
            "workingset_activate_file" => &mut counters.activate_file,
            "workingset_activate_anon" => &mut counters.activate_anon,
            "workingset_restore_file" => &mut counters.restore_file,
            "workingset_restore_anon" => &mut counters.restore_anon,
            "workingset_nodereclaim" => &mut counters.nodereclaim,
            "pgsteal_kswapd" => &mut counters.steal_kswapd,
            "pgsteal_direct" => &mut counters.steal_direct,
            "pgsteal_proactive" => &mut counters.steal_proactive,
            "pgscan_kswapd" => &mut counters.scan_kswapd,
            "pgscan_direct" => &mut counters.scan_direct,
            "pswpin" => &mut counters.swap_in,
            "pswpout" => &mut counters.swap_out,
            "pgmajfault" => &mut counters.major_faults,
            "oom_kill" => &mut counters.oom_kill,
            // One for each kind of memory that the machine has.
            _ if name.starts_with("allocstall_") => {
                alloc_stall = alloc_stall.saturating_add(value);
                continue;
            }
            _ => continue,
        };
        *counter = value;
    }
    counters.alloc_stall = alloc_stall;
}

/// Pages of page cache and of anonymous memory that were ever reclaimed, of `/proc/vmstat`.
pub fn stolen(text: &str) -> (u64, u64) {
    let mut stolen = (0, 0);
    for (name, value) in pairs(text) {
        match name {
            "pgsteal_file" => stolen.0 = value,
            "pgsteal_anon" => stolen.1 = value,
            _ => {}
        }
    }
    stolen
}

/// The sizes of `/proc/meminfo`.
pub fn meminfo(text: &str) -> Sizes {
    let mut sizes = Sizes::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let Some(bytes) = value
            .trim()
            .strip_suffix(" kB")
            .and_then(|kib| kib.trim_end().parse::<u64>().ok())
            .and_then(|kib| kib.checked_mul(1024))
        else {
            continue;
        };
        let size = match name {
            "MemTotal" => &mut sizes.total,
            "MemFree" => &mut sizes.free,
            "MemAvailable" => &mut sizes.available,
            "Active(file)" => &mut sizes.active_file,
            "Inactive(file)" => &mut sizes.inactive_file,
            "Active(anon)" => &mut sizes.active_anon,
            "Inactive(anon)" => &mut sizes.inactive_anon,
            "Unevictable" => &mut sizes.unevictable,
            "Dirty" | "Writeback" => &mut sizes.dirty,
            "Shmem" => &mut sizes.shmem,
            "SReclaimable" => &mut sizes.slab_reclaimable,
            "SwapTotal" => &mut sizes.swap_total,
            "SwapFree" => &mut sizes.swap_free,
            _ => continue,
        };
        *size = size.saturating_add(bytes);
    }
    sizes
}

/// Microseconds of waiting by some and by all tasks, of a pressure file.
pub fn pressure(text: &str) -> (u64, u64) {
    let total = |who: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(who)?.strip_prefix(' '))?;
        line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()
    };
    (total("some").unwrap_or(0), total("full").unwrap_or(0))
}

/// Microseconds of all CPUs, of a control group's `cpu.stat`.
pub fn cpu_usage(text: &str) -> u64 {
    pairs(text).find(|(name, _)| *name == "usage_usec").map_or(0, |(_, value)| value)
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.trim().parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_are_found_whatever_stands_around_them() {
        let text = "nr_free_pages 5\nallocstall_dma 0\nallocstall_normal 3\nallocstall_movable 4\n\
            workingset_refault_anon 1\nworkingset_refault_file 98837\nworkingset_activate_file 2113\n\
            workingset_restore_file 2112\nworkingset_nodereclaim 7\npgsteal_kswapd 10\npgsteal_direct 11\n\
            pgscan_kswapd 12\npgscan_direct 13\npgscan_direct_throttle 99\npswpin 14\npswpout 15\npgmajfault 16\n\
            oom_kill 17\npgsteal_anon 18\npgsteal_file 19\nnew_thing x\n";
        let mut counters = Counters { memory_some_us: 1, ..Counters::default() };
        vmstat(text, &mut counters);
        let expected = Counters {
            refault_anon: 1,
            refault_file: 98837,
            activate_file: 2113,
            restore_file: 2112,
            nodereclaim: 7,
            steal_kswapd: 10,
            steal_direct: 11,
            scan_kswapd: 12,
            scan_direct: 13,
            swap_in: 14,
            swap_out: 15,
            major_faults: 16,
            alloc_stall: 7,
            oom_kill: 17,
            memory_some_us: 1,
            ..Counters::default()
        };
        assert_eq!(counters, expected);
        assert_eq!(stolen(text), (19, 18));
    }

    #[test]
    fn sizes_are_bytes() {
        let text = "MemTotal:         252296 kB\nMemFree:           1 kB\nMemAvailable:  2 kB\nActive(anon): 3 kB\n\
            Inactive(anon): 4 kB\nActive(file): 5 kB\nInactive(file): 6 kB\nUnevictable: 7 kB\nDirty: 8 kB\n\
            Writeback: 9 kB\nWritebackTmp: 99 kB\nShmem: 10 kB\nSReclaimable: 11 kB\nSwapTotal: 12 kB\nSwapFree: 13 kB\n\
            HugePages_Total:       0\n";
        let sizes = meminfo(text);
        assert_eq!((sizes.total, sizes.free, sizes.available), (252_296 << 10, 1 << 10, 2 << 10));
        assert_eq!((sizes.active_anon, sizes.inactive_anon), (3 << 10, 4 << 10));
        assert_eq!((sizes.active_file, sizes.inactive_file, sizes.unevictable), (5 << 10, 6 << 10, 7 << 10));
        assert_eq!((sizes.dirty, sizes.shmem, sizes.slab_reclaimable), (17 << 10, 10 << 10, 11 << 10));
        assert_eq!((sizes.swap_total, sizes.swap_free), (12 << 10, 13 << 10));
    }

    #[test]
    fn waiting_is_what_all_of_it_sums_up_to() {
        let text = "some avg10=0.00 avg60=1.25 avg300=0.02 total=71077\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=912\n";
        assert_eq!(pressure(text), (71077, 912));
        assert_eq!(pressure("some avg10=0.00\n"), (0, 0));
        assert_eq!(cpu_usage("usage_usec 12\nuser_usec 7\nsystem_usec 5\n"), 12);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "([A-Za-z()_=:.]{0,30}[ :]?[0-9]{0,25}( kB)?\n?){0,12}") {
            vmstat(&text, &mut Counters::default());
            let _ = (meminfo(&text), pressure(&text), cpu_usage(&text), stolen(&text));
        }
    }
}
