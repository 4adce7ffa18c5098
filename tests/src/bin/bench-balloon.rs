//! How fast memory moves: Ballast's balloon beside that of QEMU's microvm machine, in turn.
//!
//! `bench-balloon RUNS ELF INITRAMFS QEMU`, where KVM boots stock kernels, beside Ballast's programs; `balloon-probe` is
//! the `/init` of INITRAMFS, and QEMU a directory with its program, libraries and firmware. `ci/bench balloon` calls it
//! in virtual time.

use balloon::device::features;
use rustix::process::Pid;
use rustix::stdio::{dup2_stderr, stderr};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tests::bench::{Error, Guest, PLAIN, Watchdog, median};
use vmm::cli::launch::Vmm;

type Result<T> = std::result::Result<T, Error>;
/// Starts a guest, with or without reporting, that touches so many MiB.
type Start = fn(&Guest, bool, u64) -> Result<Box<dyn Contender>>;

const MIB: u64 = 1 << 20;
const MEMORY_MIB: u64 = 1024;
const MOVED: u64 = 512 * MIB;
/// Touched by the guest before the balloon takes [`MOVED`].
const TOUCHED_MIB: u64 = 832;
/// How often a VMM is asked for its balloon, and the host for what the VMM holds.
const POLL: Duration = Duration::from_millis(5);
/// After this long a guest's reports have come to their end.
const REPORTED_BY: Duration = Duration::from_secs(12);

/// A VMM with a running guest that has touched and freed its memory.
trait Contender {
    /// The VMM's process.
    fn pid(&self) -> Pid;
    /// Wants the balloon to hold `bytes`.
    fn set_balloon(&self, bytes: u64) -> Result<()>;
    /// What it holds, by the driver's word.
    fn balloon(&self) -> Result<u64>;
}

struct Ballast {
    vmm: Vmm,
    /// One connection for all that is asked, as QEMU's monitor has.
    control: RefCell<BufReader<UnixStream>>,
    _directory: TempDir,
}

struct Qemu {
    child: Child,
    monitor: RefCell<BufReader<UnixStream>>,
    _directory: TempDir,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [runs, elf, initramfs, qemu] = arguments.as_slice() else {
        return Err("usage: bench-balloon RUNS ELF INITRAMFS QEMU".into());
    };
    let programs = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let guest = Guest {
        elf: elf.into(),
        initramfs: initramfs.into(),
        memory_mib: MEMORY_MIB,
        huge_pages: true,
        qemu: qemu.into(),
        programs,
    };
    let runs: usize = runs.parse()?;
    let small = Guest { huge_pages: false, ..guest.clone() };
    let contenders: [(&str, &Guest, Start); 3] = [
        ("QEMU microvm", &guest, Qemu::start),
        ("Ballast", &guest, Ballast::start),
        ("  hugepages=off", &small, Ballast::start),
    ];

    println!("A guest of {MEMORY_MIB} MiB and one vCPU, {runs} runs in turn, medians\n");
    let mut moved = vec![Moves::default(); contenders.len()];
    let mut reported = vec![Reports::default(); contenders.len()];
    for _ in 0..runs {
        for (number, (_, guest, start)) in contenders.iter().enumerate() {
            moved[number].add(&*start(guest, false, TOUCHED_MIB)?)?;
            reported[number].add(&*start(guest, true, MOVED / MIB)?)?;
        }
    }
    let row = |name: &str, cells: &[f64]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>14.3}")).collect();
        println!("{name:<22}{cells}");
    };
    println!(
        "{:<22}{:>14}{:>14}{:>14}{:>14}",
        "512 MiB, seconds", "inflate", "returned to", "deflate", "returned"
    );
    println!("{:<22}{:>14}{:>14}{:>14}{:>14}", "", "", "the host", "", "share");
    let rows: Vec<[f64; 4]> = moved.iter_mut().map(Moves::medians).collect();
    for ((name, ..), cells) in contenders.iter().zip(&rows) {
        row(name, cells);
    }
    row("ratio", &[rows[1][0] / rows[0][0], rows[1][1] / rows[0][1], rows[1][2] / rows[0][2]]);
    println!("\n{:<22}{:>14}{:>14}", "512 MiB freed by the", "seconds to", "share");
    println!("{:<22}{:>14}{:>14}", "guest, reporting", "90 % returned", "returned");
    for ((name, ..), reports) in contenders.iter().zip(&mut reported) {
        row(name, &reports.medians());
    }
    Ok(())
}

