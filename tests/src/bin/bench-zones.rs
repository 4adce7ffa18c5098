//! What it costs to make microVMs and zones and to have them gone again, and what huge pages do to a zone.
//!
//! `bench-zones`, where KVM boots stock kernels, with `$BALLAST_TEST_PROGRAMS` and `$BALLAST_TEST_DATA` as integration
//! tests have them, and an image called `busybox` in the latter. `ci/bench zones` calls it in virtual time.

use rustix::process::Signal;
use std::time::{Duration, Instant};
use tests::control::{ask, socket};
use tests::memory::{Guest, MIB};
use tests::run::until;
use tests::{Ballast, setup};

const LIVES: u32 = 20;
/// As long as it takes the law to have reported what booting has left free, and the guest what it freed last.
const IDLING: Duration = Duration::from_secs(15);
/// What a guest of 256 MiB touches in a file.
const TOUCHED_MIB: u64 = 96;

fn main() {
    let ballast = setup();
    // The first one packs the initramfs, and has all files in the page cache.
    live(&ballast);
    println!(
        "{LIVES} microVMs of 256 MiB one after the other, each from its start to when nothing is left of it\n"
    );
    println!("{:<54}{:>12}{:>12}", "", "s each", "a minute");
    tell("`ballast run busybox true`: boots, runs, ends", || live(&ballast));
    tell("made and killed before its guest has booted", || make_and_end(&ballast, 1));
    tell("the same with eight zones, of 1152 MiB in all", || make_and_end(&ballast, 8));

    println!("\nA zone of 256 MiB with huge pages and without\n");
    println!("{:<54}{:>12}{:>12}", "", "with", "without");
    let (with, without) = (measure(&ballast, "on"), measure(&ballast, "off"));
    for ((name, with), (_, without)) in with.into_iter().zip(without) {
        println!("{name:<54}{with:>12}{without:>12}");
    }
}

fn tell(name: &str, live: impl Fn()) {
    let start = Instant::now();
    (0..LIVES).for_each(|_| live());
    let seconds = start.elapsed().as_secs_f64() / f64::from(LIVES);
    println!("{name:<54}{seconds:>12.3}{:>12.0}", 60.0 / seconds);
}

fn live(ballast: &Ballast) {
    let _ = ballast.run("busybox", &["true"]).options(["-m", "256m"]).end().exits(0);
}

/// Until it answers for its zones, which are all there then, and until it is gone.
fn make_and_end(ballast: &Ballast, zones: u32) {
    let more = (1..zones).flat_map(|n| ["--zone".into(), format!("name=z{n},size=128m")]);
    let run =
        ballast.run("busybox", &["sleep", "1000"]).options(["-m", "256m", "--name", "short"]).options(more);
    let running = run.start();
    let socket = socket(ballast, "short");
    let answers = || ask(&socket, "GET", "/v1/zones", "").is_ok_and(|(head, _)| head.contains(" 200 "));
    until(answers, || running.errors());
    rustix::process::kill_process(running.vmm(), Signal::KILL).unwrap_or_default();
    let _ = running.end().exits(137);
}

fn measure(ballast: &Ballast, huge_pages: &str) -> Vec<(&'static str, String)> {
    let start = Instant::now();
    let seconds = |since: Instant| format!("{:.3}", since.elapsed().as_secs_f64());
    let mut guest =
        Guest::start(ballast, &["-m", "256m", "--zone", &format!("name=ram,hugepages={huge_pages}")]);
    let mut rows = vec![("start to the workload's first word, s", seconds(start))];
    let held = |guest: &Guest| format!("{:.1}", guest.smaps_anonymous() as f64 / MIB as f64);
    rows.push(("resident then, MiB", held(&guest)));
    std::thread::sleep(IDLING);
    rows.push(("resident 15 s later, MiB", held(&guest)));
    let start = Instant::now();
    guest.does(&format!("zero file {TOUCHED_MIB}"));
    rows.push(("the guest writes a file of 96 MiB for the first time, s", seconds(start)));
    rows.push(("resident then, MiB", held(&guest)));
    guest.does("free file");
    std::thread::sleep(IDLING);
    rows.push(("resident 15 s after it has freed that, MiB", held(&guest)));
    let host = guest.memory().0["host"].clone();
    let charged = |name: &str| {
        host[name].as_u64().map_or_else(|| "-".into(), |bytes| format!("{:.1}", bytes as f64 / MIB as f64))
    };
    rows.push(("charged to its cgroup then, MiB", charged("charged_bytes")));
    rows.push(("of that the host's kernel, page tables too, MiB", charged("kernel_bytes")));
    guest.end();
    rows
}
