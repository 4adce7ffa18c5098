//! Where the sockets of running microVMs and of the daemon are on this host.

#![forbid(unsafe_code)]

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Overrides the state directory.
pub const VARIABLE: &str = "BALLAST_STATE";
/// Where users other than root have theirs.
pub const USUAL_VARIABLE: &str = "XDG_RUNTIME_DIR";
/// Beside a microVM's socket: why the daemon has killed it, in words.
pub const KILLED: &str = "killed";

/// The state directory: `$BALLAST_STATE`, else `/run/ballast` for root, else `$XDG_RUNTIME_DIR/ballast`; of others there
/// is none without these variables. `variable` gives those that are set and not empty.
pub fn directory(root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    variable(VARIABLE)
        .or_else(|| root.then(|| "/run/ballast".into()))
        .or_else(|| variable(USUAL_VARIABLE).map(|directory| directory.join("ballast")))
}

/// The state directory of this process' user and environment.
#[must_use]
pub fn own_directory() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    directory(rustix::process::geteuid().is_root(), variable)
}

/// What others may do with a directory that they must not be able to write: a name in it is believed.
const OTHERS_WRITE: u32 = 0o022;

/// Makes sure that the state directory is there, and nobody else's: whoever may write to it could put himself in a microVM's
/// place.
///
/// # Errors
/// It cannot be made, or others own it or may write to it.
pub fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    check(directory)
}

/// That the state directory, if there is one, is nobody else's.
///
/// # Errors
/// Others own it or may write to it.
pub fn check(directory: &Path) -> io::Result<()> {
    let found = match std::fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if found.uid() == rustix::process::geteuid().as_raw() && found.mode() & OTHERS_WRITE == 0 {
        return Ok(());
    }
    let words = "it is another user's, or others may write to it: chown it, and chmod it to 700";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/b");
        make(&state).unwrap();
        for (mode, is_fine) in [(0o700, true), (0o755, true), (0o770, false), (0o1777, false)] {
            set_permissions(&state, Permissions::from_mode(mode)).unwrap();
            assert_eq!((make(&state).is_ok(), check(&state).is_ok()), (is_fine, is_fine), "{mode:o}");
        }
    }
}
