//! The VMM's cgroup on the host (cgroup v2), from inside: its limit and its charge, by descriptors that `ballast`
//! opened. Wiring; [`room`] says what the limit is, [`files`] reads the kernel's text.
//!
//! `ballast` makes the cgroup, and the VMM enters it before it is executed, so that every byte it ever takes is charged
//! there. The VMM opens no path: it reads and writes these files from their start (pread(2), pwrite(2)).

pub mod files;
pub mod room;

use crate::config::HostCgroupConfig;
use files::Events;
use room::HostLimit;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

/// Longest of the files: `memory.stat` has some 60 lines of at most 50 bytes.
const FILE_BYTES: usize = 8 << 10;

/// The cgroup that this process is in.
#[derive(Debug)]
pub struct HostCgroup {
    max: File,
    current: File,
    events: File,
    stat: File,
    limit: HostLimit,
    /// The guest's max that the limit has yet to fall to.
    owed: Cell<Option<u64>>,
}

/// What the host says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// `memory.max` in bytes; nothing if there is no limit any more.
    pub limit_bytes: Option<u64>,
    /// `memory.current` in bytes.
    pub current_bytes: u64,
    /// Of it, memory that is no file's: mostly the guest's.
    pub anonymous_bytes: u64,
    /// Of it, page cache: of image layers that this microVM touched first, and of whatever else it read.
    pub file_bytes: u64,
    /// Of it, the kernel's own: page tables, KVM's books, stacks.
    pub kernel_bytes: u64,
    /// What happened at the limit.
    pub events: Events,
}

impl HostCgroup {
    /// Takes over the descriptors.
    ///
    /// # Safety
    /// They are open, and nothing else in this process uses them.
    #[must_use]
    pub unsafe fn adopt(config: &HostCgroupConfig) -> Self {
        // SAFETY: the caller promises it of all four.
        let file = |fd: RawFd| File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Self {
            max: file(config.memory_max),
            current: file(config.memory_current),
            events: file(config.memory_events),
            stat: file(config.memory_stat),
            limit: config.limit,
            owed: Cell::new(None),
        }
    }

    /// Limit and charge now. A limit that was to fall further than the charge let it falls on.
    ///
    /// # Errors
    /// The host does not say, or says what cannot be understood.
    pub fn charge(&self) -> io::Result<Charge> {
        self.fall_on()?;
        let stat = read(&self.stat)?;
        let of = |name| files::value(&stat, name).unwrap_or(0);
        Ok(Charge {
            limit_bytes: self.limit_bytes()?,
            current_bytes: self.current_bytes()?,
            anonymous_bytes: of("anon"),
            file_bytes: of("file"),
            kernel_bytes: of("kernel"),
            events: Events::parse(&read(&self.events)?),
        })
    }

    /// Has the host hold a guest of at most `max_bytes`, and returns the limit that it has now, in bytes.
    ///
    /// A limit below the charge would have the host kill this process at once (`memory.max` of the kernel's
    /// `admin-guide/cgroup-v2.rst`). So it falls with the charge, by [`fall_on`](Self::fall_on). What
    /// is charged now is all that a guest that gives nothing back can ever have.
    ///
    /// # Errors
    /// The host refuses.
    pub fn set_guest_max(&self, max_bytes: u64) -> io::Result<u64> {
        let now = self.limit_bytes()?.unwrap_or(u64::MAX);
        let wanted = HostLimit { guest_bytes: max_bytes, ..self.limit };
        let limit = wanted.reachable(now, self.current_bytes()?);
        self.max.write_all_at(limit.to_string().as_bytes(), 0)?;
        self.owed.set((limit != wanted.bytes()).then_some(max_bytes));
        Ok(limit)
    }

    /// Has a limit fall on that could not fall further when it was set; costs nothing where none is to.
    ///
    /// # Errors
    /// The host refuses.
    pub fn fall_on(&self) -> io::Result<()> {
        self.owed.get().map_or(Ok(()), |max_bytes| self.set_guest_max(max_bytes).map(drop))
    }

