//! Where the sockets of running microVMs and of the daemon are on this host.

#![forbid(unsafe_code)]

use std::path::PathBuf;

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
