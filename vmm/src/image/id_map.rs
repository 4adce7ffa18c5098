//! Which ids an importing user's namespace has.
//!
//! The user's own id is mapped to 0, and the subordinate ids that `/etc/subuid` and `/etc/subgid` grant follow from 1
//! on, by `newuidmap` and `newgidmap`. Without such a grant only id 0 is mapped, which suffices for images whose files
//! all belong to root.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::user_namespace::NamespaceError;

/// A run of ids granted to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

/// Maps the ids of this user into the user namespace of the process `pid`.
///
/// # Errors
/// [`NamespaceError::Map`].
pub(super) fn write(pid: u32) -> Result<(), NamespaceError> {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let name = user_name(uid);
    let granted = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        subordinate_ids(&text, uid, name.as_deref())
    };
    let (uids, gids) = (granted("/etc/subuid"), granted("/etc/subgid"));
    if uids.is_empty() || gids.is_empty() || !has_tool("newuidmap") || !has_tool("newgidmap") {
        return map_own(pid, uid, gid);
    }
    run_tool("newuidmap", pid, uid, &uids)?;
    run_tool("newgidmap", pid, gid, &gids)
}

/// The grants to a user in a file like `/etc/subuid`: `NAME-OR-ID:START:COUNT`.
fn subordinate_ids(text: &str, uid: u32, name: Option<&str>) -> Vec<Range> {
    let uid = uid.to_string();
    let mut ranges = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(who), Some(start), Some(count)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if (who == uid || Some(who) == name)
            && let (Ok(start), Ok(count @ 1..)) = (start.parse(), count.parse())
        {
            ranges.push(Range { start, count });
        }
    }
    ranges
}

fn user_name(uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let listed = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    // Users of a directory service; a wrong name only makes `newuidmap` refuse.
    listed.or_else(|| std::env::var("USER").ok())
}

fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

fn run_tool(tool: &'static str, pid: u32, own: u32, ranges: &[Range]) -> Result<(), NamespaceError> {
    let mut command = Command::new(tool);
    command.arg(pid.to_string()).args(["0".to_owned(), own.to_string(), "1".to_owned()]);
    let mut next = 1u32;
    for range in ranges {
        let count = range.count.min(u32::MAX - next);
        command.args([next.to_string(), range.start.to_string(), count.to_string()]);
        next += count;
    }
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| NamespaceError::Map { tool, words: error.to_string() })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(NamespaceError::Map {
            tool,
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

/// Maps only the user's own ids, which needs no grant.
fn map_own(pid: u32, uid: u32, gid: u32) -> Result<(), NamespaceError> {
    let process = Path::new("/proc").join(pid.to_string());
    let write = |file: &str, text: String| {
        let refused = |error: io::Error| NamespaceError::Map { tool: "/proc", words: error.to_string() };
        fs::write(process.join(file), text).map_err(refused)
    };
    // Without this the kernel refuses a map of groups.
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

/// What a user can do so that files of `id` may be created.
pub(super) fn remedy(id: u32) -> String {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mapped: u64 =
        map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    if mapped <= 1 {
        return "get subordinate ids (`apt install uidmap`, then as root `usermod --add-subuids 100000-165535 \
                --add-subgids 100000-165535 USER`), or run as root"
            .into();
    }
    format!("widen this user's ranges in /etc/subuid and /etc/subgid to more than {id} ids, or run as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_found_by_name_and_by_id() {
        let text = "root:1:9\nann:100000:65536\n# x\n1000:300000:5\nann:bad:1\nann:7:0\nbob:400000:65536\n";
        let ranges = subordinate_ids(text, 1000, Some("ann"));
        assert_eq!(ranges, [Range { start: 100_000, count: 65536 }, Range { start: 300_000, count: 5 }]);
        assert_eq!(subordinate_ids(text, 1001, None), []);
    }
}
