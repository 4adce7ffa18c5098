//! The cgroup that a microVM's VMM has on the host: made by `ballast run`, entered by the VMM before it is executed, and
//! removed with it. [`place`] says where, [`home`] makes it there; [`crate::cgroup`] is its inside.
//!
//! All are in one directory, whatever groups of the zone tree their microVMs are in: a process that moves leaves its
//! charges where they are, so groups of the host would tell no truth. Each is locked by its `ballast` (flock(2) on the
//! directory, which ends with the process): who finds one unlocked has found a leftover, whichever state directory it
//! was of.

mod home;
mod place;

pub use home::{Ending, Error, Home, HostCgroup};
pub use place::{Obstacle, Place, VARIABLE};

use super::mounts;
use place::Seen;
use rustix::fs::Access;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the cgroups of this user's microVMs can be. Nothing is made.
///
/// # Errors
/// They cannot be.
pub fn find() -> Result<Place, Obstacle> {
    let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts::mounts(&mounted);
    let mount =
        mounted.iter().find(|mount| mount.file_system == "cgroup2").map(|mount| mount.point.as_path());
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own: PathBuf = mount
        .unwrap_or(Path::new("/"))
        .join(mounts::own_cgroup(&own).unwrap_or_default().trim_start_matches('/'));
    let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    place::choose(named.as_deref(), rustix::process::geteuid().is_root(), mount, &own, look)
}

fn look(dir: &Path) -> Option<Seen> {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).ok()?;
    let subtree = fs::read_to_string(dir.join(home::SUBTREE)).unwrap_or_default();
    let has_memory = |list: &str| list.split_whitespace().any(|name| name == "memory");
    let may_write = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    Some(Seen {
        controller: has_memory(&controllers),
        divided: has_memory(&subtree),
        // A threaded cgroup cannot be read so, and cannot be divided either.
        processes: fs::read_to_string(dir.join(home::PROCESSES)).map_or(true, |text| !text.is_empty()),
        // Only the host's top has no events of its own.
        top: !dir.join("cgroup.events").exists(),
        writable: may_write(dir)
            && may_write(&dir.join(home::PROCESSES))
            && may_write(&dir.join(home::SUBTREE)),
    })
}
