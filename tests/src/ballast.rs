//! Where `ballast` is, and the directories that a test gives it.

use crate::run::Run;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The images, kernels and volumes that ci/promises prepared.
const DATA: &str = "BALLAST_TEST_DATA";
/// Where the programs are, if not in the directory above this program's own.
const PROGRAMS: &str = "BALLAST_TEST_PROGRAMS";

/// `ballast` with directories of its own.
pub struct Ballast {
    work: TempDir,
    data: PathBuf,
}

/// A `ballast` with a new state directory and the prepared images.
#[must_use]
pub fn setup() -> Ballast {
    let data = std::env::var_os(DATA)
        .unwrap_or_else(|| panic!("{DATA} is not set: run this test through ci/promises"));
    Ballast { work: tempfile::tempdir().unwrap(), data: data.into() }
}

impl Ballast {
    /// A `ballast` that has no image yet.
    #[must_use]
    pub fn empty() -> Self {
        let work = tempfile::tempdir().unwrap();
        let data = work.path().join("data");
        Self { work, data }
    }

    /// `ballast` with these arguments.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Run {
        let mut run = Run::new(&program("ballast"));
        run.command.args(arguments);
        run.command.env("BALLAST_STATE", self.work.path().join("state")).env("BALLAST_DATA", &self.data);
        run
    }

    /// `ballast run IMAGE COMMAND`; options may follow by [`Run::options`].
    #[must_use]
    pub fn run(&self, image: impl AsRef<OsStr>, command: &[&str]) -> Run {
        let mut run = self.command(&["run"]);
        run.operands =
            std::iter::once(image.as_ref()).chain(command.iter().map(OsStr::new)).map(Into::into).collect();
        run
    }

    /// The program itself, for who starts it in a way of his own.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        program("ballast")
    }

    /// A path in the test's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Its data directory is this one from here on.
    pub(crate) fn move_data(&mut self, data: PathBuf) {
        self.data = data;
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Writes a file into the test's own directory.
    #[must_use]
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

pub(crate) fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os(PROGRAMS).map_or_else(
        || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned(),
        PathBuf::from,
    );
    let path = directory.join(name);
    assert!(path.is_file(), "{} is missing: build it with `cargo build --workspace`", path.display());
    path
}
