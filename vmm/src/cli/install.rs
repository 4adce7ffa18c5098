//! Where Ballast's own programs are: beside this one, or in `../libexec/ballast` of it.

use std::path::PathBuf;

/// A part of Ballast is not there.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// Not beside `ballast`.
    #[error("cannot find Ballast's own program '{program}' in {}: install Ballast whole, or set {VARIABLE} to its directory", beside.display())]
    Uninstalled {
        /// Its name.
        program: &'static str,
        /// Where `ballast` is.
        beside: PathBuf,
    },
    /// Not where the user says that it is.
    #[error("cannot find Ballast's own program '{program}' in {}, which ${VARIABLE} names: correct or unset that", dir.display())]
    Elsewhere {
        /// Its name.
        program: &'static str,
        /// What the variable says.
        dir: PathBuf,
    },
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
    let in_dir = |dir: PathBuf| Some(dir.join(program)).filter(|path| path.is_file());
    if let Some(dir) = std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from) {
        return in_dir(dir.clone()).ok_or(Missing::Elsewhere { program, dir });
    }
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let found = in_dir(beside.clone()).or_else(|| in_dir(beside.join("../libexec/ballast")));
    found.ok_or(Missing::Uninstalled { program, beside })
}
