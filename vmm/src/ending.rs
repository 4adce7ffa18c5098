//! How a run ended: the rules that turn what the agent said and how the machine stopped into an outcome. Pure.

#![forbid(unsafe_code)]

use crate::link::State;
use crate::machine::stop::Stop;
use crate::report::{Outcome, PANIC};

/// What the agent said of the workload's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code as a shell shows it.
    pub code: u8,
    /// The guest ran out of memory.
    pub oom_killed: bool,
    /// Guest memory that it could use.
    pub max_bytes: u64,
    /// Bytes of standard output and error that the workload wrote.
    pub bytes: [u64; 2],
}

/// What is known so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The agent's last word.
    pub exit: Option<Exit>,
    /// It was said long ago: output announced then and not come since never will.
    pub late: bool,
}

impl Ending {
    /// Whether all output that the agent announced is with its reader.
    #[must_use]
    pub fn delivered(&self, delivered: [u64; 2]) -> bool {
        self.exit.is_some_and(|exit| exit.bytes.iter().zip(delivered).all(|(said, is)| *said <= is))
    }

    /// How the run ended, if it did. `empty` says that the guest's queues hold no output.
    #[must_use]
    pub fn outcome(
        &self,
        stopped: Option<&Stop>,
        agent: State,
        delivered: [u64; 2],
        empty: bool,
        kernel_log: &str,
    ) -> Option<Outcome> {
        if let Some(exit) = self.exit {
            if self.delivered(delivered) {
                let max_bytes = exit.oom_killed.then_some(exit.max_bytes);
                return Some(Outcome::Exited { code: exit.code, out_of_memory_at_bytes: max_bytes });
            }
            let lost = exit.bytes.iter().zip(delivered).map(|(said, is)| said.saturating_sub(is));
            let lost = lost.fold(0, u64::saturating_add);
            return (empty && (self.late || stopped.is_some())).then(|| Outcome::Failed {
                message: format!(
                    "the workload ended with exit code {}, but {lost} bytes of its output never came",
                    exit.code
                ),
                kernel_log: kernel_log.into(),
            });
        }
        let stopped = stopped.filter(|_| empty)?;
        Some(Outcome::Failed { message: explain(stopped, agent, kernel_log), kernel_log: kernel_log.into() })
    }
}

/// Words for a machine that stopped without the agent's last word.
fn explain(stopped: &Stop, agent: State, kernel_log: &str) -> String {
    let when = match agent {
        State::Silent => "before its agent said a word; `ballast run --boot-log` shows how far it came",
        State::Preparing => "while it prepared the workload",
        State::Starting | State::Running | State::Over => "while the workload ran",
    };
    if let Some(panic) = panic_line(kernel_log) {
        if panic == DEADLOCKED {
            return format!(
                "the guest ran out of memory, and its kernel had nobody left to kill, {when}; raise -m, or a lower limit or \
                 ceiling that was set since"
            );
        }
        return format!("kernel panic in the guest {when}: {panic}");
    }
    match stopped {
        Stop::PowerOff => format!("the guest powered off {when}"),
        Stop::Reset => format!("the guest reset itself {when}"),
        Stop::TripleFault(at) => format!("the guest's CPU stopped on a triple fault {when} ({at})"),
        Stop::HostMemory(why) => {
            format!(
                "the host could not give the guest memory {when} ({why}): free memory on the host or lower -m"
            )
        }
        Stop::Device(why) => format!("the guest was stopped {when}: {why}"),
        Stop::Kvm(why) => format!(
            "the host cannot run the guest: {why} ({when}); `ballast doctor` says what the host lacks"
        ),
    }
}

fn panic_line(kernel_log: &str) -> Option<&str> {
    let line = kernel_log.lines().find(|line| line.contains(PANIC))?;
    let (_, reason) = line.split_once(PANIC)?;
    let end = reason.char_indices().nth(LONGEST_REASON).map_or(reason.len(), |(index, _)| index);
    reason.get(..end).map(str::trim)
}

/// The panic of a kernel that is out of memory when all that it may kill is killed (mm/oom_kill.c).
const DEADLOCKED: &str = "System is deadlocked on memory";

/// Characters of a panic's reason that are shown: the kernel's own are shorter, and anybody in the guest may
/// write to its log.
const LONGEST_REASON: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: Exit = Exit { code: 7, oom_killed: false, max_bytes: 1 << 28, bytes: [100, 5] };

    fn failed(ending: Ending, stop: &Stop, log: &str) -> String {
        match ending.outcome(Some(stop), State::Running, [0, 0], true, log) {
            Some(Outcome::Failed { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_guest_died_of_is_the_workload_s_from_its_start_on() {
        let stop = Stop::PowerOff;
        for (agent, when) in [
            (State::Silent, "before its agent said a word"),
            (State::Preparing, "while it prepared the workload"),
            (State::Starting, "while the workload ran"),
            (State::Running, "while the workload ran"),
        ] {
            let said = explain(&stop, agent, "");
            assert!(said.contains(when), "{said}");
        }
    }

    #[test]
    fn an_exit_waits_for_its_output() {
        let ending = Ending { exit: Some(EXIT), late: false };
        assert_eq!(ending.outcome(None, State::Over, [99, 5], true, ""), None);
        let exited = Some(Outcome::Exited { code: 7, out_of_memory_at_bytes: None });
        assert_eq!(ending.outcome(None, State::Over, [100, 5], false, ""), exited);
        assert_eq!(ending.outcome(Some(&Stop::PowerOff), State::Over, [9, 5], false, ""), None);
        let lost = ending.outcome(Some(&Stop::PowerOff), State::Over, [9, 5], true, "");
        let Some(Outcome::Failed { message, .. }) = lost else { panic!("{lost:?}") };
        assert!(message.contains("91 bytes"), "{message}");
    }

    #[test]
    fn a_guest_that_ran_out_of_memory_is_told_with_its_limit() {
        let exit = Exit { code: 137, oom_killed: true, bytes: [0, 0], ..EXIT };
        let outcome = Ending { exit: Some(exit), late: false }.outcome(None, State::Over, [0, 0], true, "");
        assert_eq!(outcome, Some(Outcome::Exited { code: 137, out_of_memory_at_bytes: Some(1 << 28) }));
    }

    #[test]
    fn an_agent_that_announces_too_much_is_not_waited_for() {
        let ending = Ending { exit: Some(Exit { bytes: [u64::MAX, 0], ..EXIT }), late: true };
        assert!(ending.outcome(None, State::Over, [0, 0], true, "").is_some());
    }

    #[test]
    fn stops_are_told_apart() {
        let none = Ending::default();
        assert!(failed(none, &Stop::PowerOff, "").contains("powered off"));
        assert!(failed(none, &Stop::Reset, "").contains("reset itself"));
        assert!(failed(none, &Stop::TripleFault("ip 0x0".into()), "").contains("triple fault"));
        let log = "[ 1.0] Kernel panic - not syncing: Attempted to kill init!\n[ 1.1] CPU: 0";
        assert_eq!(
            failed(none, &Stop::Reset, log),
            "kernel panic in the guest while the workload ran: Attempted to kill init!"
        );
        let log = "[ 22.4] Kernel panic - not syncing: System is deadlocked on memory\n[ 22.4] CPU: 0";
        assert_eq!(
            failed(none, &Stop::Reset, log),
            "the guest ran out of memory, and its kernel had nobody left to kill, while the workload ran; raise -m, or a \
             lower limit or ceiling that was set since"
        );
    }
}
