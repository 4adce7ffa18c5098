//! How long a start takes and what a VMM holds: Ballast beside QEMU's microvm machine, in turn.
//!
//! `bench-boot RUNS ELF INITRAMFS`, where KVM boots stock kernels, beside Ballast's programs and with an image
//! called `busybox` in `$BALLAST_DATA`. `ci/bench boot` calls it in virtual time.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use vmm::cli::launch::{self, Machine};
use vmm::cli::streams::GuestEnds;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Run<'a> = &'a dyn Fn() -> Result<f64>;

const MEMORY_MIB: u64 = 256;
/// The least that comparisons of the field boot with.
const PLAIN: &str = "panic=-1 reboot=t";

struct Bench {
    elf: PathBuf,
    initramfs: PathBuf,
    programs: PathBuf,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [runs, elf, initramfs] = arguments.as_slice() else {
        return Err("usage: bench-boot RUNS ELF INITRAMFS".into());
    };
    let programs = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let bench = Bench { elf: elf.into(), initramfs: initramfs.into(), programs };
    bench.starts(runs.parse()?)?;
    bench.first_byte()?;
    bench.memory()
}

impl Bench {
    fn starts(&self, runs: usize) -> Result<()> {
        let shipped = vmm::kernel::command_line(false);
        let contenders: [(&str, Run<'_>); 4] = [
            ("QEMU microvm, plain command line", &|| self.qemu(PLAIN)),
            ("Ballast, the same command line", &|| self.ballast(PLAIN)),
            ("QEMU microvm, Ballast's command line", &|| self.qemu(&shipped)),
            ("Ballast, as shipped", &|| self.ballast(&shipped)),
        ];
        let mut times = vec![Vec::new(); contenders.len()];
        // One more, first, that only warms the page cache.
        for round in 0..=runs {
            for ((_, run), times) in contenders.iter().zip(&mut times) {
                let seconds = run()?;
                if round > 0 {
                    times.push(seconds);
                }
            }
        }
        println!("Start to guest init: {MEMORY_MIB} MiB, one vCPU, {runs} runs in turn\n");
        println!("{:<38}{:>9}{:>9}{:>9}{:>8}", "", "median s", "least", "most", "ratio");
        let mut first = None;
        for ((name, _), times) in contenders.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            let (least, most) = (times.first().unwrap_or(&0.0), times.last().unwrap_or(&0.0));
            let median = times.get(runs / 2).unwrap_or(&0.0);
            let ratio = median / *first.get_or_insert(*median);
            println!("{name:<38}{median:>9.3}{least:>9.3}{most:>9.3}{ratio:>8.3}");
        }
        Ok(())
    }

    fn qemu(&self, command_line: &str) -> Result<f64> {
        let start = Instant::now();
        let status = Command::new("qemu-system-x86_64")
            .args([
                "-M",
                "microvm,acpi=on,rtc=off,pit=off,pic=off,isa-serial=off",
                "-accel",
                "kvm",
                "-cpu",
                "host",
            ])
            .args([
                "-m",
                &MEMORY_MIB.to_string(),
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-append", command_line])
            .arg("-kernel")
            .arg(&self.elf)
            .arg("-initrd")
            .arg(&self.initramfs)
            .stdin(Stdio::null())
            .status()?;
        let seconds = start.elapsed().as_secs_f64();
        // The device ends QEMU with 2 * value + 1.
        if status.code() == Some(1) { Ok(seconds) } else { Err(format!("QEMU ended with {status}").into()) }
    }

    fn ballast(&self, command_line: &str) -> Result<f64> {
        let directory = tempfile::tempdir()?;
        let start = Instant::now();
        let (_stdout, stdout) = std::io::pipe()?;
        let (_stderr, stderr) = std::io::pipe()?;
        let machine = Machine {
            name: "bench".into(),
            image: String::new(),
            listener: UnixListener::bind(directory.path().join("control.sock"))?,
            memory_bytes: MEMORY_MIB << 20,
            cpus: 1,
            kernel: self.elf.clone(),
            kernel_release: String::new(),
            initramfs: self.initramfs.clone(),
            command_line: command_line.into(),
            layers: Vec::new(),
            disks: Vec::new(),
            spec: Vec::new(),
            streams: GuestEnds { stdin: None, stdout: stdout.into(), stderr: stderr.into() },
            boot_log: false,
        };
        let mut vmm = launch::start(&self.programs.join("ballast-vmm"), machine)?;
        let status = vmm.child.wait()?;
        let seconds = start.elapsed().as_secs_f64();
        if status.success() { Ok(seconds) } else { Err(format!("ballast-vmm ended with {status}").into()) }
    }

    /// What a user waits for: `ballast run` to the workload's first byte, and where the time goes.
    fn first_byte(&self) -> Result<()> {
        let run = || -> Result<Output> {
            Ok(self.run(&["--timings", "busybox", "echo", "ready"])?.wait_with_output()?)
        };
        run()?;
        let output = run()?;
        println!("\n`ballast run busybox echo` to its first byte, as shipped\n");
        print!("{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// What the VMM holds beside the guest's memory while the guest idles.
    fn memory(&self) -> Result<()> {
        let mut run = self.run(&["busybox", "sh", "-c", "echo ready; sleep 1000"])?;
        let mut line = String::new();
        BufReader::new(run.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        std::thread::sleep(Duration::from_secs(10));
        let vmm = child_of(run.id())?;
        let mappings = balloon::resident::parse_smaps(&fs::read_to_string(format!("/proc/{vmm}/smaps"))?);
        let (guest, own): (Vec<_>, Vec<_>) =
            mappings.iter().partition(|m| m.bytes() >= MEMORY_MIB << 20 || m.name.contains("/layers/"));
        let sum = |list: &[&balloon::resident::Mapping], of: fn(&balloon::resident::Mapping) -> u64| {
            list.iter().map(|m| of(m)).sum::<u64>() >> 10
        };
        println!("\nMemory while the guest idles, KiB\n");
        println!("{:<38}{:>9}", "VMM beside the guest's memory (Pss)", sum(&own, |m| m.pss));
        println!("{:<38}{:>9}", "  of it anonymous", sum(&own, |m| m.anonymous));
        println!("{:<38}{:>9}", "guest resident", sum(&guest, |m| m.rss));
        run.kill()?;
        run.wait()?;
        Ok(())
    }

    fn run(&self, arguments: &[&str]) -> Result<Child> {
        Ok(Command::new(self.programs.join("ballast"))
            .args(["run", "-m", &format!("{MEMORY_MIB}m")])
            .args(arguments)
            .stdin(File::open("/dev/null")?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?)
    }
}

fn child_of(parent: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let first = children.split_whitespace().next().ok_or("`ballast run` has no VMM")?;
    Ok(first.parse()?)
}
