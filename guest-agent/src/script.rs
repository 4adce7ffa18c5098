//! The script of a run.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::io;

use proto::{FailureKind, Milestone, Resource, Spec, Text, ToHost, Ulimit};

use crate::commands::{Base, Commands};
use crate::duties::Duties;
use crate::ending::Outcome;
use crate::error::{Doing, Error};
use crate::link::Link;
use crate::memory::Memory;
use crate::modules::{self, Condition, Module};
use crate::orders::Orders;
use crate::port::{Port, StreamPorts};
use crate::root::Root;
use crate::sample::Sampler;
use crate::stdio::{self, AgentEnds};
use crate::supervise::Supervisor;
use crate::swap::Swap;
use crate::user::{self, Identity};
use crate::volumes::Mounted;
use crate::workload::{Failure, Place, Plan};
use crate::{cgroup, clock, early, environment, kernel_log, layers, signals, system, volumes};

/// Largest /etc/passwd or /etc/group that is looked into, in bytes.
const MAX_USER_FILE: u64 = 4 * 1024 * 1024;

/// From the first instruction to the last word.
///
/// # Errors
/// What kept the agent from talking to the host, or the host from being understood. All other failures
/// were told to the host.
pub fn run() -> Result<(), Error> {
    let started_us = clock::monotonic_us();
    early::mount_kernel_file_systems()?;
    early::expedite_rcu(true);
    early::open_standard_streams()?;
    early::protect()?;
    early::bound_free_lists();
    early::look_seldom_for_neighbours();
    let mut cgroup = cgroup::create()?;
    let modules = modules::list()?;
    let driver_failures = modules::load(&modules, Condition::Base);
    let loaded_us = clock::monotonic_us();

    let mut link = match Link::open() {
        Ok(link) => link,
        Err(error) => {
            driver_failures.iter().for_each(|failure| kernel_log::error(&crate::error::chain(failure)));
            return Err(error);
        }
    };
    greet(&mut link, started_us, loaded_us)?;
    driver_failures.iter().for_each(|failure| link.notice(failure));

    let mut volumes = Vec::new();
    let outcome = match serve(&mut link, &modules, &mut cgroup, &mut volumes) {
        Ok(outcome) => outcome,
        Err(failure) => {
            signals::kill_all();
            volumes::close(volumes);
            link.fail(failure.kind, &failure.error);
            link.finish();
            return Ok(());
        }
    };
    volumes::close(volumes).iter().for_each(|failure| link.notice(failure));
    match outcome {
        Outcome::Exited { status, stdout_bytes, stderr_bytes } => {
            let oom_killed = cgroup.was_oom_killed();
            link.send(&ToHost::Exited { status, oom_killed, stdout_bytes, stderr_bytes });
            link.finish();
            Ok(())
        }
        Outcome::HostLost(error) => {
            link.fail(FailureKind::Setup, &error);
            link.finish();
            Err(error)
        }
    }
}

fn greet(link: &mut Link, started_us: u64, loaded_us: u64) -> Result<(), Error> {
    let boot_id =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").doing(|| "reading the boot id")?;
    link.send(&ToHost::Hello {
        version: proto::VERSION,
        boot_id: parse_uuid(&boot_id).ok_or_else(|| Error::new("reading the boot id: it is no UUID"))?,
        kernel_release: Text::new(&rustix::system::uname().release().to_string_lossy()),
        agent_version: Text::new(env!("CARGO_PKG_VERSION")),
    });
    link.send(&ToHost::Milestone { milestone: Milestone::InitStarted, monotonic_us: started_us });
    link.send(&ToHost::Milestone { milestone: Milestone::ModulesLoaded, monotonic_us: loaded_us });
    Ok(())
}

