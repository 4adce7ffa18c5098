//! How long a start takes and what a VMM holds: Ballast beside QEMU's microvm machine, in turn.
//!
//! `bench-boot RUNS ELF INITRAMFS QEMU`, where KVM boots stock kernels, beside Ballast's programs and with an image
//! called `busybox` in `$BALLAST_DATA`; `boot-probe` is the `/init` of INITRAMFS, and QEMU a
//! directory with its program, libraries and firmware. `ci/bench boot` calls it in virtual time.

use balloon::device::OFFERED;
use balloon::resident::{Mapping, parse_smaps};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::bench::{Error, Guest, PLAIN, Watchdog, median};
use tests::memory::guest_ram;
use vmm::report::{MAX_BYTES, Outcome, Report};

type Result<T> = std::result::Result<T, Error>;
type Run<'a> = &'a dyn Fn() -> Result<f64>;

const MEMORY_MIB: u64 = 256;
/// As [`PLAIN`], and `boot-probe` idles.
const IDLE: &str = "panic=-1 reboot=t cryptomgr.notests -- idle";
/// Until a guest idles for its kernel, too, and for Ballast's law: half a minute after its last start of something.
const SETTLING: Duration = Duration::from_secs(120);
/// For so long an idle guest is looked at.
const IDLING: Duration = Duration::from_secs(120);
const WARM_UPS: usize = 1;

struct Bench(Guest);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [runs, elf, initramfs, qemu] = arguments.as_slice() else {
        return Err("usage: bench-boot RUNS ELF INITRAMFS QEMU".into());
    };
    let programs = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let bench = Bench(Guest {
        elf: elf.into(),
        initramfs: initramfs.into(),
        memory_mib: MEMORY_MIB,
        huge_pages: true,
        qemu: qemu.into(),
        programs,
    });
    bench.first_byte()?;
    bench.starts(runs.parse()?)?;
    bench.idle()
}

