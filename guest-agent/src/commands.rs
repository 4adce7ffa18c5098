//! Commands beside the workload: how they begin and who has which. Wiring; what each does is [`crate::command`]'s.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::Duration;

use proto::{CommandSpec, ExitStatus, MAX_COMMANDS, Piece, ToCommand, Ulimit};
use rustix::process::Pid;

use crate::cgroup::Workload;
use crate::command::{Command, Turn, fail};
use crate::error::{Error, chain};
use crate::link::Link;
use crate::root::Root;
use crate::workload::{Failure, Place, Plan};
use crate::{environment, script, stdio};

/// What a command has from the workload.
#[derive(Debug)]
pub struct Base<'a> {
    /// The workload's root.
    pub root: &'a Root,
    /// Its control groups.
    pub cgroup: &'a Workload,
    /// Its name spaces; `None` if it was gone at once.
    pub place: Option<Place>,
    /// Its environment.
    pub env: Vec<CString>,
    /// Its working directory.
    pub directory: CString,
    /// Its user.
    pub user: String,
    /// Its resource limits.
    pub limits: Vec<Ulimit>,
}

/// All commands under way.
#[derive(Debug)]
pub struct Commands<'a> {
    base: Base<'a>,
    all: Vec<Command>,
}

impl<'a> Commands<'a> {
    /// None yet, beside this workload.
    pub const fn new(base: Base<'a>) -> Self {
        Self { base, all: Vec::new() }
    }

    /// Starts a command. What becomes of it is told over `link`; `epoll` has `token` when there is something to do.
    pub fn begin(&mut self, id: u32, spec: &Piece, epoll: &OwnedFd, token: u64, link: &mut Link) {
        let begun = match self.all.len() {
            MAX_COMMANDS.. => Err(Error::new(format!("{MAX_COMMANDS} commands run already")).into()),
            _ => self.start(id, spec, epoll, token),
        };
        match begun {
            Ok(command) => self.all.push(command),
            Err(Failure { kind, error }) => fail(link, id, kind, &error),
        }
    }

    fn start(&self, id: u32, spec: &Piece, epoll: &OwnedFd, token: u64) -> Result<Command, Failure> {
        let spec = CommandSpec::decode(spec)
            .map_err(|error| Error::new(format!("the command: {}", chain(&error))))?;
        let Base { root, cgroup, place, env, directory, user, limits } = &self.base;
        let place = place.as_ref().ok_or_else(|| Error::new("the workload has ended"))?;
        let group = match spec.zone {
            None => None,
            zone => Some(
                cgroup.group(zone).ok_or_else(|| Error::new("there is no such zone"))?.open_processes()?,
            ),
        };
        let identity = script::identify(if spec.user.is_empty() { user } else { &spec.user }, root)?;
        let (ends, streams) = match spec.tty {
            Some(size) => stdio::terminal(root, identity.uid, size)?,
            None => stdio::pipes(identity.uid)?,
        };
        let env = environment::replace(env, spec.env);
        let env = environment::complete(env, &identity.home, "", spec.tty.is_some());
        let candidates = spec.args.first().map(|program| environment::candidates(program, &env));
        let plan = Plan {
            args: &spec.args,
            candidates: &candidates.unwrap_or_default(),
            env: &env,
            directory: if spec.cwd.is_empty() { directory } else { &spec.cwd },
            identity: &identity,
            limits,
            streams,
            has_terminal: spec.tty.is_some(),
            cgroup: group.as_ref().unwrap_or(cgroup.processes()),
            place: Some(place),
        };
        let (pid, report) = plan.fork()?;
        let command = Command::new(id, pid, report, ends);
        command.watch(epoll, token)?;
        Ok(command)
    }

    /// Says something to a command. One that is unknown has ended meanwhile.
    pub fn tell(&mut self, id: u32, message: ToCommand) {
        if let Some(command) = self.all.iter_mut().find(|command| command.id == id) {
            command.take(message);
        }
    }

    /// Nobody waits for a command any more: it is killed, with the processes of its group.
    pub fn close(&mut self, id: u32) {
        if let Some(at) = self.all.iter().position(|command| command.id == id) {
            self.all.swap_remove(at).kill();
        }
    }

    /// A child of the agent ended.
    pub fn reaped(&mut self, pid: Pid, status: ExitStatus) {
        // The number of one that has ended may be another's by now.
        if let Some(command) = self.all.iter_mut().find(|command| command.pid == pid && !command.has_ended())
        {
            command.ended(status);
        }
    }

    /// Moves what can be moved; says whether there may be more.
    pub fn run(&mut self, link: &mut Link) -> bool {
        let mut more = false;
        self.all.retain_mut(|command| match command.run(link) {
            Turn::Waits => true,
            Turn::More => {
                more = true;
                true
            }
            Turn::Over => false,
        });
        more
    }

    /// How long until [`Self::run`] is to be called though nothing is ready.
    pub fn wait(&self) -> Option<Duration> {
        self.all.iter().filter_map(Command::wait).min()
    }

    /// Forgets all: the workload has ended, and everything is being killed.
    pub fn clear(&mut self) {
        self.all.clear();
    }
}
