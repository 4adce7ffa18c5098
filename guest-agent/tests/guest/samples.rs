//! What the agent tells of the guest's memory, and what comes of the reclaim law's orders.

use super::orders::{Guest, MIB};
use super::*;
use proto::{Capabilities, Done, Order, ReclaimKind, Reclaimed, Sample, Stopped};

fn samples(machine: &Machine) -> Vec<&Sample> {
    fn sample(message: &ToHost) -> Option<&Sample> {
        match message {
            ToHost::Sample(sample) => Some(sample.as_ref()),
            _ => None,
        }
    }
    machine.messages.iter().filter_map(sample).collect()
}

/// The last word of what the guest's kernel can do.
fn capabilities(machine: &Machine) -> Option<Capabilities> {
    machine.messages.iter().rev().find_map(|message| match message {
        ToHost::Capabilities(capabilities) => Some(*capabilities),
        _ => None,
    })
}

fn sampled(guest: &mut Guest, what: &str, is_so: impl Fn(&Sample) -> bool) -> Sample {
    guest.machine.wait_until(what, |machine| samples(machine).last().is_some_and(|sample| is_so(sample)));
    (*samples(&guest.machine).last().unwrap()).clone()
}

fn reclaims(guest: &mut Guest, bytes: u64, kind: ReclaimKind, older_than_ms: Option<u64>) -> Reclaimed {
    match guest.obeys(Order::Reclaim { bytes, kind, older_than_ms }) {
        Done::Reclaimed(reclaimed) => reclaimed,
        other => panic!("{other:?}\n{}", guest.machine.report()),
    }
}

#[test]
fn samples_tell_what_happens_and_orders_of_the_law_are_obeyed() {
    let mut guest = Guest::start(|spec| {
        spec.samples = true;
        spec.swap = true;
    });
    guest.does("dd if=/dev/zero of=/data/cache bs=1M count=40 2> /dev/null; sync");
    let first = sampled(&mut guest, "page cache in a sample", |sample| {
        sample.sizes.active_file + sample.sizes.inactive_file > 40 * MIB
    });
    let can = capabilities(&guest.machine).expect("before the first sample");
    println!("{can:#?}\n{first:#?}");
    assert!(
        can.psi && can.psi_trigger && can.memory_reclaim && can.reporting_order && can.compaction,
        "{can:?}"
    );
    assert!(first.sequence >= 1 && first.counters.cpu_busy_us > 0 && first.sizes.total > 128 * MIB);
    assert!(first.sizes.free < first.sizes.total && first.sizes.available > 0);
    assert_eq!(first.ages.is_empty(), !can.ages);

    // Page cache goes by request; what is read again is a refault, and counted.
    let evicted = reclaims(&mut guest, 24 * MIB, ReclaimKind::File, None);
    assert!(evicted.file_pages >= 24 * MIB / 4096 && evicted.stopped == Stopped::Reached, "{evicted:?}");
    guest.does("cat /data/cache > /dev/null");
    let refaulted = sampled(&mut guest, "refaults", |sample| {
        sample.counters.refault_file > first.counters.refault_file + 4000
    });
    assert!(refaulted.monotonic_us > first.monotonic_us && refaulted.sequence > first.sequence);

    // Swap comes by itself, and is used for what the law trims only.
    sampled(&mut guest, "swap", |sample| sample.sizes.swap_total > 0);
    assert!(capabilities(&guest.machine).unwrap().swap, "{}", guest.machine.report());
    guest.does("yes BALLAST | head -c 30000000 > /dev/shm/held");
    // No kernel takes anonymous memory only: the classic LRU prefers page cache while there is much of it, and what is
    // in the two youngest generations cannot be evicted.
    for _ in 0..if can.ages { 3 } else { 0 } {
        assert!(matches!(guest.obeys(Order::Age), Done::Aged { .. }));
    }
    let squeezed = reclaims(&mut guest, 16 * MIB, ReclaimKind::Anon, None);
    let least_pages = 512;
    assert!(squeezed.anon_pages >= least_pages, "{squeezed:?}");
    sampled(&mut guest, "memory in swap", |sample| {
        let used = sample.sizes.swap_total - sample.sizes.swap_free;
        sample.counters.swap_out >= least_pages && used >= least_pages * 4096
    });
    assert_eq!(guest.trims(None).stopped, Stopped::NoSwap, "what is no order of the law's swaps nothing");
    guest.does("wc -c < /dev/shm/held");

    if can.ages {
        // What was used since the last generation but one began stays.
        for _ in 0..3 {
            assert!(matches!(guest.obeys(Order::Age), Done::Aged { .. }));
        }
        let kept = reclaims(&mut guest, 40 * MIB, ReclaimKind::Both, Some(3_600_000));
        assert!(kept.file_pages + kept.anon_pages < 512, "{kept:?}");
        let aged = sampled(&mut guest, "generations", |sample| sample.ages.len() == 4);
        assert!(aged.ages.windows(2).all(|pair| pair[0].age_ms <= pair[1].age_ms), "{:?}", aged.ages);
        let cold = reclaims(&mut guest, 8 * MIB, ReclaimKind::File, Some(0));
        assert!(cold.file_pages > 0 && cold.anon_pages < 64, "{cold:?}");
    } else {
        assert!(guest.refuses(Order::Age).contains("generations"));
    }
    assert_eq!(guest.obeys(Order::Reporting { order: 4, compact: true }), Done::Reporting { order: 4 });
    assert!(guest.refuses(Order::Reporting { order: 99, compact: false }).contains("order 99"));

    // What the agent costs: its own time, and the memory that it holds.
    let cost = "awk '{ print \"agent \" $14 + $15 \" ticks\" }' /proc/1/stat; grep VmRSS /proc/1/status; cat /proc/uptime";
    guest.does(cost);
    println!("{} samples\n{}", samples(&guest.machine).len(), guest.machine.stdout_text());
    guest.machine.end_input();
    assert_eq!(guest.machine.finish(), exited(ExitStatus::Code(0)), "{}", guest.machine.report());
}

