//! Starts the workload, and commands beside it: the fork(2), and everything the child does to itself before it
//! becomes the user's program.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use proto::{FailureKind, Ulimit};
use rustix::fs::{Access, OFlags, access, fcntl_setfl};
use rustix::mount::mount_move;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, Uid, chdir, chroot, ioctl_tiocsctty, setsid};
use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::error::{Doing, Error, chain};
use crate::mount::FileSystem;
use crate::user::Identity;
use crate::{cgroup, layers, signals};

/// Everything about the process that is to be started.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Its arguments, the program's name first.
    pub args: &'a [CString],
    /// Where its program may be, in order.
    pub candidates: &'a [CString],
    /// Its environment.
    pub env: &'a [CString],
    /// Its working directory, which exists.
    pub directory: &'a CStr,
    /// Who it runs as.
    pub identity: &'a Identity,
    /// Its resource limits.
    pub limits: &'a [Ulimit],
    /// Its standard streams.
    pub streams: [OwnedFd; 3],
    /// Whether they are a terminal that is to control it.
    pub has_terminal: bool,
    /// cgroup.procs of its control group.
    pub cgroup: &'a File,
    /// The name spaces that it enters; `None` for new ones.
    pub place: Option<&'a Place>,
}

/// The name spaces of a process that runs.
#[derive(Debug)]
pub struct Place {
    pid: Pid,
    mounts: File,
    control_groups: File,
}

impl Place {
    /// Those of the process `pid`, which a process that has ended has no longer.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let open = |kind| File::open(format!("/proc/{}/ns/{kind}", pid.as_raw_nonzero()));
        Ok(Self { pid, mounts: open("mnt")?, control_groups: open("cgroup")? })
    }

    /// Moves the calling process there, to their root directory.
    fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.control_groups.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
        Ok(())
    }
}

/// Why there is no workload.
#[derive(Debug)]
pub struct Failure {
    /// Which exit code it gets.
    pub kind: FailureKind,
    /// What happened.
    pub error: Error,
}

impl Failure {
    /// What the child of [`Plan::fork`] reported; nothing if its program was executed.
    pub fn from_report(report: &[u8]) -> Option<Self> {
        let (code, words) = report.split_first()?;
        Some(Self { kind: kind_of(*code), error: Error::new(String::from_utf8_lossy(words)) })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { kind: FailureKind::Setup, error }
    }
}