impl Bench {
    fn starts(&self, runs: usize) -> Result<()> {
        let shipped = vmm::kernel::command_line(false, 1, false, &[])?;
        let contenders: [(&str, Run<'_>); 4] = [
            ("QEMU microvm, plain command line", &|| self.qemu(PLAIN)),
            ("Ballast, the same command line", &|| self.ballast(PLAIN)),
            ("QEMU microvm, Ballast's command line", &|| self.qemu(&shipped)),
            ("Ballast, as shipped", &|| self.ballast(&shipped)),
        ];
        // At first only to have all their files in the page cache: while a box in virtual time waits for a file from
        // outside, its clock runs ahead.
        let mut times = vec![Vec::new(); contenders.len()];
        for round in 0..WARM_UPS + runs {
            let taking_part = if round < WARM_UPS { 2 } else { contenders.len() };
            for ((name, run), times) in contenders.iter().zip(&mut times).take(taking_part) {
                match run() {
                    Ok(seconds) if round >= WARM_UPS => times.push(seconds),
                    Ok(_) => {}
                    Err(error) => say(&format!("{name}: {error}; this run is left out"))?,
                }
            }
        }
        let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
        println!("Start to guest init: {MEMORY_MIB} MiB, one vCPU, {runs} runs in turn\n");
        println!(
            "{:<38}{:>9}{:>9}{:>9}{:>12}{:>12}",
            "", "median s", "least", "most", "to QEMU", "to QEMU with"
        );
        println!("{:<38}{:>9}{:>9}{:>9}{:>14}{:>14}", "", "", "", "", "plain", "the same");
        for (i, ((name, _), times)) in contenders.iter().zip(&times).enumerate() {
            let (least, most) = (times.first().unwrap_or(&f64::NAN), times.last().unwrap_or(&f64::NAN));
            let to = |other: usize| medians[i] / medians[other];
            let (plain, alike) = (to(0), to(i & !1));
            println!("{name:<38}{:>9.3}{least:>9.3}{most:>9.3}{plain:>14.3}{alike:>14.3}", medians[i]);
        }
        Ok(())
    }

    fn qemu(&self, command_line: &str) -> Result<f64> {
        let start = Instant::now();
        let mut child = self.0.qemu(command_line).stdout(Stdio::piped()).spawn()?;
        let mut stdout = child.stdout.take().ok_or("no output")?;
        let watchdog = Watchdog::new(&child);
        let heard = stdout.read_exact(&mut [0]);
        let seconds = start.elapsed().as_secs_f64();
        drop(watchdog);
        child.kill()?;
        child.wait()?;
        heard.map_err(|_| "QEMU's guest did not start")?;
        Ok(seconds)
    }

    fn ballast(&self, command_line: &str) -> Result<f64> {
        let directory = tempfile::tempdir()?;
        let start = Instant::now();
        let mut vmm = self.0.ballast(command_line, &directory.path().join("control.sock"), OFFERED, false)?;
        let watchdog = Watchdog::new(&vmm.child);
        // The guest's init resets the machine: its end is the first that is heard of it.
        let mut report = vec![0; MAX_BYTES];
        let outcome = loop {
            let bytes = vmm.control.recv(&mut report)?;
            let text = report.get(..bytes).filter(|text| !text.is_empty()).ok_or("ballast-vmm died")?;
            if let Report::Ended(outcome) = serde_json::from_slice(text)? {
                break outcome;
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        drop(watchdog);
        vmm.child.wait()?;
        match outcome {
            Outcome::Failed { message, .. } if message.contains("reset") => Ok(seconds),
            outcome => Err(format!("the guest ended otherwise: {outcome:?}").into()),
        }
    }

    /// What a user waits for: `ballast run` to the workload's first byte, and where the time goes.
    fn first_byte(&self) -> Result<()> {
        let run = || -> Result<(f64, String)> {
            let start = Instant::now();
            let mut child = self.run(&["--timings", "busybox", "echo", "ready"])?;
            child.stdout.as_mut().ok_or("no output")?.read_exact(&mut [0])?;
            let seconds = start.elapsed().as_secs_f64();
            let output = child.wait_with_output()?;
            Ok((seconds, String::from_utf8_lossy(&output.stderr).into_owned()))
        };
        // The first run packs the initramfs for this place.
        run()?;
        let (seconds, table) = run()?;
        println!("\n`ballast run busybox echo` to its first byte, as shipped: {seconds:.3} s\n\n{table}");
        Ok(())
    }

    /// What the VMMs hold beside their guest's memory while the guest idles, and what they do.
    fn idle(&self) -> Result<()> {
        println!("\nWhile the guest idles: memory in KiB, and what all threads do in a second\n");
        println!("{:<38}{:>9}{:>9}{:>9}{:>10}{:>9}", "", "VMM, Pss", "its anon", "guest", "CPU, ms", "wakes");
        let mut qemu = self.0.qemu(IDLE).spawn()?;
        print_idle("QEMU microvm", qemu.id())?;
        qemu.kill()?;
        qemu.wait()?;

        let mut run = self.run(&["busybox", "sh", "-c", "echo ready; sleep 1000"])?;
        run.stdout.as_mut().ok_or("no output")?.read_exact(&mut [0])?;
        print_idle("Ballast", child_of(run.id())?)?;
        run.kill()?;
        run.wait()?;
        Ok(())
    }

    fn run(&self, arguments: &[&str]) -> Result<Child> {
        Ok(Command::new(self.0.programs.join("ballast"))
            .args(["run", "-m", &format!("{MEMORY_MIB}m")])
            .args(arguments)
            .stdin(File::open("/dev/null")?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stderr(), "bench-boot: {text}")?)
}

/// Guest memory is large, and every image layer a mapping of its own; all else is the VMM's.
fn print_idle(name: &str, pid: u32) -> Result<()> {
    std::thread::sleep(SETTLING);
    let before = Activity::of(pid)?;
    std::thread::sleep(IDLING);
    let after = Activity::of(pid)?;
    let each = |count: u64| count as f64 / IDLING.as_secs_f64();
    let busy_ms = each(after.busy_ns - before.busy_ns) / 1e6;
    let wakes = each(after.wakes - before.wakes);
    let mappings = parse_smaps(&fs::read_to_string(format!("/proc/{pid}/smaps"))?);
    let ram = guest_ram(&mappings);
    let is_ram = |m: &Mapping| ram.iter().any(|ram| ram.contains(&m.start));
    let (guest, own): (Vec<_>, Vec<_>) =
        mappings.iter().partition(|m| is_ram(m) || m.name.contains("/layers/"));
    let kib = |list: &[&Mapping], of: fn(&Mapping) -> u64| list.iter().map(|m| of(m)).sum::<u64>() >> 10;
    let (pss, anonymous) = (kib(&own, |m| m.pss), kib(&own, |m| m.anonymous));
    let rss = kib(&guest, |m| m.rss);
    println!("{name:<38}{pss:>9}{anonymous:>9}{rss:>9}{busy_ms:>10.3}{wakes:>9.2}");
    Ok(())
}

/// What all threads of a VMM have done, its vCPUs and so its guest among them.
struct Activity {
    busy_ns: u64,
    /// How often they had waited for something.
    wakes: u64,
}

impl Activity {
    fn of(pid: u32) -> Result<Self> {
        let mut sum = Self { busy_ns: 0, wakes: 0 };
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.path();
            let busy = fs::read_to_string(thread.join("schedstat"))?;
            sum.busy_ns += busy.split(' ').next().unwrap_or_default().parse::<u64>()?;
            let status = fs::read_to_string(thread.join("status"))?;
            let wakes = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum.wakes += wakes.unwrap_or_default().trim().parse::<u64>()?;
        }
        Ok(sum)
    }
}

fn child_of(parent: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let first = children.split_whitespace().next().ok_or("`ballast run` has no VMM")?;
    Ok(first.parse()?)
}
