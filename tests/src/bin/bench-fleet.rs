//! What a daemon costs that serves many microVMs, each an own process and socket that speaks the protocol.
//!
//! `bench-fleet PEERS ...`: a row for each number of them. `ci/bench fleet` calls it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::time::{Duration, Instant};
use tests::Ballast;
use tests::bench::Error;
use tests::crowd::Crowd;
use tests::daemon::Daemon;
use tests::process::anonymous_bytes;
use tests::run::until;

/// Fifteen ticks: the daemon's work comes with each.
const MEASURED: Duration = Duration::from_secs(30);
/// Until what comes with a start is over.
const SETTLING: Duration = Duration::from_secs(6);
/// Clock ticks of `/proc/PID/stat` in a second, for all of Linux's user space.
const USER_HZ: f64 = 100.0;
/// Open files beside those of peers.
const FILES_BESIDE: u64 = 200;
const CONFIGURATION: &str = "[pool]\ncapacity = '4096g'\n";

fn main() -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let most = limit.maximum.unwrap_or(u64::MAX).saturating_sub(FILES_BESIDE) / 2;
    println!("   peers  found in  found again in  envelopes/s     CPU  anonymous  a peer");
    for peers in std::env::args().skip(1) {
        let peers: usize = peers.parse()?;
        if peers as u64 > most {
            let limit = "which take two files each: raise the limit (ulimit -n)";
            return Err(format!("this process may have {most} peers, {limit}").into());
        }
        row(peers)?;
    }
    Ok(())
}

fn row(peers: usize) -> Result<(), Error> {
    let ballast = Ballast::empty();
    let empty = {
        let daemon = Daemon::start(&ballast, CONFIGURATION);
        anonymous_bytes(daemon.pid())
    };
    let crowd = Crowd::start(&ballast, peers);
    let found = |crowd: &Crowd| {
        let start = Instant::now();
        let daemon = Daemon::start(&ballast, CONFIGURATION);
        until(|| crowd.greeted() >= peers, || format!("{} of {peers} are found", crowd.greeted()));
        (daemon, start.elapsed())
    };
    let (daemon, first) = found(&crowd);
    daemon.kill();
    crowd.forget();
    let (daemon, again) = found(&crowd);
    std::thread::sleep(SETTLING);
    let (envelopes, processor) = (crowd.envelopes(), processor_seconds(&daemon)?);
    let start = Instant::now();
    std::thread::sleep(MEASURED);
    let seconds = start.elapsed().as_secs_f64();
    let envelopes = (crowd.envelopes() - envelopes) as f64 / seconds;
    let share = (processor_seconds(&daemon)? - processor) / seconds;
    let bytes = anonymous_bytes(daemon.pid());
    println!(
        "{peers:>8}  {:>6.2} s  {:>12.2} s  {envelopes:>11.1}  {:>5.2} %  {:>5.1} MiB  {:.1} KiB",
        first.as_secs_f64(),
        again.as_secs_f64(),
        share * 100.0,
        bytes as f64 / 1_048_576.0,
        bytes.saturating_sub(empty) as f64 / 1024.0 / peers as f64,
    );
    Ok(())
}

/// Time that the daemon has had a processor, in user and kernel mode: fields 14 and 15 of proc_pid_stat(5).
fn processor_seconds(daemon: &Daemon) -> Result<f64, Error> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid()))?;
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: Vec<u64> = after_name.split(' ').skip(11).take(2).flat_map(str::parse).collect();
    Ok(ticks.iter().sum::<u64>() as f64 / USER_HZ)
}