    fn limit_bytes(&self) -> io::Result<Option<u64>> {
        files::limit(&read(&self.max)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn current_bytes(&self) -> io::Result<u64> {
        let text = read(&self.current)?;
        text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// A whole file of the kernel's.
fn read(file: &File) -> io::Result<String> {
    let mut bytes = vec![0; FILE_BYTES];
    let length = file.read_at(&mut bytes, 0)?;
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;
    use std::path::Path;

    fn config(dir: &Path) -> HostCgroupConfig {
        let open = |name| File::options().read(true).write(true).open(dir.join(name)).unwrap().into_raw_fd();
        HostCgroupConfig {
            memory_max: open("memory.max"),
            memory_current: open("memory.current"),
            memory_events: open("memory.events"),
            memory_stat: open("memory.stat"),
            limit: HostLimit {
                guest_bytes: 1 << 30,
                shared_bytes: 10 << 20,
                disk_bytes: 0,
                room_bytes: 20 << 20,
            },
        }
    }

    /// A cgroup that has a limit and a charge of so much.
    fn cgroup(max: &str, current: &str) -> (tempfile::TempDir, impl Fn(&str, &str)) {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().to_owned();
        let write = move |name: &str, text: &str| std::fs::write(at.join(name), text).unwrap();
        write("memory.max", max);
        write("memory.current", current);
        write("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 1\n");
        write("memory.stat", "anon 4096\nfile 8192\nkernel 12288\nkernel_stack 1\n");
        (dir, write)
    }

    #[test]
    fn charge_is_read_anew_and_the_limit_never_falls_below_it() {
        let (dir, write) = cgroup("max\n", "1048576\n");
        // SAFETY: opened just now, for this.
        let cgroup = unsafe { HostCgroup::adopt(&config(dir.path())) };
        let charge = cgroup.charge().unwrap();
        assert_eq!((charge.limit_bytes, charge.current_bytes), (None, 1 << 20));
        assert_eq!((charge.anonymous_bytes, charge.file_bytes, charge.kernel_bytes), (4096, 8192, 12288));
        assert_eq!(charge.events, Events { at_limit: 3, out_of_memory: 1, killed: 1 });

        assert_eq!(cgroup.set_guest_max(100 << 20).unwrap(), 130 << 20);
        assert_eq!(std::fs::read_to_string(dir.path().join("memory.max")).unwrap(), "136314880");
        write("memory.max", "max\n");
        write("memory.current", "209715200\n");
        let limit = cgroup.set_guest_max(100 << 20).unwrap();
        assert!((200 << 20..220 << 20).contains(&limit), "{limit}");
        write("memory.current", "157286400\n");
        cgroup.fall_on().unwrap();
        let limit: u64 = std::fs::read_to_string(dir.path().join("memory.max")).unwrap().parse().unwrap();
        assert!((150 << 20..170 << 20).contains(&limit), "it falls on: {limit}");
        write("memory.current", "1048576\n");
        assert_eq!(cgroup.charge().unwrap().limit_bytes, Some(130 << 20), "it falls on");
        write("memory.max", "1\n");
        cgroup.fall_on().unwrap();
        assert_eq!(cgroup.charge().unwrap().limit_bytes, Some(1), "it is where it was to be, and left alone");
        write("memory.current", "?\n");
        assert!(cgroup.charge().is_err() && cgroup.set_guest_max(1 << 20).is_err());
    }

    #[test]
    fn a_limit_that_the_host_refuses_is_not_tried_again() {
        let (dir, _) = cgroup("1073741824\n", "209715200\n");
        let read_only = File::open(dir.path().join("memory.max")).unwrap().into_raw_fd();
        // SAFETY: opened just now, for this.
        let cgroup =
            unsafe { HostCgroup::adopt(&HostCgroupConfig { memory_max: read_only, ..config(dir.path()) }) };
        assert!(cgroup.set_guest_max(100 << 20).is_err());
        assert_eq!(cgroup.charge().unwrap().limit_bytes, Some(1 << 30));
    }
}
