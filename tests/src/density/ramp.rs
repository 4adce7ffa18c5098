//! Starts one microVM after the other until the host has no room for another. Wiring.

use super::arm::Arm;
use super::host::{Memory, cgroup_number, vmm_of};
use super::kind::Kind;
use super::step::{Age, END_PERMILLE, End, Line, Step};
use super::told::Told;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// Size of each guest.
pub const MEMORY_MIB: u64 = 256;
/// The end of each step, of which guests tell: several of their lines.
const WINDOW: Duration = Duration::from_secs(60);
/// Between two looks at the host.
const LOOK: Duration = Duration::from_millis(500);
/// Compressed memory of the guest's for TMO's rule, as the agent makes it for the law of Ballast (whose modules these are).
const SWAP: &str = "mkdir -p /tmp/sys /tmp/dev && mount -t sysfs sys /tmp/sys && mount -t devtmpfs dev /tmp/dev &&
for module in lzo-rle zsmalloc zram; do insmod /swap/$module.ko || exit 1; done &&
cd /tmp/sys/block/zram0 && echo 256M > disksize && echo 128M > mem_limit && echo 0 > /proc/sys/vm/page-cluster &&
mkswap /tmp/dev/zram0 > /dev/null && swapon /tmp/dev/zram0 && echo max > /sys/fs/cgroup/memory.swap.max && cd / && exec \"$@\"";

/// How a ramp goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Under what.
    pub arm: Arm,
    /// Most microVMs.
    pub most: usize,
    /// Time from one start to the next, longer than what is measured of it.
    pub step: Duration,
}

/// Climbs it, beside Ballast's programs, with an image `density` and a volume `vmN` for each microVM in `$BALLAST_DATA`. Each
/// step is a line of `output`.
///
/// # Errors
/// A program cannot be run, or the host does not say what it has.
pub fn climb(plan: Plan, output: &mut impl Write) -> Result<(), Failure> {
    let programs = std::env::current_exe()?.parent().map(PathBuf::from).ok_or("this program is nowhere")?;
    let before = Memory::now()?;
    let mut daemon = plan.arm.daemon().map(|text| start_daemon(&programs, text)).transpose()?;
    let (teller, told) = channel();
    let mut ramp = Ramp { plan, programs, before, began: Instant::now(), running: Vec::new(), teller, told };
    let end = loop {
        match ramp.step()? {
            Ok(step) => {
                eprintln(&describe(&step))?;
                let is_held = step.is_held();
                write_line(output, &Line::Step(step))?;
                if !is_held {
                    break End::Full;
                }
                if ramp.running.len() >= plan.most {
                    break End::Enough;
                }
            }
            Err(end) => break end,
        }
    };
    eprintln(&format!("{}: {end:?}", plan.arm.name()))?;
    write_line(output, &Line::End(end))?;
    for child in ramp.running.iter_mut().map(|running| &mut running.run).chain(&mut daemon) {
        // It may have ended.
        let _ = child.kill();
        child.wait()?;
    }
    Ok(())
}

struct Running {
    run: Child,
    stderr: Option<ChildStderr>,
}

struct Ramp {
    plan: Plan,
    programs: PathBuf,
    before: Memory,
    began: Instant,
    running: Vec<Running>,
    teller: Sender<(usize, Told)>,
    told: Receiver<(usize, Told)>,
}

impl Ramp {
    /// Starts another one and sees how all do.
    fn step(&mut self) -> Result<Result<Step, End>, Failure> {
        let due = self.began + self.plan.step * u32::try_from(self.running.len() + 1)?;
        self.start()?;
        let mut least_permille = 1000;
        let window = due.checked_sub(WINDOW).ok_or("a step is shorter than what is measured of it")?;
        if let Some(end) = self.watch(window, &mut least_permille)? {
            return Ok(Err(end));
        }
        // What was told of the time before.
        while self.told.try_recv().is_ok() {}
        if let Some(end) = self.watch(due, &mut least_permille)? {
            return Ok(Err(end));
        }
        let mut told: BTreeMap<usize, Told> = BTreeMap::new();
        while let Ok((number, one)) = self.told.try_recv() {
            told.entry(number).or_default().add(&one);
        }
        let now = Memory::now()?;
        let mut charged_bytes = 0;
        for running in &self.running {
            charged_bytes += cgroup_number(vmm_of(running.run.id())?, "memory.current", "")?;
        }
        Ok(Ok(Step {
            vms: self.running.len(),
            at_s: self.began.elapsed().as_secs(),
            used_bytes: self.before.available.saturating_sub(now.available),
            charged_bytes,
            available_permille: now.permille(),
            least_permille: least_permille.min(now.permille()),
            told,
        }))
    }

