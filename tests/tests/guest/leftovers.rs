//! Whatever is killed, whenever: the next start finds nothing in its way and leaves nothing behind, and neither a neighbour
//! nor the books of the host keep anything of it.

use balloon::control::fleet::TreeDocument;
use balloon::zone::scope::{SCOPES, state_name};
use rustix::process::{Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tests::daemon::Daemon;
use tests::host_cgroup::{HostCgroup, mount};
use tests::memory::{Guest, MIB};
use tests::run::until;
use tests::{Ballast, is_long, process, setup};

/// Takes and gives back memory for ever.
const LOAD: &str = "mkdir /tmp/load; mount -t tmpfs -o size=100% load /tmp/load; echo up
    while :; do dd if=/dev/zero of=/tmp/load/some bs=1M count=60 2> /dev/null; rm /tmp/load/some; done";

/// The VMM dies, and in every sixth round `ballast`, with which its VMM dies; half of them while the guest is at work, the
/// others at any moment from the VMM's first instruction on.
#[test]
fn kills_at_any_moment_leave_nothing() {
    let vmms: u32 = if is_long() { 200 } else { 10 };
    let rounds = vmms + vmms / 5;
    let ballast = setup();
    // A cgroup of the dead's own: what they leave is charged to it and to nothing else.
    let home = HostCgroup(mount().join("ballast-test-leftovers"));
    let daemon = Daemon::start(&ballast, "[pool]\ncapacity = '4g'\n");
    let mut neighbour = Guest::start(&ballast, &["-m", "192m"]);
    neighbour.does("pattern a 16");
    neighbour.does("pattern b 16");
    // But for those of tests that run beside this one.
    let is_a_tests_own = |mount: &&str| mount.starts_with("small-disk ") || mount.starts_with("huge-pages ");
    let mounts = || {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().filter(|mount| !is_a_tests_own(mount)).count()
    };
    daemon.wait_until(is_alone);
    let mounts_before = mounts();
    let available_before = available();
    let start = || {
        let run = ballast
            .run("busybox", &["sh", "-c", LOAD])
            .options(["--name", "victim", "-m", "160m", "--share", "vm"]);
        run.env("BALLAST_CGROUP", home.path()).start()
    };

    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut boot = Duration::from_secs(5);
    let (mut killed, mut at_work, mut slowest) = (0, 0, Duration::ZERO);
    let mut files_before = 0;
    for round in 0..rounds {
        let victim = start();
        let began = Instant::now();
        let vmm = victim.vmm();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let within =
            |most: Duration| Duration::from_millis((random >> 33) % u64::try_from(most.as_millis()).unwrap());
        let moment = if (round + round / 6) % 2 == 0 {
            victim.wait_for("up");
            boot = began.elapsed();
            at_work += 1;
            within(Duration::from_secs(3))
        } else {
            within(boot)
        };
        std::thread::sleep(moment);
        let died = Instant::now();
        if round % 6 < 5 {
            killed += 1;
            kill_process(vmm, Signal::KILL).unwrap();
            victim.end().exits(137).says("killed");
            assert!(!socket_exists(&ballast), "ballast lives, and cleans up after its VMM");
            assert_eq!(groups(&home), 0);
        } else {
            // The name is free at once, and nobody waits for the VMM's end.
            victim.signal(Signal::KILL);
            victim.end().exits(-9);
        }
        neighbour.does("cmp /tmp/taken/a /tmp/taken/b");
        daemon.wait_until(is_alone);
        slowest = slowest.max(died.elapsed());
        if round == 1 {
            // By then it has looked at the neighbour's layers, too.
            files_before = daemon.open_files();
        }
        println!("round {round}: killed after {:?}, and no orphan {:?} later", died - began, died.elapsed());
    }
    assert_eq!(killed, vmms);

    // The last one was ballast's: its leftovers are the next start's.
    process::wait_until_none_has_variable("BALLAST_CGROUP", home.path());
    let last = ballast.run("busybox", &["echo", "again"]).options(["--name", "victim", "-m", "160m"]);
    last.env("BALLAST_CGROUP", home.path()).end().exits(0).prints("again\n");
    assert_eq!(groups(&home), 0);
    assert_eq!(
        fs::read_dir(ballast.path("state/vms")).unwrap().count(),
        1,
        "only the neighbour is registered"
    );
    assert_eq!(copies(&ballast), 0, "copies of the image for the dead");
    assert_eq!(mounts(), mounts_before);
    let tree = daemon.wait_until(is_alone);
    let held = tree.nodes.iter().find(|node| node.name == "guest").unwrap().charge_bytes;
    daemon.wait_until(|tree| tree.host.main_bytes.unsigned_abs().abs_diff((4 << 30) - held) < 16 * MIB);
    let open = || daemon.open_files();
    until(
        || open() <= files_before,
        || format!("the daemon has {} files open, and had {files_before}", open()),
    );
    let charged = |name| home.value("memory.stat", name);
    println!(
        "of {rounds} microVMs {killed} VMMs were killed and {} supervisors, {at_work} of all at work; what they held was no \
         orphan any more after at most {slowest:?}; left: {} KiB charged in all, {} KiB anonymous, {} KiB shared memory, {} KiB kernel; the host had {} MiB \
         available and has {} MiB",
        rounds - killed,
        home.number("memory.current") >> 10,
        charged("anon") >> 10,
        charged("shmem") >> 10,
        charged("kernel") >> 10,
        available_before / MIB,
        available() / MIB,
    );
    assert!(charged("anon") < MIB && charged("shmem") < MIB, "memory of the dead");
    assert!(charged("kernel") < 8 * MIB, "the kernel's memory for the dead");
    neighbour.does("cmp /tmp/taken/a /tmp/taken/b");
    assert_eq!(neighbour.memory().0["host"]["limit_reached_total"], 0);
    neighbour.end();
    fs::remove_dir(home.path()).unwrap();
}

/// Only the neighbour is there, and nobody's memory is on its way back.
fn is_alone(tree: &TreeDocument) -> bool {
    (tree.host.vms, tree.host.orphans) == (1, 0)
}

fn state(ballast: &Ballast, name: &str) -> std::path::PathBuf {
    ballast.path("state/vms").join(name)
}

fn socket_exists(ballast: &Ballast) -> bool {
    state(ballast, "victim").join("control.sock").exists()
}

/// How many microVMs have an image of their own.
fn copies(ballast: &Ballast) -> usize {
    let state = fs::canonicalize(ballast.path("state")).unwrap();
    let scopes = ballast.data().join(SCOPES).join(state_name(state.to_str().unwrap()));
    fs::read_dir(scopes).map_or(0, Iterator::count)
}

fn groups(home: &HostCgroup) -> usize {
    let is_group = |path: &Path| path.is_dir();
    fs::read_dir(home.path()).unwrap().flatten().filter(|entry| is_group(&entry.path())).count()
}

/// Bytes that the host can give, by its own estimate.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
