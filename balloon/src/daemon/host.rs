//! What the host says of itself and of processes: `proc(5)`. Wiring around parsers that are pure.

#![forbid(unsafe_code)]

use super::descriptors;
use crate::policy::fleet::{Host, kib};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How the cgroups of microVMs' VMMs are called; a name follows.
const VM_CGROUP: &str = "vm-";

/// What is read of a file at most. The longest is `/proc/PID/maps` of a VMM, which has up to twice
/// 16384 mappings of guest memory ([`crate::backing`]), of 200 bytes with their names.
const MOST_BYTES: u64 = 8 << 20;
/// Most files of proc(5) come whole in one call with so much room. They state no size, and are made anew piece by piece for
/// who asks for pieces.
const ROOM_BYTES: usize = 4096;

/// A process that no other one is taken for: numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the host did.
    pub start_ticks: u64,
}

/// What the host holds for a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Memory that no other process has: its anonymous pages and its page tables. Of a VMM guest memory above all.
    pub private_bytes: u64,
    /// Memory of its own that is in swap.
    pub swapped_bytes: u64,
    /// Pages of files that it maps, whoever else does, those of tmpfs among them.
    pub file_bytes: u64,
}

/// A process and who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The process.
    pub process: Process,
    /// Number of its parent.
    pub parent: u32,
}

/// What there is of the process `pid`. A dead one whose parent has not waited for it yet is none.
#[must_use]
pub fn status(pid: u32) -> Option<Status> {
    parse_stat(pid, &of_process(pid, "stat").ok()?)
}

/// Whether the process lives, which it does as long as the host does not deny it: one that has no descriptor left to look
/// does not know.
#[must_use]
pub fn is_alive(process: Process) -> bool {
    match of_process(process.pid, "stat") {
        Ok(text) => parse_stat(process.pid, &text).is_some_and(|status| status.process == process),
        Err(error) => !is_denied(&error),
    }
}

/// What the host holds for it, none when it is dead; nothing if the host does not say.
#[must_use]
pub fn held(process: Process) -> Option<Held> {
    let status = of_process(process.pid, "status");
    if !is_alive(process) {
        return Some(Held::default());
    }
    status.ok().map(|text| parse_status(&text))
}

/// A process that is looked at again and again. A file of it that stays open is its own for ever, so that a look is one
/// reading, and of nobody else.
#[derive(Debug)]
pub struct Watched {
    process: Process,
    /// Nothing where descriptors are few.
    status: Option<File>,
}

impl Watched {
    /// Begins to watch it, who lives.
    #[must_use]
    pub fn new(process: Process) -> Self {
        let file = File::open(format!("/proc/{}/status", process.pid)).ok();
        let file = file.filter(|file| descriptors::are_plenty(file));
        // Between the two its number may have become another's.
        let is_its_own = |_: &File| status(process.pid).is_some_and(|status| status.process == process);
        Self { process, status: file.filter(is_its_own) }
    }

    /// Who it is.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// As [`held`].
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        let mut text = [0; ROOM_BYTES];
        match self.status.as_ref().map(|status| status.read_at(&mut text, 0)) {
            Some(Ok(bytes)) if bytes < ROOM_BYTES => {
                Some(parse_status(&String::from_utf8_lossy(text.get(..bytes)?)))
            }
            Some(Err(error)) if is_denied(&error) => Some(Held::default()),
            _ => held(self.process),
        }
    }
}

fn of_process(pid: u32, file: &str) -> io::Result<String> {
    read(format!("/proc/{pid}/{file}"))
}

/// What a file of proc(5) or of a cgroup says, all of it.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(ROOM_BYTES);
    let bytes = File::open(path)?.take(MOST_BYTES).read_to_string(&mut text)?;
    if bytes as u64 == MOST_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// Whether that is the host's word that there is no such process (proc(5)).
fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

/// Bytes of files that the host charges a microVM's VMM for, as it touched them first; nothing where it has no cgroup of
/// its own below `cgroups`.
#[must_use]
pub fn charged_file_bytes(process: Process, cgroups: Option<&Path>) -> u64 {
    let cgroup = of_process(process.pid, "cgroup").unwrap_or_default();
    let statistics = own_cgroup(&cgroup).zip(cgroups).map(|(own, mount)| mount.join(own).join("memory.stat"));
    let text = statistics.and_then(|path| read(path).ok()).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("file ")?.trim().parse().ok());
    value.unwrap_or(0)
}

/// The cgroup of a process, below the hierarchy's top, if it is one that `ballast` made for one VMM alone.
fn own_cgroup(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let is_above = path.split('/').any(|part| part == "..");
    path.rsplit('/').next().filter(|name| name.starts_with(VM_CGROUP) && !is_above).map(|_| path)
}