#[test]
fn pressure_is_told_at_once_and_an_idle_guest_is_left_alone() {
    let mut guest = Guest::start(|spec| {
        spec.samples = true;
        spec.memory_max_bytes = Some(160 * MIB);
    });
    sampled(&mut guest, "a first sample", |_| true);
    // More page cache than the workload may have, read again and again: it waits for memory.
    guest.does("dd if=/dev/zero of=/data/large bs=1M count=90 2> /dev/null; sync");
    guest.machine.input(b"while :; do cat /data/large; done > /dev/null & reader=$!; echo reading\n");
    let alarm = |sample: &Sample| sample.cause != proto::Cause::Periodic;
    guest.machine.wait_until("an alarm", |machine| samples(machine).iter().any(|sample| alarm(sample)));
    let told = samples(&guest.machine);
    let at = told.iter().position(|sample| alarm(sample)).unwrap();
    let (before, alarmed) = (told[at - 1].clone(), told[at].clone());
    println!("{before:?}\n{alarmed:?}");
    assert!(alarmed.counters.memory_some_us > before.counters.memory_some_us, "{alarmed:?}");

    // The host says how often an idle guest is woken.
    guest.machine.input(b"kill $reader\n");
    guest.machine.send(&ToGuest::Pace { sample_ms: 10_000 });
    let idle = |machine: &Machine| {
        let told = samples(machine);
        told.windows(2).any(|pair| pair[1].monotonic_us - pair[0].monotonic_us >= 9_900_000)
    };
    guest.machine.wait_until("ten seconds without a sample", idle);
    guest.machine.end_input();
    assert_eq!(guest.machine.finish(), exited(ExitStatus::Code(0)), "{}", guest.machine.report());
}