/// Times of inflating and deflating.
#[derive(Clone, Debug, Default)]
struct Moves {
    inflated: Vec<f64>,
    returned: Vec<f64>,
    deflated: Vec<f64>,
    share: Vec<f64>,
}

impl Moves {
    fn add(&mut self, contender: &dyn Contender) -> Result<()> {
        let before = resident(contender.pid())?;
        let start = Instant::now();
        contender.set_balloon(MOVED)?;
        while contender.balloon()? != MOVED {
            sleep(POLL);
        }
        self.inflated.push(start.elapsed().as_secs_f64());
        // The driver's word may come before the host has the memory, and after.
        while before.saturating_sub(resident(contender.pid())?) < MOVED / 100 * 97
            && start.elapsed() < REPORTED_BY
        {
            sleep(POLL);
        }
        self.returned.push(start.elapsed().as_secs_f64());
        self.share.push(before.saturating_sub(resident(contender.pid())?) as f64 / MOVED as f64);
        let start = Instant::now();
        contender.set_balloon(0)?;
        while contender.balloon()? != 0 {
            sleep(POLL);
        }
        self.deflated.push(start.elapsed().as_secs_f64());
        Ok(())
    }

    fn medians(&mut self) -> [f64; 4] {
        [&mut self.inflated, &mut self.returned, &mut self.deflated, &mut self.share]
            .map(|values| median(values))
    }
}

/// Times and shares of what comes back without a request.
#[derive(Clone, Debug, Default)]
struct Reports {
    seconds: Vec<f64>,
    share: Vec<f64>,
}

impl Reports {
    fn add(&mut self, contender: &dyn Contender) -> Result<()> {
        // The guest has freed its memory just now; reports begin seconds later.
        let (start, before) = (Instant::now(), resident(contender.pid())?);
        let returned = || Ok::<_, Error>(before.saturating_sub(resident(contender.pid())?));
        let mut seconds = f64::NAN;
        while start.elapsed() < REPORTED_BY {
            if seconds.is_nan() && returned()? >= MOVED / 10 * 9 {
                seconds = start.elapsed().as_secs_f64();
            }
            sleep(POLL);
        }
        self.seconds.push(seconds);
        self.share.push(returned()? as f64 / MOVED as f64);
        Ok(())
    }

    fn medians(&mut self) -> [f64; 2] {
        [median(&mut self.seconds), median(&mut self.share)]
    }
}

/// The probe's command line.
fn command_line(touched_mib: u64) -> String {
    format!("{PLAIN} cryptomgr.notests -- {touched_mib}")
}

/// Waits until the guest says that it has touched and freed its memory.
fn wait_for_guest(mut words: impl Read) -> Result<()> {
    let mut byte = [0];
    words.read_exact(&mut byte).map_err(|_| "the guest said nothing")?;
    if byte == *b"f" { Ok(()) } else { Err("the guest's probe failed".into()) }
}