/// Where cgroup v2 is mounted, if it is.
#[must_use]
pub fn cgroups() -> Option<PathBuf> {
    cgroup_mount(&read("/proc/self/mountinfo").unwrap_or_default())
}

/// The same by `/proc/self/mountinfo`.
fn cgroup_mount(text: &str) -> Option<PathBuf> {
    let mount = text.lines().find(|line| line.contains(" - cgroup2 "))?;
    mount.split(' ').nth(4).map(PathBuf::from)
}

/// All memory of the host, in bytes.
///
/// # Errors
/// The host does not say.
pub fn memory_bytes() -> io::Result<u64> {
    let text = read("/proc/meminfo")?;
    kib(&text, "MemTotal").ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What the host has now. What it does not say is nothing, of which arbitration concludes nothing.
#[must_use]
pub fn reading() -> Host {
    let text = |path| read(path).unwrap_or_default();
    Host::parse(&text("/proc/meminfo"), &text("/proc/pressure/memory"))
}

/// Fields 3, 4 and 22; the name, in parentheses, may contain anything.
fn parse_stat(pid: u32, text: &str) -> Option<Status> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Status { process: Process { pid, start_ticks }, parent })
}

fn parse_status(text: &str) -> Held {
    let field = |name| kib(text, name).unwrap_or(0);
    Held {
        private_bytes: field("RssAnon").saturating_add(field("VmPTE")),
        swapped_bytes: field("VmSwap"),
        file_bytes: field("RssFile").saturating_add(field("RssShmem")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Stdio;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let stat = "42 (a) b) S 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        let process = Process { pid: 42, start_ticks: 98_765 };
        assert_eq!(parse_stat(42, stat), Some(Status { process, parent: 7 }));
        assert_eq!(parse_stat(42, &stat.replace(" S 7", " Z 7")), None);
        assert_eq!(parse_stat(42, "42 (a"), None);
        let own = status(std::process::id()).unwrap().process;
        assert!(is_alive(own) && held(own).is_some_and(|held| held.private_bytes > 0));
        let earlier = Process { start_ticks: own.start_ticks - 1, ..own };
        assert!(!is_alive(earlier) && held(earlier) == Some(Held::default()));
    }

    #[test]
    fn who_is_watched_is_nobody_else() {
        let mut command = std::process::Command::new("cat");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Once it has answered, it waits and stays as it is.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let process = status(child.id()).unwrap().process;
        let watched = Watched::new(process);
        assert!(watched.status.is_some());
        assert_eq!((watched.process(), watched.held()), (process, held(process)));
        assert!(watched.held().is_some_and(|held| held.private_bytes > 0));
        let earlier = Watched::new(Process { start_ticks: process.start_ticks - 1, ..process });
        assert!(earlier.status.is_none() && earlier.held() == Some(Held::default()));
        let without_descriptor = Watched { process, status: None };
        assert_eq!(without_descriptor.held(), held(process));
        // Of who is in a thousand groups it is longer than one reading.
        let long = tempfile::tempfile().unwrap();
        long.set_len(ROOM_BYTES as u64).unwrap();
        assert_eq!(Watched { process, status: Some(long) }.held(), held(process));
        child.kill().unwrap();
        while status(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(watched.held(), Some(Held::default()), "nobody has waited for it yet");
        child.wait().unwrap();
        assert_eq!(watched.held(), Some(Held::default()));
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MOST_BYTES - 1).unwrap();
        assert_eq!(read(file.path()).unwrap().len() as u64, MOST_BYTES - 1);
        for bytes in [MOST_BYTES, MOST_BYTES + 1] {
            file.as_file().set_len(bytes).unwrap();
            assert_eq!(read(file.path()).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        }
    }

    #[test]
    fn a_cgroup_is_a_vmms_own_or_none() {
        assert_eq!(own_cgroup("1:x:/y\n0::/ballast/vm-web\n"), Some("ballast/vm-web"));
        for none in ["", "0::/", "0::/ballast", "0::/vm-a/user.slice", "0::/../../vm-a", "1:memory:/vm-a"] {
            assert_eq!(own_cgroup(none), None, "{none}");
        }
        let mounts = "24 1 8:1 / / rw - ext4 /dev/sda rw\n30 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup_mount(mounts), Some("/sys/fs/cgroup".into()));
        assert_eq!(cgroup_mount(""), None);
    }

    #[test]
    fn private_memory_is_what_goes_with_the_process() {
        let text = "Name:\tx\nRssAnon:\t    100 kB\nRssFile:\t  7 kB\nRssShmem:\t 5 kB\nVmPTE:\t 4 kB\nVmSwap:\t 9 kB\n";
        assert_eq!(
            parse_status(text),
            Held { private_bytes: 104 << 10, swapped_bytes: 9 << 10, file_bytes: 12 << 10 }
        );
        assert_eq!(parse_status(""), Held::default());
    }
}
