//! A run under way, seen from the terminal: signals go to the VMM, reports come back, and its end becomes words and an
//! exit code.

use super::format::printable;
use super::host_cgroup::Ending;
use super::launch::Vmm;
use super::output::eprint;
use super::signals::Signals;
use super::terminal;
use crate::report::{self, MAX_BYTES, Milestone, Outcome, Report, Request};
use balloon::size::Size;
use rustix::event::{PollFd, PollFlags};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};

/// A running VMM and what it said so far.
#[derive(Debug)]
pub struct Session {
    vmm: Vmm,
    /// Points on the way to the workload's first instruction.
    pub milestones: Vec<Milestone>,
    /// How it ended, once that is known.
    pub outcome: Option<Outcome>,
    /// SIGINT and SIGTERM that the user sent.
    insistence: u32,
}

/// So many SIGINTs or SIGTERMs mean that the user will not wait for the workload, as with docker.
const INSISTENCE: u32 = 3;

impl Session {
    /// A VMM that was just started.
    #[must_use]
    pub fn new(vmm: Vmm) -> Self {
        Self { vmm, milestones: Vec::new(), outcome: None, insistence: 0 }
    }

    /// Hands on signals and collects reports until the VMM has said its last word or is gone.
    ///
    /// # Errors
    /// The host does not let it wait.
    pub fn follow(&mut self, signals: &Signals) -> std::io::Result<()> {
        let mut buffer = vec![0; MAX_BYTES];
        loop {
            let mut waits =
                [PollFd::new(&self.vmm.control, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            match rustix::event::poll(&mut waits, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [control, signal] = waits.map(|wait| !wait.revents().is_empty());
            if signal {
                while let Some(number) = signals.next() {
                    self.on_signal(number);
                }
            }
            if control {
                match self.vmm.control.recv(&mut buffer) {
                    Ok(length @ 1..) => self.on_report(buffer.get(..length).unwrap_or_default()),
                    _ => return Ok(()),
                }
            }
            if self.outcome.is_some() {
                return Ok(());
            }
        }
    }

    /// Waits for the end of a VMM that has reported or is dead.
    ///
    /// # Errors
    /// The host does not let it wait.
    pub fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.vmm.child.wait()
    }

    fn on_signal(&mut self, signal: libc::c_int) {
        let request = match signal {
            libc::SIGWINCH => terminal::size().map(|(rows, cols)| Request::Resize { rows, cols }),
            _ => u8::try_from(signal).ok().map(|number| Request::Signal { number }),
        };
        if matches!(signal, libc::SIGINT | libc::SIGTERM) {
            self.insistence += 1;
            if self.insistence >= INSISTENCE {
                eprint("ballast: the workload does not end; killing its microVM\n");
                let _ = self.vmm.child.kill();
                self.outcome = u8::try_from(signal).ok().map(|signal| Outcome::Interrupted { signal });
                return;
            }
        }
        if let Some(text) = request.and_then(|request| serde_json::to_vec(&request).ok()) {
            // A VMM that is gone is noticed by its closed socket. One that is stopped must not stop this program,
            // whose third SIGTERM is to be heard.
            let _ = rustix::net::send(&self.vmm.control, &text, rustix::net::SendFlags::DONTWAIT);
        }
    }

    fn on_report(&mut self, text: &[u8]) {
        match serde_json::from_slice(text) {
            Ok(Report::Notice(text)) => eprint(&format!("ballast: {}\n", printable(&text))),
            Ok(Report::Milestone(milestone)) => self.milestones.push(milestone),
            Ok(Report::Ended(outcome)) => self.outcome = Some(outcome),
            Err(error) => log::warn!("cannot understand a report of ballast-vmm: {error}"),
        }
    }
}

/// Says what is left to say and gives the exit code. `outcome` is the VMM's last word, `vmm` how its process ended,
/// `ending` what the host's cgroup knows of that.
#[must_use]
pub fn conclude(outcome: Option<Outcome>, vmm: ExitStatus, ending: Option<Ending>) -> ExitCode {
    const FAILED: u8 = 125;
    const KERNEL_LINES: usize = 20;
    match outcome {
        Some(Outcome::Exited { code, out_of_memory_at_bytes }) => {
            if let Some(bytes) = out_of_memory_at_bytes {
                eprint(&format!(
                    "ballast: the guest ran out of memory and killed a process of the workload: it may use {}, its \
                     kernel included; raise -m, or a lower limit that was set since\n",
                    Size::from_bytes(bytes)
                ));
            }
            ExitCode::from(code)
        }
        Some(Outcome::NotStarted { code, message }) => {
            eprint(&format!("ballast: {}\n", printable(&message)));
            ExitCode::from(code)
        }
        Some(Outcome::Interrupted { signal }) => ExitCode::from(signal.saturating_add(128)),
        Some(Outcome::Failed { message, kernel_log }) => {
            eprint(&format!("ballast: {}\n", printable(&message)));
            for line in report::telling(&kernel_log, KERNEL_LINES) {
                eprint(&format!("  {}\n", printable(line.trim_end())));
            }
            ExitCode::from(FAILED)
        }
        None if vmm.success() => {
            eprint("ballast: ballast-vmm ended without a word; please report it\n");
            ExitCode::from(FAILED)
        }
        // It could not even start and has said why.
        None if vmm.code() == Some(i32::from(FAILED)) => ExitCode::from(FAILED),
        None if vmm.signal() == Some(libc::SIGSYS) => {
            eprint("ballast: the VMM made a system call that its seccomp filter forbids; please report it\n");
            ExitCode::from(FAILED)
        }
        None => {
            eprint(&format!("ballast: the microVM was killed ({vmm}){}\n", why_killed(ending)));
            let signal = vmm.signal().and_then(|signal| u8::try_from(signal).ok()).unwrap_or(9);
            ExitCode::from(signal.saturating_add(128))
        }
    }
}

fn why_killed(ending: Option<Ending>) -> String {
    match ending {
        Some(Ending::Limit { bytes }) => format!(
            ": it reached its limit on the host, {}, which is the guest's memory, its image and room for the VMM. If \
             somebody lowered it, raise it again, or -m; if not, please report it",
            Size::from_bytes(bytes)
        ),
        Some(Ending::Host) => {
            ": the host was out of memory, or a cgroup above the microVM's: give guests less (-m), run \
                               fewer, or add memory or swap"
                .into()
        }
        None => "; was the host out of memory?".into(),
    }
}