impl Ballast {
    fn start(guest: &Guest, reporting: bool, touched_mib: u64) -> Result<Box<dyn Contender>> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("control.sock");
        let features = features::DEFLATE_ON_OOM | if reporting { features::REPORTING } else { 0 };
        // The serial port is the VMM's standard error, which it inherits.
        let (words, theirs) = std::io::pipe()?;
        let ours = stderr().try_clone_to_owned()?;
        dup2_stderr(&theirs)?;
        let vmm = guest.ballast(&command_line(touched_mib), &socket, features, true);
        dup2_stderr(&ours)?;
        drop(theirs);
        let mut vmm = vmm?;
        let watchdog = Watchdog::new(&vmm.child);
        let connect = || -> Result<UnixStream> {
            wait_for_guest(words)?;
            let control = UnixStream::connect(socket)?;
            control.set_read_timeout(Some(REPORTED_BY))?;
            Ok(control)
        };
        let control = connect().inspect_err(|_| end(&mut vmm.child))?;
        drop(watchdog);
        Ok(Box::new(Self { vmm, control: RefCell::new(BufReader::new(control)), _directory: directory }))
    }

    /// The content of the answer, which is to be 200.
    fn ask(&self, method: &str, path: &str, content: &str) -> Result<Value> {
        let mut control = self.control.borrow_mut();
        let length = content.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{content}"
        );
        control.get_mut().write_all(request.as_bytes())?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if control.read_line(&mut head)? == 0 {
                return Err(format!("the control socket ends in its answer: {head}").into());
            }
        }
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).ok_or("no length")?;
        let mut content = vec![0; length.parse()?];
        control.read_exact(&mut content)?;
        if head.starts_with("HTTP/1.1 200 ") {
            Ok(serde_json::from_slice(&content)?)
        } else {
            Err(String::from_utf8_lossy(&content).into())
        }
    }
}

impl Contender for Ballast {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.vmm.child)
    }

    fn set_balloon(&self, bytes: u64) -> Result<()> {
        let content = json!({ "bytes": MEMORY_MIB * MIB - bytes }).to_string();
        self.ask("PUT", "/v1/memory/ceiling", &content).map(drop)
    }

    fn balloon(&self) -> Result<u64> {
        let memory = self.ask("GET", "/v1/memory", "")?;
        memory["actual_bytes"].as_u64().ok_or_else(|| memory.to_string().into())
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        end(&mut self.vmm.child);
    }
}

impl Qemu {
    fn start(guest: &Guest, reporting: bool, touched_mib: u64) -> Result<Box<dyn Contender>> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("qmp");
        let reporting = if reporting { "on" } else { "off" };
        let mut command = guest.qemu(&command_line(touched_mib));
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())]).args([
            "-device",
            &format!("virtio-balloon-device,deflate-on-oom=on,free-page-reporting={reporting}"),
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let words = child.stdout.take().ok_or("no output")?;
        let watchdog = Watchdog::new(&child);
        wait_for_guest(words)?;
        drop(watchdog);
        let monitor = RefCell::new(BufReader::new(UnixStream::connect(socket)?));
        let contender = Box::new(Self { child, monitor, _directory: directory });
        contender.line()?;
        contender.execute(&json!({ "execute": "qmp_capabilities" }))?;
        Ok(contender)
    }

    fn line(&self) -> Result<Value> {
        let mut line = String::new();
        self.monitor.borrow_mut().read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// The answer to a command; events in between are skipped.
    fn execute(&self, command: &Value) -> Result<Value> {
        writeln!(self.monitor.borrow_mut().get_mut(), "{command}")?;
        loop {
            let line = self.line()?;
            if let Some(answer) = line.get("return") {
                return Ok(answer.clone());
            }
            if line.get("error").is_some() {
                return Err(line.to_string().into());
            }
        }
    }
}

impl Contender for Qemu {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn set_balloon(&self, bytes: u64) -> Result<()> {
        let value = MEMORY_MIB * MIB - bytes;
        self.execute(&json!({ "execute": "balloon", "arguments": { "value": value } })).map(drop)
    }

    fn balloon(&self) -> Result<u64> {
        let answer = self.execute(&json!({ "execute": "query-balloon" }))?;
        let actual = answer["actual"].as_u64().ok_or_else(|| answer.to_string())?;
        Ok(MEMORY_MIB * MIB - actual)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Bytes of the process in the host's memory (`/proc/PID/statm`, proc_pid_statm(5)).
fn resident(pid: Pid) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split(' ').nth(1).ok_or("statm has no second field")?.parse()?;
    Ok(pages * balloon::PAGE_BYTES)
}
