//! A run on a terminal: this side is the person at the keyboard.

use crate::run::{limit, until, wait_for};
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;

/// A process on a terminal.
pub struct Terminal {
    child: Child,
    /// The keyboard and the screen.
    person: File,
    /// The other side, kept open so that its settings can be looked at after the end.
    line: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub(crate) fn start(mut command: Command, rows: u16, columns: u16) -> Self {
        let person =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&person).unwrap();
        rustix::pty::unlockpt(&person).unwrap();
        let name = rustix::pty::ptsname(&person, Vec::new()).unwrap();
        let name = std::ffi::OsStr::from_bytes(name.as_bytes());
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let line = std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, 0o400 /* O_NOCTTY */)
            .open(name)
            .unwrap();
        let person = File::from(person);
        set_size(&person, rows, columns);

        let ends = [(); 3].map(|()| line.try_clone().unwrap());
        let [stdin, stdout, stderr] = ends;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        // SAFETY: between fork and exec only two system calls are made; neither allocates nor locks.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shared = screen.clone();
        let mut reader = person.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                shared.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, person, line, screen }
    }

    /// Types.
    pub fn types(&mut self, keys: &str) {
        self.person.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen shows `text`.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        let child = std::cell::RefCell::new(&mut self.child);
        wait_for(text, &self.screen, || child.borrow_mut().try_wait().unwrap().is_some(), String::new);
    }

    /// Changes the window's size; the kernel tells the foreground processes.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.person, rows, columns);
    }

    /// Whether lines are edited and echoed, as a shell expects to find its terminal.
    #[must_use]
    pub fn is_cooked(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.line).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// The process of `ballast`.
    #[must_use]
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits for the end and expects this exit code; a signal's number, negative, if that ended it.
    #[track_caller]
    pub fn exits(&mut self, code: i32) {
        let ended = std::cell::Cell::new(None);
        let child = std::cell::RefCell::new(&mut self.child);
        let screen = || String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned();
        until(
            || {
                ended.set(child.borrow_mut().try_wait().unwrap());
                ended.get().is_some()
            },
            || format!("no end in {:?}; the screen:\n{}", limit(), screen()),
        );
        let status = ended.get().unwrap();
        let found = status.code().unwrap_or_else(|| -status.signal().unwrap());
        assert_eq!(found, code, "exit code; the screen:\n{}", screen());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}
