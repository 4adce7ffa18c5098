//! A run under way, seen from the terminal: signals go to the VMM, reports come back, and its end becomes words and an
//! exit code.

use super::format::printable;
use super::host_cgroup::Ending;
use super::launch::Vmm;
use super::output::eprint;
use super::signals::{self, Signals};
use super::supervisor::Logging;
use super::{FAILED, terminal};
use crate::report::{self, MAX_BYTES, Milestone, Outcome, Report, Request};
use balloon::size::Size;
use rustix::event::{PollFd, PollFlags};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

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

    /// Hands on signals and collects reports until the VMM has said its last word or is gone. Who logs is told when
    /// the workload has started, and ends it if nobody waits for that any more.
    ///
    /// # Errors
    /// The host does not let it wait.
    pub fn follow(&mut self, signals: &Signals, mut logging: Option<&mut Logging>) -> std::io::Result<()> {
        let mut buffer = vec![0; MAX_BYTES];
        loop {
            let waiting = logging.as_ref().and_then(|logging| logging.waiting());
            let mut waits =
                vec![PollFd::new(&self.vmm.control, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            waits.extend(waiting.map(|waiting| PollFd::from_borrowed_fd(waiting, PollFlags::empty())));
            match rustix::event::poll(&mut waits, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = waits.iter().map(|wait| !wait.revents().is_empty());
            let mut is_ready = || ready.next().unwrap_or_default();
            let (control, signal, abandoned) = (is_ready(), is_ready(), is_ready());
            if abandoned {
                self.kill(libc::SIGHUP);
                return Ok(());
            }
            if signal {
                while let Some(number) = signals.next() {
                    self.on_signal(number);
                }
            }
            if control {
                match self.vmm.control.recv(&mut buffer) {
                    Ok(length @ 1..) => {
                        let started = self.on_report(buffer.get(..length).unwrap_or_default());
                        if let (true, Some(logging)) = (started, logging.as_mut()) {
                            logging.started();
                        }
                    }
                    // A VMM that has ended without reading our last word leaves that error before its own, once (unix(7)).
                    Err(error)
                        if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionReset) => {}
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

    /// Ends the microVM at once: as if `signal` had ended its workload.
    fn kill(&mut self, signal: libc::c_int) {
        let _ = self.vmm.child.kill();
        self.outcome = u8::try_from(signal).ok().map(|signal| Outcome::Interrupted { signal });
    }

    fn on_signal(&mut self, signal: libc::c_int) {
        if signal == signals::kill() {
            return self.kill(libc::SIGKILL);
        }
        let request = match signal {
            libc::SIGWINCH => terminal::size().map(|(rows, cols)| Request::Resize { rows, cols }),
            _ => u8::try_from(signal).ok().map(|number| Request::Signal { number }),
        };
        if matches!(signal, libc::SIGINT | libc::SIGTERM) {
            self.insistence += 1;
            if self.insistence >= INSISTENCE {
                eprint("ballast: the workload does not end; killing its microVM\n");
                return self.kill(signal);
            }
        }
        if let Some(text) = request.and_then(|request| serde_json::to_vec(&request).ok()) {
            // A VMM that is gone is noticed by its closed socket. One that is stopped must not stop this program,
            // whose third SIGTERM is to be heard.
            let _ = rustix::net::send(&self.vmm.control, &text, rustix::net::SendFlags::DONTWAIT);
        }
    }

    /// Takes a report; says whether it is that the workload has started.
    fn on_report(&mut self, text: &[u8]) -> bool {
        match serde_json::from_slice(text) {
            Ok(Report::Started) => return true,
            Ok(Report::Notice(text)) => eprint(&format!("ballast: {}\n", printable(&text))),
            Ok(Report::Milestone(milestone)) => self.milestones.push(milestone),
            Ok(Report::Ended(outcome)) => self.outcome = Some(outcome),
            Err(error) => log::warn!("cannot understand a report of ballast-vmm: {error}"),
        }
        false
    }
}

impl Drop for Session {
    /// A VMM that is not followed to its end would wait for this process, and this process for what it may still say.
    fn drop(&mut self) {
        // After its end this is an error, and none of ours.
        let _ = self.vmm.child.kill();
    }
}

/// What a run comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The exit code.
    pub code: u8,
    /// Lines for the user; often none.
    pub words: String,
}

impl Conclusion {
    /// One that needs no words.
    #[must_use]
    pub fn quiet(code: u8) -> Self {
        Self { code, words: String::new() }
    }

    fn new(code: u8, words: &str) -> Self {
        Self { code, words: format!("ballast: {words}\n") }
    }
}

/// What there is to say of a run that has ended. `outcome` is the VMM's last word, `vmm` how its process ended, `ending`
/// what the host's cgroup knows of that.
#[must_use]
pub fn conclude(outcome: Option<Outcome>, vmm: ExitStatus, ending: Option<Ending>) -> Conclusion {
    const KERNEL_LINES: usize = 20;
    match outcome {
        Some(Outcome::Exited { code, out_of_memory_at_bytes: Some(bytes) }) => Conclusion::new(
            code,
            &format!(
                "the guest ran out of memory and killed a process of the workload: it may use {}, its kernel \
                 included; raise -m, or a lower limit that was set since, of it or of a zone",
                Size::from_bytes(bytes)
            ),
        ),
        Some(Outcome::Exited { code, out_of_memory_at_bytes: None }) => Conclusion::quiet(code),
        Some(Outcome::NotStarted { code, message }) => Conclusion::new(code, &printable(&message)),
        Some(Outcome::Interrupted { signal }) => Conclusion::quiet(signal.saturating_add(128)),
        Some(Outcome::Failed { message, kernel_log }) => {
            let mut conclusion = Conclusion::new(FAILED, &printable(&message));
            for line in report::telling(&kernel_log, KERNEL_LINES) {
                conclusion.words.push_str(&format!("  {}\n", printable(line.trim_end())));
            }
            conclusion
        }
        None if vmm.success() => {
            Conclusion::new(FAILED, "ballast-vmm ended without a word; please report it")
        }
        // It could not even start and has said why.
        None if vmm.code() == Some(i32::from(FAILED)) => Conclusion::quiet(FAILED),
        None if vmm.signal() == Some(libc::SIGSYS) => Conclusion::new(
            FAILED,
            "the VMM made a system call that its seccomp filter forbids; please report it",
        ),
        None => {
            let signal = vmm.signal().and_then(|signal| u8::try_from(signal).ok()).unwrap_or(9);
            let words = if ending.is_none() && FAULTS.contains(&i32::from(signal)) {
                format!("the VMM failed ({vmm}); please report it")
            } else {
                format!("the microVM was killed ({vmm}){}", why_killed(ending))
            };
            Conclusion::new(signal.saturating_add(128), &words)
        }
    }
}

/// What a program does to itself, and the host to nobody who is sound.
const FAULTS: [i32; 3] = [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE];

fn why_killed(ending: Option<Ending>) -> String {
    match ending {
        Some(Ending::Daemon { why }) => format!(
            " by ballastd: {}. Protect it (--memory-min, --memory-low, `ballast set --weight`), give guests less, or add memory or swap; \
             `kill` in ballastd's configuration says whether it does so",
            printable(&why)
        ),
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn the_last_word_of_a_vmm_that_did_not_read_ours_is_heard() {
        let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair().unwrap();
        let child = std::process::Command::new("true").spawn().unwrap();
        let mut session = Session::new(Vmm { child, control: UnixDatagram::from(ours) });
        session.on_signal(libc::SIGTERM);
        let word = Outcome::Interrupted { signal: 15 };
        let report = serde_json::to_vec(&Report::Ended(word.clone())).unwrap();
        send(&theirs, &report, SendFlags::empty()).unwrap();
        drop(theirs);
        session.follow(&Signals::block().unwrap(), None).unwrap();
        assert_eq!(session.outcome, Some(word));
    }
}
