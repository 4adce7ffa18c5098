//! The limit on the size of files (`RLIMIT_FSIZE`: `ulimit -f`, systemd's `LimitFSIZE=`).

#![expect(unsafe_code, reason = "a signal is ignored")]

/// Has what is written beyond the limit fail with `EFBIG`, like any other write that fails: by default SIGXFSZ ends the
/// program. It holds for the programs that this one executes, too.
pub fn ignore_signal() {
    // SAFETY: nothing is called when it comes. The only error is a signal that there is not.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_write_beyond_it_is_an_error() {
        ignore_signal();
        let directory = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -f 0; exec dd if=/dev/zero of=file count=1"]).current_dir(&directory);
        let ended = shell.env("LC_ALL", "C").output().unwrap();
        let message = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(message.contains("File too large"), "{message}");
    }
}
