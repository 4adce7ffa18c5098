//! Paths inside the workload's root, before the workload runs.
//!
//! The image decides what is there, so a path may lead through symbolic links to anywhere. Every step is
//! taken relative to the root's own descriptor and none leaves it.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, readlinkat, statat};
use rustix::io::{Errno, Result};

/// As many links as the kernel follows in one path.
const MAX_LINKS: u32 = 40;

/// The workload's root directory.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the directory that is to be the root.
    pub fn open(path: &str) -> Result<Self> {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// Opens something below the root, as it would be found from inside.
    pub fn open_at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.0, path, flags | OFlags::CLOEXEC, mode_of(flags), resolve)
    }

    /// Opens a directory, and makes it and those above it where they are missing.
    ///
    /// A symbolic link to nothing has its target made, as a shell's `mkdir -p` on the target would.
    pub fn open_directory(&self, path: &[u8]) -> Result<OwnedFd> {
        let mut ahead: VecDeque<Vec<u8>> = names_of(path).collect();
        // The names from the root to here; none of them is a link.
        let mut here: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            if name == b".." {
                here.pop();
                continue;
            }
            let parent = self.open_real(&here)?;
            match statat(&parent, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    mkdirat(&parent, name.as_slice(), Mode::from_raw_mode(0o755))?;
                    here.push(name);
                }
                Err(errno) => return Err(errno),
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => here.push(name),
                    FileType::Symlink => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::LOOP);
                        }
                        let target = readlinkat(&parent, name.as_slice(), Vec::new())?.into_bytes();
                        if target.first() == Some(&b'/') {
                            here.clear();
                        }
                        names_of(&target).rev().for_each(|name| ahead.push_front(name));
                    }
                    _ => return Err(Errno::NOTDIR),
                },
            }
        }
        self.open_real(&here)
    }

    /// The content of a regular file of at most `limit` bytes; `None` if there is no such file.
    pub fn read(&self, path: &[u8], limit: u64) -> std::io::Result<Option<Vec<u8>>> {
        // Non-blocking, so that a FIFO in its place does not stop the agent.
        let file = match self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut content = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
        if u64::try_from(content.len()).is_ok_and(|length| length > limit) {
            return Err(Errno::FBIG.into());
        }
        Ok(Some(content))
    }

    /// Puts `content` into a file, which may exist.
    pub fn write(&self, path: &[u8], content: &[u8]) -> std::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK;
        File::from(self.open_at(path, flags)?).write_all(content)
    }

    /// Opens a directory by names of which none may be a link.
    fn open_real(&self, names: &[Vec<u8>]) -> Result<OwnedFd> {
        let path = if names.is_empty() { b".".to_vec() } else { names.join(&b'/') };
        openat2(
            &self.0,
            path.as_slice(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// openat2(2) refuses a mode where nothing can be created.
const fn mode_of(flags: OFlags) -> Mode {
    if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() }
}

/// The names in a path, without those that lead nowhere.
fn names_of(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// A root with a neighbour that must never be touched.
    struct Sandbox {
        _outer: tempfile::TempDir,
        outside: std::path::PathBuf,
        path: std::path::PathBuf,
        root: Root,
    }

    fn sandbox() -> Sandbox {
        let outer = tempfile::tempdir().unwrap();
        let (outside, path) = (outer.path().join("outside"), outer.path().join("root"));
        fs::create_dir(&outside).unwrap();
        fs::create_dir(&path).unwrap();
        let root = Root::open(path.to_str().unwrap()).unwrap();
        Sandbox { _outer: outer, outside, path, root }
    }

    fn is_empty(path: &Path) -> bool {
        fs::read_dir(path).unwrap().next().is_none()
    }

    #[test]
    fn missing_directories_are_made() {
        let s = sandbox();
        s.root.open_directory(b"/a//b/./c/../d/").unwrap();
        assert!(s.path.join("a/b/c").is_dir() && s.path.join("a/b/d").is_dir());
        s.root.open_directory(b"/a/b").unwrap();
        s.root.open_directory(b"/").unwrap();
    }

    #[test]
    fn no_path_leaves_the_root() {
        let s = sandbox();
        symlink(&s.outside, s.path.join("absolute")).unwrap();
        symlink("../outside", s.path.join("relative")).unwrap();
        for path in ["/absolute/x", "/relative/x", "/../outside/x", "/../../outside/x"] {
            s.root.open_directory(path.as_bytes()).unwrap();
        }
        assert!(is_empty(&s.outside));
        // Found inside instead: ".." at the root is the root.
        assert!(s.path.join("outside/x").is_dir());
        symlink(s.outside.join("file"), s.path.join("file")).unwrap();
        assert!(s.root.write(b"/file", b"x").is_err() || is_empty(&s.outside));
        assert!(is_empty(&s.outside));
    }

    #[test]
    fn links_to_nothing_have_their_target_made() {
        let s = sandbox();
        fs::create_dir(s.path.join("var")).unwrap();
        symlink("../run", s.path.join("var/run")).unwrap();
        s.root.open_directory(b"/var/run/app").unwrap();
        assert!(s.path.join("run/app").is_dir());
    }

    #[test]
    fn link_loops_and_files_end_the_walk() {
        let s = sandbox();
        symlink("b", s.path.join("a")).unwrap();
        symlink("a", s.path.join("b")).unwrap();
        fs::write(s.path.join("file"), "").unwrap();
        assert_eq!(s.root.open_directory(b"/a/x").unwrap_err(), Errno::LOOP);
        assert_eq!(s.root.open_directory(b"/file/x").unwrap_err(), Errno::NOTDIR);
    }

    #[test]
    fn reading_is_limited_to_files_of_a_size() {
        let s = sandbox();
        s.root.write(b"/passwd", b"12345").unwrap();
        assert_eq!(s.root.read(b"/passwd", 5).unwrap().unwrap(), b"12345");
        assert!(s.root.read(b"/passwd", 4).is_err());
        assert_eq!(s.root.read(b"/none", 4).unwrap(), None);
        assert_eq!(s.root.read(b"/", 4).unwrap(), None);
    }
}
