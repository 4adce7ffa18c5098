//! Makes an ext4 file system in a new, sparse file, with e2fsprogs.

#![forbid(unsafe_code)]

use crate::process::die_with_parent;
use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// No file system could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("mkfs.ext4 was not found: install e2fsprogs to make volumes")]
    Missing,
    /// The program cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The program says no.
    #[error("mkfs.ext4 failed: {0}")]
    Failed(String),
}

/// Fixed here, so that neither a newer e2fsprogs nor the host's `mke2fs.conf` makes what a guest's kernel
/// cannot mount: what e2fsprogs 1.43 and Linux 4.4 have.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
                        sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// The file is new and reads zero, so neither journal nor inode tables are written: `discard`, the default, is
/// named because it makes mke2fs take zeros for granted and mark the tables as done, or the guest would zero
/// them on first mount.
const OPTIONS: &str = "discard,lazy_itable_init=1,lazy_journal_init=1";

/// Makes the file system over all of the file at `path`. Its root directory is root's and empty.
///
/// # Errors
/// e2fsprogs is missing or fails.
pub fn make(path: &Path) -> Result<(), Error> {
    let mkfs = find("mkfs.ext4").ok_or(Error::Missing)?;
    let fixed = ["-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES, "-E", OPTIONS];
    let made = run(&mkfs, Command::new(&mkfs).args(fixed).arg(path))?;
    if !made.status.success() {
        return Err(Error::Failed(first_line(&made.stderr).unwrap_or_else(|| made.status.to_string())));
    }
    // Programs that want an empty directory, databases above all, stumble over lost+found. Only e2fsck needs it
    // and makes it anew; where this fails, it stays.
    if let Some(debugfs) = find("debugfs") {
        let _ = run(&debugfs, Command::new(&debugfs).args(["-w", "-R", "rmdir lost+found"]).arg(path));
    }
    Ok(())
}

fn run(program: &Path, command: &mut Command) -> Result<Output, Error> {
    // One that outlived this program would go on writing into a file that the next start makes anew.
    let quiet = die_with_parent(command).stdin(Stdio::null()).env("LC_ALL", "C");
    quiet.output().map_err(|source| Error::Run { program: program.into(), source })
}

fn first_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(Into::into)
}

/// Looks in `$PATH` and where administrators' programs are, which is not on every user's path.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = OsString::from("/usr/sbin:/sbin:/usr/local/sbin");
    let directories: Vec<_> = env::split_paths(&path).chain(env::split_paths(&usual)).collect();
    directories.into_iter().map(|directory| directory.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    fn ask(program: &str, arguments: &[&str], path: &Path) -> String {
        let program = find(program).unwrap();
        let output = Command::new(program).args(arguments).arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn is_sound_empty_sparse_and_has_nothing_left_to_zero() {
        let file = tempfile::NamedTempFile::new().unwrap();
        File::options().write(true).open(file.path()).unwrap().set_len(1 << 30).unwrap();
        make(file.path()).unwrap();
        ask("e2fsck", &["-f", "-n"], file.path());
        assert!(!ask("debugfs", &["-R", "ls -p /"], file.path()).contains("lost+found"));
        let told = ask("dumpe2fs", &[], file.path());
        assert!(told.contains("metadata_csum") && !told.contains("orphan_file"), "{told}");
        let groups = told.lines().filter(|line| line.contains(": (Blocks ")).collect::<Vec<_>>();
        assert_eq!(groups.len(), 8);
        assert!(groups.iter().all(|group| group.contains("ITABLE_ZEROED")), "{groups:?}");
        assert!(file.as_file().metadata().unwrap().blocks() * 512 < 4 << 20);
    }

    #[test]
    fn failure_is_told_in_mkfs_words() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = make(file.path()).unwrap_err().to_string();
        assert!(error.starts_with("mkfs.ext4 failed: ") && error.len() > 20, "{error}");
    }
}
