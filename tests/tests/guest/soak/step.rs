//! A pool that loses three tenths at once, all of it memory that guests have to compress: what they hold comes down to it, who is
//! protected keeps what it is promised, and nobody is killed for it.

use super::charge;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tests::daemon::Daemon;
use tests::memory::{Guest, MIB};
use tests::run::until;
use tests::setup;

const GUESTS: usize = 6;
/// The first of them is promised so much.
const PROMISED: u64 = 320 * MIB;
/// What each takes, half of it alike.
const TAKEN_MIB: u64 = 280;
/// In which the limit must be met by guests that share one CPU of a GHz.
const SOON: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

#[test]
#[ignore = "by ci/soak: seconds are some only in virtual time"]
fn a_pool_that_loses_three_tenths_is_followed_and_hurts_nobody() {
    let ballast = setup();
    let daemon = Daemon::start(&ballast, "[pool]\ncapacity = '3g'\n");
    let mut guests: Vec<Guest> = (0..GUESTS)
        .map(|number| {
            let min = if number == 0 { PROMISED } else { 0 }.to_string();
            Guest::start_as(&name_of(number), &ballast, |run| {
                run.options(["-m", "512m", "--memory-min", &min])
            })
        })
        .collect();
    for guest in &mut guests {
        guest.does(&format!("pattern a {}", TAKEN_MIB / 2));
        guest.does(&format!("pattern b {}", TAKEN_MIB / 2));
    }
    // One that has only just started cannot compress yet.
    let has_swap = |guest: &Guest| guest.answer("GET", "/v1/reclaim", "").0["capabilities"]["swap"] == true;
    until(|| guests.iter().all(has_swap), || "some guest has no swap".into());
    let before =
        daemon.wait_until(|tree| (0..GUESTS).all(|number| charge(tree, &name_of(number)) >= TAKEN_MIB * MIB));
    // What a guest has free is not taken from it, and goes when its kernel says so.
    let kept = PROMISED.min(used_bytes(&mut guests[0]));
    // What is held is the pool, and then three tenths less.
    let full = charge(&before, "");
    let less = full / 10 * 7;
    daemon.reload(&ballast, &format!("[pool]\ncapacity = '{full}'\n"));
    daemon.wait_until(|tree| tree.host.capacity_bytes == full);

    let start = Instant::now();
    daemon.reload(&ballast, &format!("[pool]\ncapacity = '{less}'\n"));
    let (mut was_short, mut said) = (false, 0);
    let after = loop {
        let tree = daemon.tree();
        let protected = charge(&tree, &name_of(0));
        assert!(protected >= kept, "{protected} of {kept}: {tree:#?}");
        was_short |= tree.host.main_bytes < 0;
        if tree.host.main_bytes != said {
            said = tree.host.main_bytes;
            eprintln!("{:4.1} s: {:5} MiB are free", start.elapsed().as_secs_f64(), said / MIB as i64);
        }
        if was_short && tree.host.main_bytes >= 0 {
            break tree;
        }
        assert!(start.elapsed() <= SOON, "{} MiB too many: {tree:#?}", -tree.host.main_bytes / MIB as i64);
        sleep(LOOK);
    };
    eprintln!(
        "{} MiB came back in {:.1} s, {} MiB are held; of the first guest's {} MiB {} are left, {} in use",
        (full - charge(&after, "")) / MIB,
        start.elapsed().as_secs_f64(),
        charge(&after, "") / MIB,
        charge(&before, &name_of(0)) / MIB,
        charge(&after, &name_of(0)) / MIB,
        kept / MIB,
    );
    // What was taken is what it was. All of it at once does not fit into what the pool was left.
    daemon.reload(&ballast, "[pool]\ncapacity = '3g'\n");
    for guest in &mut guests {
        guest.does("cmp /tmp/taken/a /tmp/taken/b");
    }
    let events = String::from_utf8(ballast.command(&["events"]).end().exits(0).stdout).unwrap();
    assert!(!events.contains("kill"), "{events}");
    guests.into_iter().for_each(Guest::end);
}

/// What the guest has in use by its kernel's word.
fn used_bytes(guest: &mut Guest) -> u64 {
    guest.does("grep -e MemTotal: -e MemFree: /proc/meminfo");
    let output = guest.output();
    let kib = |name: &str| -> u64 {
        let line = output.lines().rev().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (kib("MemTotal:") - kib("MemFree:")) << 10
}

fn name_of(number: usize) -> String {
    format!("vm{number}")
}
