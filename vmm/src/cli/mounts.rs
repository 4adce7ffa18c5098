//! Reads where file systems are mounted, and the cgroup of a process, from the text of `proc(5)`. Pure.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// A mounted file system, of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub point: PathBuf,
    pub file_system: String,
}

/// Reads `/proc/self/mountinfo`, in the order of mounting.
pub(super) fn mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = unescape(before.split(' ').nth(4)?);
        Some(Mount { point: PathBuf::from(point), file_system: after.split(' ').next()?.to_owned() })
    };
    text.lines().filter_map(mount).collect()
}

/// The mount that `path` is on: the longest of those above it, and of several at one place the last.
pub(super) fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// Space, tab, line feed and backslash are written as octal escapes.
pub(super) fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// The path of a process in the cgroup v2 hierarchy, from `/proc/self/cgroup`.
pub(super) fn own_cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_deepest_and_last_mount_counts() {
        let mounts = mounts(
            "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
             31 23 0:28 / /run rw - tmpfs tmpfs rw\n\
             40 23 0:40 / /data\\040dir rw - xfs /dev/sdb rw\n\
             41 23 0:41 / /data\\040dir rw - btrfs /dev/sdc rw\n\
             garbage\n",
        );
        let file_system = |path: &str| mount_of(&mounts, Path::new(path)).unwrap().file_system.as_str();
        assert_eq!(file_system("/var/lib"), "ext4");
        assert_eq!(file_system("/run"), "tmpfs");
        assert_eq!(file_system("/running"), "ext4");
        assert_eq!(file_system("/data dir/x"), "btrfs");
        assert_eq!(mount_of(&[], Path::new("/")), None);
    }

    #[test]
    fn the_v2_cgroup_is_told_from_the_others() {
        assert_eq!(own_cgroup("4:memory:/a\n0::/user.slice/x\n"), Some("/user.slice/x"));
        assert_eq!(own_cgroup("4:memory:/a\n"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z0-9:/ \\n\\t\\\\.-]{0,200}") {
            let _ = (mounts(&text), own_cgroup(&text));
        }
    }
}
