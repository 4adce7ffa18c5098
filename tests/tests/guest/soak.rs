//! A day of twenty microVMs on half the memory that they may use, mostly idle, with square waves, comings and goings, and
//! now and then a rush for more than there is: whatever was, in the end nothing is left of it. `ci/soak` runs it, in virtual
//! time.

#![expect(clippy::print_stderr, reason = "a day is long: standard error is shown at once")]

mod step;

use oorandom::Rand64;
use std::fs;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tests::daemon::{Daemon, charge};
use tests::memory::{Guest, MIB};
use tests::run::until;
use tests::{Ballast, process, setup, soak_hours};

const TENANTS: usize = 20;
const SIZE: &str = "256m";
/// Half of what all may use.
const CAPACITY: u64 = TENANTS as u64 * 256 * MIB / 2;
/// So many of them are promised what they hold, stay to the end and are looked at.
const PROTECTED: usize = 2;
const PROMISED: u64 = 144 * MIB;
const HELD_MIB: u64 = 80;
/// Between two looks at all of it.
const LOOK: Duration = Duration::from_secs(60);
/// Until all take at once what one takes otherwise, more than there is.
const FIRST_RUSH: Duration = Duration::from_secs(55 * 60);
/// Between two of those: an emulated host takes minutes for each.
const RUSHES: Duration = Duration::from_secs(4 * 3600);
/// What a guest idles between its waves, in seconds.
const IDLE: Range<u64> = 1800..10_800;
/// What each takes then, and no guest can compress.
const RUSH_MIB: u64 = 120;
/// Another guest takes the place of one.
const TURN: Duration = Duration::from_secs(20 * 60);
/// Until nothing is new any more, and memory of daemon and VMMs is as it stays.
const SETTLED: Duration = Duration::from_secs(30 * 60);
/// What a long life may cost daemon or VMM, of allocator's chance.
const GROWTH: u64 = MIB;

/// A guest that does nothing for a while, then takes and gives back the same some times.
struct Tenant {
    guest: Guest,
    due: Instant,
    half_wave: Duration,
    halves: u64,
    mib: u64,
    /// What it takes: a word of the guest's.
    what: &'static str,
}

/// What long lives may make grow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    daemon: u64,
    /// Files that the daemon has open.
    daemon_files: usize,
    vmms: Vec<u64>,
    mounts: usize,
}

#[test]
#[ignore = "by ci/soak: a day"]
fn a_day_leaves_nothing_behind_and_hurts_nobody_who_is_protected() {
    let hours = soak_hours();
    let ballast = setup();
    let daemon = Daemon::start(&ballast, &format!("[pool]\ncapacity = '{CAPACITY}'\n"));
    let mut random = Rand64::new(1);
    let mut kept: Vec<Guest> = (0..PROTECTED).map(|number| protected(&ballast, number)).collect();
    let mut tenants: Vec<Tenant> =
        (PROTECTED..TENANTS).map(|number| tenant(&ballast, &mut random, number)).collect();
    eprintln!("{TENANTS} run");

    let start = Instant::now();
    let length = Duration::from_secs(hours * 3600);
    let (mut next_look, mut next_turn, mut next_rush) = (start + LOOK, start + TURN, start + FIRST_RUSH);
    let mut born = TENANTS;
    let (mut settled, mut waves, mut most_deficit) = (None, 0, 0);
    while start.elapsed() < length {
        let first = tenants.iter_mut().min_by_key(|tenant| tenant.due).unwrap();
        let is_wave = first.due < next_look;
        if is_wave {
            sleep(first.due.saturating_duration_since(Instant::now()));
            waves += first.goes_on(&mut random);
        } else {
            sleep(next_look.saturating_duration_since(Instant::now()));
            next_look += LOOK;
        }
        let tree = daemon.tree();
        most_deficit = most_deficit.max(tree.host.deficit_bytes);
        for name in (0..PROTECTED).map(name_of) {
            let charge = charge(&tree, &name);
            assert!(charge >= HELD_MIB * MIB, "{name} is promised {PROMISED} and has {charge}: {tree:#?}");
        }
        if is_wave {
            continue;
        }
        if settled.is_none() && start.elapsed() >= SETTLED {
            settled = Some(Held::now(&daemon, &kept));
        }
        if Instant::now() >= next_rush {
            next_rush += RUSHES;
            tenants.iter_mut().for_each(Tenant::rushes);
        }
        if Instant::now() >= next_turn {
            next_turn += TURN;
            let place = random.rand_range(0..tenants.len() as u64) as usize;
            tenants.remove(place).guest.end();
            tenants.push(tenant(&ballast, &mut random, born));
            born += 1;
            eprintln!(
                "{:>5} min: {born} started, {waves} times memory was taken, {} MiB held, at most {} MiB lacked; {:?}",
                start.elapsed().as_secs() / 60,
                charge(&tree, "") / MIB,
                most_deficit / MIB,
                Held::now(&daemon, &kept),
            );
        }
    }

    let end = Held::now(&daemon, &kept);
    let settled = settled.unwrap();
    // Half an hour and a rush: it was as bad as it was meant to be.
    assert!(most_deficit > 64 * MIB, "at most {most_deficit} bytes lacked");
    assert!(end.daemon <= settled.daemon + GROWTH, "the daemon grew: {settled:?} {end:?}");
    assert_eq!(end.mounts, settled.mounts);
    // An answer's connection may be among them for a moment.
    let files = || daemon.open_files();
    until(|| files() <= settled.daemon_files, || format!("{} files, and {settled:?} before", files()));
    for (before, after) in settled.vmms.iter().zip(&end.vmms) {
        assert!(*after <= before + GROWTH, "a VMM grew: {settled:?} {end:?}");
    }
    for mut guest in kept.drain(..).chain(tenants.into_iter().map(|tenant| tenant.guest)) {
        guest.does("true");
        let memory = guest.memory();
        assert_eq!(memory.0["book_imbalances"], 0, "{memory:?}");
        guest.end();
    }
    let tree = daemon.wait_until(|tree| (tree.host.vms, tree.host.orphans) == (0, 0));
    assert_eq!(tree.host.main_bytes, CAPACITY as i64, "{tree:#?}");
    assert_eq!(fs::read_dir(ballast.path("state/vms")).unwrap().count(), 0);
    eprintln!("{hours} h: {born} microVMs, {waves} waves, at most {} MiB lacked", most_deficit / MIB);
}

