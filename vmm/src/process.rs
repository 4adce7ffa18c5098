//! Child processes that do not outlive this one, however it ends.
//!
//! A command line that is killed must leave nothing running, and what runs on would write into a workspace that
//! the next import sweeps.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Lets the kernel kill the child when the thread that starts it ends.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes one system call, which a child of a threaded process may do, and touches no memory.
    unsafe { command.pre_exec(die_with_parent_self) }
}

/// The same for the calling process. Entering a user namespace may undo it.
///
/// # Errors
/// That of `prctl`.
pub fn die_with_parent_self() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_child_of_a_dead_parent_dies() {
        // The thread that starts the child stands for the parent.
        let pid = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("1000").stdin(Stdio::null());
            die_with_parent(&mut command).spawn().unwrap()
        });
        let mut child = pid.join().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(!status.success());
                break;
            }
            assert!(Instant::now() < deadline, "it lives on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
