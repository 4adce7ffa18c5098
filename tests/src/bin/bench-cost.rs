//! What a further microVM of 256 MiB costs its host before its workload starts, part by part.
//!
//! `bench-cost`, where KVM boots stock kernels, beside Ballast's programs and with an image called `busybox` in
//! `$BALLAST_DATA`. Starts two microVMs of one image and kernel and shows the second: what it holds by the host's page
//! tables, and what the guest's kernel says of what it uses. `ci/bench cost` calls it.

use balloon::resident::{Mapping, parse_smaps};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tests::bench::Error;
use tests::density::host::{cgroup_number, vmm_of};
use tests::memory::guest_ram;

type Result<T> = std::result::Result<T, Error>;

const MEMORY_MIB: u64 = 256;
/// The law's first ten seconds are over by then, in which small blocks are reported, too.
const IDLING: Duration = Duration::from_secs(15);
/// What the guest says of itself; the kernel tells its own sizes once, in its log.
const TELL: &str = "dmesg | grep ' Memory: '; cat /proc/meminfo /proc/1/smaps_rollup; echo ready; sleep 1000";
/// `struct page` of a page of guest memory.
const PAGE_STRUCT_BYTES: u64 = 64;

fn main() -> Result<()> {
    let mut first = start("first")?;
    listen(&mut first)?;
    let mut second = start("second")?;
    let told = listen(&mut second)?;
    let at_start = Held::by(&second)?;
    std::thread::sleep(IDLING);
    let idle = Held::by(&second)?;
    println!("A further microVM of {MEMORY_MIB} MiB, KiB{:>28}{:>12}", "at its start", "idle 15 s");
    for (name, of) in Held::PARTS {
        println!("{name:<46}{:>12}{:>12}", of(&at_start) >> 10, of(&idle) >> 10);
    }
    println!("\nBy its guest's kernel, KiB");
    let parts = parts(&told);
    for (name, kib) in &parts {
        println!("{name:<46}{kib:>12}");
    }
    let used: u64 = parts.iter().map(|(_, kib)| kib).sum();
    let resident = (idle.anonymous + idle.file) >> 10;
    println!("{:<46}{:>12}", "sum", used);
    println!("{:<46}{:>12}", "resident beyond it: freed and not returned,", resident.saturating_sub(used));
    println!("rounded up to huge pages");
    for child in [&mut second, &mut first] {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// What a microVM holds of its host's memory, in bytes.
struct Held {
    anonymous: u64,
    huge: u64,
    file: u64,
    file_share: u64,
    vmm: u64,
    kernel: u64,
    charged: u64,
}

type Part = (&'static str, fn(&Held) -> u64);

impl Held {
    const PARTS: [Part; 8] = [
        ("guest memory of its own", |held| held.anonymous),
        ("  of it in huge pages", |held| held.huge),
        ("mapped of the kernel's image", |held| held.file),
        ("  its share of that (Pss)", |held| held.file_share),
        ("ballast-vmm beside it (Pss)", |held| held.vmm),
        ("the host's kernel for it (its cgroup)", |held| held.kernel),
        ("in all", |held| held.anonymous + held.file_share + held.vmm + held.kernel),
        ("charged to its cgroup", |held| held.charged),
    ];

    fn by(run: &Child) -> Result<Self> {
        let pid = vmm_of(run.id())?;
        let mappings = parse_smaps(&fs::read_to_string(format!("/proc/{pid}/smaps"))?);
        let ram = guest_ram(&mappings);
        let is_ram = |mapping: &&Mapping| ram.iter().any(|ram| ram.contains(&mapping.start));
        let sum = |of: fn(&Mapping) -> u64| mappings.iter().filter(is_ram).map(of).sum::<u64>();
        let own = mappings.iter().filter(|mapping| !is_ram(mapping) && !mapping.name.contains("/layers/"));
        let (anonymous, rss, pss) = (sum(|m| m.anonymous), sum(|m| m.rss), sum(|m| m.pss));
        Ok(Self {
            anonymous,
            huge: sum(|m| m.huge),
            file: rss - anonymous,
            file_share: pss.saturating_sub(anonymous),
            vmm: own.map(|mapping| mapping.pss).sum(),
            kernel: cgroup_number(pid, "memory.stat", "kernel ")?,
            charged: cgroup_number(pid, "memory.current", "")?,
        })
    }
}

/// What the guest's kernel says that it uses.
fn parts(told: &str) -> Vec<(&'static str, u64)> {
    let meminfo = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    };
    // `Memory: 212164K/261752K available (14343K kernel code, 2327K rwdata, ...`
    let image = |name: &str| {
        let line = told.lines().find(|line| line.contains(" Memory: ")).unwrap_or_default();
        let before = line.split_once(name).map_or("", |(before, _)| before);
        let word = before.trim_end().rsplit(['(', ' ']).next().unwrap_or_default();
        word.trim_end_matches('K').parse().unwrap_or(0)
    };
    vec![
        ("kernel code", image("kernel code")),
        ("kernel constants", image("rodata")),
        ("kernel data", image("rwdata") + image("bss")),
        ("page structs", ((MEMORY_MIB << 20) / 4096 * PAGE_STRUCT_BYTES) >> 10),
        ("slab that can be shrunk", meminfo("SReclaimable")),
        ("slab", meminfo("SUnreclaim")),
        ("modules and what else is mapped (vmalloc)", meminfo("VmallocUsed")),
        ("stacks, page tables, per CPU", meminfo("KernelStack") + meminfo("PageTables") + meminfo("Percpu")),
        ("agent", meminfo("Pss")),
        ("page cache and what remains of the initramfs", meminfo("Cached").saturating_sub(meminfo("Pss"))),
    ]
}

fn start(name: &str) -> Result<Child> {
    let programs = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    Ok(Command::new(programs.join("ballast"))
        .args(["run", "--name", name, "-m", &format!("{MEMORY_MIB}m"), "busybox", "sh", "-c", TELL])
        .stdin(File::open("/dev/null")?)
        .stdout(Stdio::piped())
        .spawn()?)
}

/// All that a guest says until it is ready.
fn listen(run: &mut Child) -> Result<String> {
    let mut told = String::new();
    for line in BufReader::new(run.stdout.as_mut().ok_or("no output")?).lines() {
        match line? {
            line if line == "ready" => return Ok(told),
            line => told = told + &line + "\n",
        }
    }
    Err("the guest ended before it was ready".into())
}