impl Tenant {
    /// Begins anew at once, with a wave of five minutes.
    fn rushes(&mut self) {
        if self.halves % 2 == 1 {
            self.guest.does("free wave");
        }
        (self.halves, self.half_wave, self.mib, self.what) =
            (2, Duration::from_secs(300), RUSH_MIB, "random");
        self.due = Instant::now();
    }

    /// Takes or gives back, and says how often memory was taken.
    fn goes_on(&mut self, random: &mut Rand64) -> u64 {
        if self.halves == 0 {
            // Half-waves of 5 s to 30 minutes, as many short ones as long ones.
            self.half_wave = Duration::from_secs_f64(5.0 * 360_f64.powf(random.rand_float()));
            self.halves = 2 * random.rand_range(1..4);
            (self.mib, self.what) = (random.rand_range(16..97), "zero");
        }
        let takes = self.halves.is_multiple_of(2);
        self.guest.does(&if takes { format!("{} wave {}", self.what, self.mib) } else { "free wave".into() });
        self.halves -= 1;
        let idle = Duration::from_secs(random.rand_range(IDLE));
        self.due = Instant::now() + if self.halves == 0 { idle } else { self.half_wave };
        takes.into()
    }
}

impl Held {
    fn now(daemon: &Daemon, kept: &[Guest]) -> Self {
        Self {
            daemon: process::anonymous_bytes(daemon.pid()),
            daemon_files: daemon.open_files(),
            vmms: kept
                .iter()
                .map(|guest| process::anonymous_bytes(guest.vmm()).saturating_sub(guest.smaps_anonymous()))
                .collect(),
            mounts: fs::read_to_string("/proc/self/mounts").unwrap().lines().count(),
        }
    }
}

fn name_of(number: usize) -> String {
    format!("vm{number}")
}

/// One that holds less than it is promised, and would be trimmed to less if it were not.
fn protected(ballast: &Ballast, number: usize) -> Guest {
    let mut guest = Guest::start_as(&name_of(number), ballast, |run| {
        run.options(["-m", SIZE, "--memory-min", &PROMISED.to_string()])
    });
    guest.does(&format!("zero kept {HELD_MIB}"));
    guest
}

fn tenant(ballast: &Ballast, random: &mut Rand64, number: usize) -> Tenant {
    let guest = Guest::start_as(&name_of(number), ballast, |run| run.options(["-m", SIZE]));
    let due = Instant::now() + Duration::from_secs(random.rand_range(10..1800));
    Tenant { guest, due, half_wave: Duration::ZERO, halves: 0, mib: 0, what: "zero" }
}
