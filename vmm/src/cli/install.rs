//! Where Ballast's own programs are: beside this one, or in `../libexec/ballast` of it.

use std::path::PathBuf;

/// A part of Ballast is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot find Ballast's own program '{program}' beside {}: install Ballast whole, or set {VARIABLE} to its directory", beside.display())]
pub struct Missing {
    program: &'static str,
    beside: PathBuf,
}

const VARIABLE: &str = "BALLAST_LIBEXEC";

/// The VMM.
///
/// # Errors
/// It is nowhere.
pub fn vmm() -> Result<PathBuf, Missing> {
    find("ballast-vmm")
}

/// The guest's agent.
///
/// # Errors
/// It is nowhere.
pub fn agent() -> Result<PathBuf, Missing> {
    find("agent")
}

/// The simulator.
///
/// # Errors
/// It is nowhere.
pub fn simulator() -> Result<PathBuf, Missing> {
    find("ballast-simulate")
}

fn find(program: &'static str) -> Result<PathBuf, Missing> {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let explicit = std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let places = match explicit {
        Some(dir) => vec![dir],
        None => vec![beside.clone(), beside.join("../libexec/ballast")],
    };
    let found = places.into_iter().map(|dir| dir.join(program)).find(|path| path.is_file());
    found.ok_or(Missing { program, beside })
}