/// From the spec to the workload's end.
fn serve(
    link: &mut Link,
    modules: &[Module],
    cgroup: &mut cgroup::Workload,
    mounted: &mut Vec<Mounted>,
) -> Result<Outcome, Failure> {
    let spec = link.receive_spec()?;
    link.milestone(Milestone::SpecReceived);
    if volumes::has_disks() {
        modules::load(modules, Condition::Disk).iter().for_each(|failure| link.notice(failure));
    }
    let ports = StreamPorts {
        stdin: Port::open(proto::STDIN_PORT)?,
        stdout: Port::open(proto::STDOUT_PORT)?,
        stderr: Port::open(proto::STDERR_PORT)?,
    };

    layers::mount(&spec.layers)?.iter().for_each(|notice| link.notice(notice));
    let root = Root::open(layers::ROOT).doing(|| "opening the root")?;
    system::mount_kernel_file_systems(&root)?;
    *mounted = volumes::mount(&spec.volumes, &root)?;
    system::set_hostname(&root, &spec.hostname)?.iter().for_each(|notice| link.notice(notice));
    system::bring_up_loopback()?;
    if let Err(failure) = early::remove_program() {
        link.notice(&failure);
    }
    let swap = spec.swap && modules::has(modules, Condition::Swap);
    if swap {
        modules::remove_files_but(modules, Condition::Swap);
    } else {
        modules::remove_files();
    }
    link.milestone(Milestone::RootMounted);

    cgroup.divide(&spec.zones, spec.zone)?;
    let children = signals::child_deaths().doing(|| "watching the workload")?;
    if let Some(limit) = spec.pids_limit {
        cgroup.limit_pids(limit)?;
    }
    let memory = Memory::new(cgroup, spec.memory_bytes)?;
    if spec.memory_max_bytes.is_some() {
        memory.limit(None, spec.memory_max_bytes)?;
    }
    let swap = swap.then(|| Swap::later(modules, spec.memory_bytes));
    let samples = spec.samples;
    let env = environment::complete(spec.env.clone(), b"/", &spec.hostname, false);
    let (directory, user) = (spec.cwd.clone(), spec.user.clone());
    let limits = with_default_limits(spec.ulimits.clone());
    link.milestone(Milestone::WorkloadPrepared);
    let (pid, ends) = start(spec, &root, cgroup)?;
    let directory = if directory.is_empty() { CString::from(c"/") } else { directory };
    let place = Place::of(pid).ok();
    let commands = Commands::new(Base { root: &root, cgroup, place, env, directory, user, limits });
    link.milestone(Milestone::WorkloadExecuted);
    early::expedite_rcu(false);
    link.send(&ToHost::Started { pid: pid.as_raw_nonzero().get().unsigned_abs() });
    let sampler = if samples { Sampler::new(swap) } else { None };
    let duties = Duties { orders: Orders::new(memory), sampler, commands };
    let supervisor = Supervisor::new(link, children, pid, ends, ports, duties)
        .doing(|| "watching the workload's streams")?;
    Ok(supervisor.run()?)
}

fn start(
    spec: Spec,
    root: &Root,
    cgroup: &cgroup::Workload,
) -> Result<(rustix::process::Pid, AgentEnds), Failure> {
    let identity = identify(&spec.user, root)?;
    let directory = if spec.cwd.is_empty() { CString::from(c"/") } else { spec.cwd };
    root.open_directory(directory.to_bytes())
        .map_err(io::Error::from)
        .doing(|| format!("making the working directory {}", directory.to_string_lossy()))?;
    let (ends, streams) = match spec.tty {
        Some(size) => stdio::terminal(root, identity.uid, size)?,
        None => stdio::pipes(identity.uid)?,
    };
    let env = environment::complete(spec.env, &identity.home, &spec.hostname, spec.tty.is_some());
    let candidates = spec.args.first().map(|program| environment::candidates(program, &env));
    let plan = Plan {
        args: &spec.args,
        candidates: &candidates.unwrap_or_default(),
        env: &env,
        directory: &directory,
        identity: &identity,
        limits: &with_default_limits(spec.ulimits),
        streams,
        has_terminal: spec.tty.is_some(),
        cgroup: cgroup.processes(),
        place: None,
    };
    Ok((plan.start()?, ends))
}

/// Who the user named `wanted` is in the root's own files.
pub fn identify(wanted: &str, root: &Root) -> Result<Identity, Error> {
    let file = |path: &str| {
        let content =
            root.read(path.as_bytes(), MAX_USER_FILE).doing(|| format!("reading the image's {path}"))?;
        Ok(content.unwrap_or_default())
    };
    user::resolve(wanted, &file("/etc/passwd")?, &file("/etc/group")?).map_err(Error::new)
}

/// Adds what a workload finds unless told otherwise: many open files for those who ask for them. The
/// kernel's own default of 4096 at most is from another age; these are systemd's and docker's.
fn with_default_limits(mut limits: Vec<Ulimit>) -> Vec<Ulimit> {
    if let Some(resource) = Resource::from_name("nofile")
        && !limits.iter().any(|limit| limit.resource == resource)
    {
        limits.push(Ulimit { resource, soft: 1024, hard: 524_288 });
    }
    limits
}

/// Reads a UUID in its usual notation.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<char> = text.trim().chars().filter(|c| *c != '-').collect();
    let bytes = digits.chunks_exact(2).map(|pair| match pair {
        [high, low] => u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok(),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids_are_read() {
        let id = parse_uuid("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(id[..4], [0x00, 0x11, 0x22, 0x33]);
        assert_eq!(id[15], 0xff);
        assert_eq!(parse_uuid("0011"), None);
        assert_eq!(parse_uuid("zz112233-4455-6677-8899-aabbccddeeff"), None);
    }

    #[test]
    fn a_given_limit_replaces_the_default() {
        let nofile = Resource::from_name("nofile").unwrap();
        let given = vec![Ulimit { resource: nofile, soft: 7, hard: 8 }];
        assert_eq!(with_default_limits(given.clone()), given);
        assert_eq!(with_default_limits(vec![])[0].resource, nofile);
    }
}