    fn start(&mut self) -> Result<(), Failure> {
        let number = self.running.len() + 1;
        let (kind, name) = (Kind::of(number), format!("vm{number}"));
        let mut command = Command::new(self.programs.join("ballast"));
        command.args(["run", "--name", &name, "-m", &format!("{MEMORY_MIB}m")]);
        command.args(self.plan.arm.options(kind));
        command.args(["--reclaim", self.plan.arm.mode(), "-v", &format!("{name}:/work"), "density"]);
        let gain = self.plan.arm.gain().map(|gain| gain.to_string());
        if gain.is_some() {
            command.args(["sh", "-c", SWAP, "swap"]);
        }
        command.args(["/bench-density", "load", kind.name(), &number.to_string(), "/work"]).args(gain);
        let mut run =
            command.stdin(File::open("/dev/null")?).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = run.stdout.take().ok_or("a microVM has no output")?;
        let teller = self.teller.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens any more once the ramp has ended.
                let _ = Told::parse(&line).map(|told| teller.send((number, told)));
            }
        });
        let stderr = run.stderr.take();
        self.running.push(Running { run, stderr });
        Ok(())
    }

    /// Looks at the host and the microVMs until it is time.
    fn watch(&mut self, until: Instant, least_permille: &mut u64) -> Result<Option<End>, Failure> {
        while Instant::now() < until {
            sleep(LOOK);
            *least_permille = Memory::now()?.permille().min(*least_permille);
            if *least_permille < END_PERMILLE {
                return Ok(Some(End::Full));
            }
            let newest = self.running.len();
            for (number, running) in (1..).zip(&mut self.running) {
                if running.run.try_wait()?.is_none() {
                    continue;
                }
                let mut words = String::new();
                if let Some(stderr) = &mut running.stderr {
                    stderr.read_to_string(&mut words)?;
                }
                eprintln(&format!("vm{number} has ended: {words}"))?;
                let is_new = number == newest;
                return Ok(Some(if is_new { End::Refused(words.trim().into()) } else { End::Lost(number) }));
            }
        }
        Ok(None)
    }
}

/// Starts the daemon with that configuration and waits until it serves.
fn start_daemon(programs: &Path, configuration: &str) -> Result<Child, Failure> {
    const LIMIT: Duration = Duration::from_secs(30);
    fs::write("ballastd.toml", configuration)?;
    let child = Command::new(programs.join("ballastd")).args(["--config", "ballastd.toml"]).spawn()?;
    let state = std::env::var_os("BALLAST_STATE").ok_or("BALLAST_STATE is not set")?;
    let socket = Path::new(&state).join(balloon::control::fleet::SOCKET);
    let start = Instant::now();
    while !socket.exists() {
        if start.elapsed() > LIMIT {
            return Err(format!("ballastd makes no {}", socket.display()).into());
        }
        sleep(LOOK);
    }
    Ok(child)
}

fn write_line(output: &mut impl Write, line: &Line) -> Result<(), Failure> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    output.write_all(&text)?;
    Ok(output.flush()?)
}

fn describe(step: &Step) -> String {
    let mut text = format!(
        "{} microVMs after {} s: {} MiB used, {} MiB charged, {} permille available, at least {}",
        step.vms,
        step.at_s,
        step.used_bytes >> 20,
        step.charged_bytes >> 20,
        step.available_permille,
        step.least_permille
    );
    for kind in Kind::ALL {
        let told = step.of(kind, Age::Any);
        text += &format!(
            "; {} {} requests, p50 {:?} p99 {:?} us, stall {:.3} %, {:.1} refaults/s",
            kind.name(),
            told.took_us.len(),
            told.percentile_us(500).unwrap_or(0),
            told.percentile_us(990).unwrap_or(0),
            told.stall() * 100.0,
            told.refaults_per_second()
        );
    }
    text
}

fn eprintln(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{text}")
}
