//! Where Ballast keeps things on this host.

use balloon::state;
use std::env;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The directories in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Running microVMs. [`balloon::state`].
    pub state: PathBuf,
    /// Images, volumes, kernels and caches. `$BALLAST_DATA`, else `/var/lib/ballast` for root, else
    /// `$XDG_DATA_HOME/ballast`, else `~/.local/share/ballast`.
    pub data: PathBuf,
}

/// No directory can be named.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither the override nor the usual variables are set.
    #[error("no place for Ballast's {what}: set {variable}, or {usual}")]
    Unset {
        /// What would be kept there.
        what: &'static str,
        /// The override.
        variable: &'static str,
        /// The usual variable.
        usual: &'static str,
    },
    /// The directory cannot be made, or is not for its owner alone.
    #[error("cannot have the directory {}: set {variable} to one of your own", path.display())]
    Make {
        /// Which.
        path: PathBuf,
        /// The override.
        variable: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
}

const DATA: &str = "BALLAST_DATA";

impl Dirs {
    /// The directories by environment and user.
    ///
    /// # Errors
    /// Nothing names a directory for this user.
    pub fn find() -> Result<Self, Error> {
        let root = rustix::process::geteuid().is_root();
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let Self { state, data } = Self::choose(root, variable)?;
        // Who looks after a microVM in the background does so from elsewhere.
        let absolute =
            |path: PathBuf, variable| std::path::absolute(&path).map_err(cannot_make(&path, variable));
        Ok(Self { state: absolute(state, state::VARIABLE)?, data: absolute(data, DATA)? })
    }

    fn choose(root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Error> {
        let state = state::directory(root, &variable).ok_or(Error::Unset {
            what: "state",
            variable: state::VARIABLE,
            usual: state::USUAL_VARIABLE,
        })?;
        let data = variable(DATA)
            .or_else(|| root.then(|| "/var/lib/ballast".into()))
            .or_else(|| variable("XDG_DATA_HOME").map(|dir| dir.join("ballast")))
            .or_else(|| variable("HOME").map(|home| home.join(".local/share/ballast")))
            .ok_or(Error::Unset { what: "data", variable: DATA, usual: "HOME" })?;
        Ok(Self { state, data })
    }

    /// Makes sure that both exist, for their owner only.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn make(&self) -> Result<(), Error> {
        state::make(&self.state).map_err(cannot_make(&self.state, state::VARIABLE))?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.data);
        made.map_err(cannot_make(&self.data, DATA))
    }
}

fn cannot_make(path: &Path, variable: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Make { path, variable, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(root: bool, set: &[(&str, &str)]) -> Result<Dirs, Error> {
        Dirs::choose(root, |name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
    }

    #[test]
    fn overrides_win_and_users_have_places_of_their_own() {
        let dirs = |state: &str, data: &str| Dirs { state: state.into(), data: data.into() };
        assert_eq!(choose(true, &[("HOME", "/root")]).unwrap(), dirs("/run/ballast", "/var/lib/ballast"));
        assert_eq!(choose(true, &[(state::VARIABLE, "/s"), (DATA, "/d")]).unwrap(), dirs("/s", "/d"));
        let user = [("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/home/u")];
        assert_eq!(
            choose(false, &user).unwrap(),
            dirs("/run/user/1/ballast", "/home/u/.local/share/ballast")
        );
        assert!(choose(false, &[("HOME", "/home/u")]).unwrap_err().to_string().contains("XDG_RUNTIME_DIR"));
    }
}