impl Plan<'_> {
    /// Starts it. When this returns its process id, the user's program was executed.
    ///
    /// Consumes the plan, and with it the agent's copies of the workload's streams.
    pub fn start(self) -> Result<Pid, Failure> {
        let (pid, mut reader) = self.fork_with(OFlags::empty())?;
        let mut report = Vec::new();
        // The pipe closes without a word when the program is executed.
        reader.read_to_end(&mut report).doing(|| "waiting for the workload's start")?;
        Failure::from_report(&report).map_or(Ok(pid), Err)
    }

    /// Begins to start it. What the file gives to its end, without blocking, is for [`Failure::from_report`].
    pub fn fork(self) -> Result<(Pid, File), Failure> {
        self.fork_with(OFlags::NONBLOCK)
    }

    fn fork_with(self, flags: OFlags) -> Result<(Pid, File), Failure> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).doing(|| "making a pipe")?;
        // SAFETY: the agent has one thread, so the child may go on as if nothing had happened.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()).doing(|| "making a process for the workload")?,
            0 => {
                drop(reader);
                self.report_failure(writer)
            }
            pid => {
                drop(writer);
                fcntl_setfl(&reader, OFlags::RDONLY | flags).doing(|| "waiting for the workload's start")?;
                let pid =
                    Pid::from_raw(pid).ok_or_else(|| Error::new("making a process for the workload"))?;
                Ok((pid, reader.into()))
            }
        }
    }

    /// In the child: becomes the workload, or says why not and ends.
    fn report_failure(&self, report: OwnedFd) -> ! {
        let Err(failure) = self.become_workload();
        let words = chain(&failure.error);
        let _ = File::from(report).write_all(&[&[failure.kind.shell_code()], words.as_bytes()].concat());
        // SAFETY: ends the child without running what the agent registered to run at its own end.
        unsafe { libc::_exit(1) }
    }

    fn become_workload(&self) -> Result<Infallible, Failure> {
        self.leave_agent()?;
        match self.place {
            Some(place) => place.enter().doing(|| "entering the workload's name spaces")?,
            None => make_place()?,
        }
        setsid().doing(|| "starting a session")?;
        self.take_streams().doing(|| "setting the standard streams")?;
        for limit in self.limits {
            set_limit(limit).doing(|| format!("setting the limit {}", limit.resource.name()))?;
        }
        self.take_identity().doing(|| "changing to the user")?;
        chdir(self.directory)
            .doing(|| format!("changing to the directory {}", self.directory.to_string_lossy()))?;
        signals::unblock_all().doing(|| "unblocking signals")?;
        self.execute()
    }

    /// Gives up the agent's privileges before other processes.
    fn leave_agent(&self) -> Result<(), Error> {
        let moved = rustix::io::write(self.cgroup, b"0").map(drop).map_err(io::Error::from);
        let moved = match (moved, self.place) {
            // Whoever divides its group among others, as systemd does and docker, has no process there itself (cgroups(7),
            // "no internal processes").
            (Err(error), Some(place)) if error.kind() == ErrorKind::ResourceBusy => cgroup::join(place.pid),
            (moved, _) => moved,
        };
        moved.doing(|| "moving the workload into its cgroup")?;
        std::fs::write("/proc/self/oom_score_adj", "0").doing(|| "exposing the workload to the OOM killer")
    }

    fn take_streams(&self) -> io::Result<()> {
        let [stdin, stdout, stderr] = &self.streams;
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        if self.has_terminal {
            ioctl_tiocsctty(stdin.as_fd())?;
        }
        Ok(())
    }

    fn take_identity(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(self.identity.uid), Gid::from_raw(self.identity.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        Ok(set_thread_res_uid(uid, uid, uid)?)
    }

    /// Tries the candidates as execvp(3) does: what is not there is passed over, a file that may not be
    /// executed is remembered, anything else is the answer.
    fn execute(&self) -> Result<Infallible, Failure> {
        let (args, env) = (pointers(self.args), pointers(self.env));
        let mut forbidden = None;
        for path in self.candidates {
            // SAFETY: path, args and env are NUL-terminated strings and NULL-terminated arrays that live on.
            unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => forbidden = Some((path, error)),
                _ => return not_executable(path, error),
            }
        }
        if let Some((path, error)) = forbidden {
            return not_executable(path, error);
        }
        let name = self.args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let present = self.candidates.iter().find(|path| access(path.as_c_str(), Access::EXISTS).is_ok());
        let words = match present {
            Some(path) => {
                format!("{} is there, but the interpreter that it names is not", path.to_string_lossy())
            }
            None if name.contains('/') => format!("{name}: no such file"),
            None => format!("{name}: not found in the PATH of the workload"),
        };
        Err(Failure { kind: FailureKind::NotFound, error: Error::new(words) })
    }
}

fn not_executable(path: &CStr, error: io::Error) -> Result<Infallible, Failure> {
    Err(error)
        .doing(|| format!("executing {}", path.to_string_lossy()))
        .map_err(|error| Failure { kind: FailureKind::NotExecutable, error })
}

/// Gets name spaces of its own: what the workload mounts or unmounts does not reach the agent.
fn make_place() -> Result<(), Error> {
    // SAFETY: without UnshareFlags::FILES no file descriptor is affected.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP) }
        .doing(|| "making name spaces for the workload")?;
    enter_root().doing(|| "entering the root")?;
    // Of the control groups the workload sees its own, so that runtimes find their limits there.
    FileSystem { kind: "cgroup2", ..FileSystem::default() }
        .mount("/sys/fs/cgroup")
        .doing(|| "mounting cgroup2 in the root")?;
    Ok(())
}

/// Makes the root that was put together the root directory, as switch_root(8) does.
fn enter_root() -> io::Result<()> {
    chdir(layers::ROOT)?;
    mount_move(".", "/")?;
    chroot(".")?;
    Ok(chdir("/")?)
}

fn set_limit(limit: &Ulimit) -> io::Result<()> {
    let values = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: setrlimit(2) reads the values, which outlive the call.
    match unsafe { libc::setrlimit(limit.resource.number().into(), &raw const values) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The strings as execve(2) takes them.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

fn kind_of(code: u8) -> FailureKind {
    [FailureKind::NotFound, FailureKind::NotExecutable]
        .into_iter()
        .find(|kind| kind.shell_code() == code)
        .unwrap_or(FailureKind::Setup)
}
