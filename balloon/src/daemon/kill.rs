//! Kills a microVM, and leaves word of why for whoever looks after it. Wiring: who it is says the
//! [`Fleet`](super::fleet::Fleet).

#![forbid(unsafe_code)]

use super::arbitration::Condemned;
use super::host;
use crate::state;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Kills it, whose directory is in `vms`. One that is dead already stays so: numbers of processes are used again, so the
/// process is held by a descriptor and then known by its start.
///
/// # Errors
/// The host refuses.
pub fn kill(vms: &Path, condemned: &Condemned) -> io::Result<()> {
    let Some(pid) = i32::try_from(condemned.process.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        process => process?,
    };
    if !host::is_alive(condemned.process) {
        return Ok(());
    }
    // A full disk keeps nobody alive.
    let word = vms.join(&condemned.name).join(state::KILLED);
    if let Err(error) = leave_word(&word, &condemned.reason) {
        log::warn!("cannot leave word of why microVM '{}' is killed: {error}", condemned.name);
    }
    match pidfd_send_signal(process, Signal::KILL) {
        Ok(()) => Ok(()),
        Err(error) => {
            // Whatever ends it, it is not this.
            let _ = std::fs::remove_file(&word);
            if error == rustix::io::Errno::SRCH { Ok(()) } else { Err(error.into()) }
        }
    }
}

fn leave_word(path: &Path, reason: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    file.write_all(reason.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::host::{Process, status};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn who_is_meant_is_killed_and_nobody_else() {
        let vms = tempfile::tempdir().unwrap();
        std::fs::create_dir(vms.path().join("a")).unwrap();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = status(child.id()).unwrap().process;
        let condemned = |process| Condemned { name: "a".into(), process, reason: "it is the last".into() };
        let another = Process { start_ticks: process.start_ticks + 1, ..process };
        kill(vms.path(), &condemned(another)).unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        let word = vms.path().join("a").join(state::KILLED);
        assert!(!word.exists());
        kill(vms.path(), &condemned(process)).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(std::fs::read_to_string(word).unwrap(), "it is the last");
        kill(vms.path(), &condemned(process)).unwrap();
    }
}
