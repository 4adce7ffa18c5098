//! A `ballastd` of a test's own.

use crate::ballast::{Ballast, program};
use crate::control::ask;
use crate::memory::MIB;
use crate::run::until;
use balloon::control::fleet::{SOCKET, TreeDocument};
use rustix::process::{Pid, Signal};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// A daemon that serves a test's state directory; killed when dropped.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Starts one with this configuration and waits until it answers.
    #[must_use]
    pub fn start(ballast: &Ballast, configuration: &str) -> Self {
        Self::run(ballast, &mut command(ballast, configuration))
    }

    /// Starts one that records to `trace`, as [`Self::start`].
    #[must_use]
    pub fn recording(ballast: &Ballast, configuration: &str, trace: &Path) -> Self {
        Self::run(ballast, command(ballast, configuration).arg("--record").arg(trace))
    }

    fn run(ballast: &Ballast, command: &mut Command) -> Self {
        let child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let daemon = Self { child, socket: ballast.path("state").join(SOCKET) };
        let answers =
            || ask(&daemon.socket, "GET", "/v1/host", "").is_ok_and(|(head, _)| head.contains(" 200 "));
        until(answers, || "ballastd does not answer".into());
        daemon
    }

    /// The zone tree.
    #[must_use]
    pub fn tree(&self) -> TreeDocument {
        let (head, content) = ask(&self.socket, "GET", "/v1/tree", "").unwrap();
        serde_json::from_str(&content).unwrap_or_else(|error| panic!("{error}: {head}\n{content}"))
    }

    /// Waits until the zone tree is as `is_so` wants.
    #[track_caller]
    pub fn wait_until(&self, is_so: impl Fn(&TreeDocument) -> bool) -> TreeDocument {
        let last = RefCell::new(None);
        let is_seen_to_be = || {
            let tree = self.tree();
            let is_so = is_so(&tree);
            *last.borrow_mut() = Some(tree);
            is_so
        };
        until(is_seen_to_be, || format!("it stays at {:#?}", last.borrow()));
        last.into_inner().unwrap()
    }

    /// The zone tree once each of these microVMs holds more than `least` bytes and gives nothing back by itself any more: what
    /// a guest has free besides it reports little by little.
    #[track_caller]
    #[must_use]
    pub fn at_rest(&self, vms: &[&str], least: u64) -> TreeDocument {
        let last = RefCell::new(None);
        let is_at_rest = || {
            let earlier = self.wait_until(|tree| vms.iter().all(|name| charge(tree, name) > least));
            // Two reports.
            thread::sleep(Duration::from_secs(4));
            let now = self.tree();
            let rests = |name: &&str| charge(&earlier, name).abs_diff(charge(&now, name)) < MIB;
            let is_at_rest = vms.iter().all(rests);
            *last.borrow_mut() = Some(now);
            is_at_rest
        };
        until(is_at_rest, || format!("they do not come to rest: {:#?}", last.borrow()));
        last.into_inner().unwrap()
    }

    /// Has microVM `name` be in the group at this path, as `ballast set --group` does.
    pub fn move_vm(&self, name: &str, group: &str) {
        let content = serde_json::json!({ "group": group }).to_string();
        let (head, said) = ask(&self.socket, "PUT", &format!("/v1/vms/{name}/group"), &content).unwrap();
        assert!(head.contains(" 200 "), "{head}\n{said}");
    }

    /// How many descriptors it has open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Has it read this configuration instead.
    pub fn reload(&self, ballast: &Ballast, configuration: &str) {
        configure(ballast, configuration);
        rustix::process::kill_process(self.pid(), Signal::HUP).unwrap();
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends it as a service manager does.
    pub fn end(mut self) {
        rustix::process::kill_process(self.pid(), Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// Kills it as SIGKILL does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that the first node of this name is charged with; 0 if there is none.
#[must_use]
pub fn charge(tree: &TreeDocument, name: &str) -> u64 {
    tree.nodes.iter().find(|node| node.name == name).map_or(0, |node| node.charge_bytes)
}

fn configure(ballast: &Ballast, configuration: &str) -> PathBuf {
    ballast.file("ballastd.toml", configuration.as_bytes())
}

/// `ballastd` with this configuration, not started.
#[must_use]
pub fn command(ballast: &Ballast, configuration: &str) -> Command {
    let mut command = Command::new(program("ballastd"));
    command.arg("--config").arg(configure(ballast, configuration));
    command.env("BALLAST_STATE", ballast.path("state")).stdin(Stdio::null()).stdout(Stdio::null());
    command
}
