//! Confines each thread of `ballast-vmm` to the system calls of its work, once everything is open.
//!
//! The filters are `resources/seccomp/ballast-vmm.json`, each call argued there. A call that is not listed ends
//! the process: a guest that got so far gets no further. `$BALLAST_SECCOMP=off` leaves the filters away, to find
//! out whether a failure is theirs.

use seccompiler::{BpfProgram, TargetArch};
use std::collections::HashMap;

const FILTERS: &str = include_str!("../../resources/seccomp/ballast-vmm.json");

/// The filters cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter file is wrong.
    #[error("cannot compile the seccomp filters")]
    Compile(#[source] seccompiler::Error),
    /// A thread's filter is not in the file.
    #[error("there is no seccomp filter for '{0}'")]
    Absent(&'static str),
    /// The host's kernel refuses.
    #[error("the host's kernel takes no seccomp filter")]
    Apply(#[source] seccompiler::Error),
}

/// The compiled filters of all threads.
#[derive(Clone, Debug, Default)]
pub struct Filters(Option<HashMap<String, BpfProgram>>);

impl Filters {
    /// Compiles the filters, unless the environment says otherwise.
    ///
    /// # Errors
    /// The filter file is wrong.
    pub fn compile() -> Result<Self, Error> {
        if std::env::var_os("BALLAST_SECCOMP").is_some_and(|value| value == "off") {
            return Ok(Self(None));
        }
        let arch = TargetArch::x86_64;
        seccompiler::compile_from_json(FILTERS.as_bytes(), arch)
            .map(|map| Self(Some(map)))
            .map_err(Error::Compile)
    }

    /// Confines the calling thread, for good.
    ///
    /// # Errors
    /// There is no such filter, or the kernel refuses it.
    pub fn apply(&self, thread: &'static str) -> Result<(), Error> {
        let Some(filters) = &self.0 else { return Ok(()) };
        let filter = filters.get(thread).ok_or(Error::Absent(thread))?;
        seccompiler::apply_filter(filter).map_err(Error::Apply)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    /// Runs the test of this name, which calls this, as a process of its own, confined as the main thread is; how `work`
    /// ends in it.
    pub(crate) fn confined(test: &str, work: impl FnOnce()) -> ExitStatus {
        const MARK: &str = "BALLAST_TEST_CONFINED";
        if std::env::var_os(MARK).is_some() {
            Filters::compile().unwrap().apply("main").unwrap();
            work();
            std::process::exit(0);
        }
        let this = std::env::current_exe().unwrap();
        Command::new(this).args(["--exact", test]).env(MARK, "1").status().unwrap()
    }

    #[test]
    fn every_thread_has_a_filter() {
        let Filters(Some(filters)) = Filters::compile().unwrap() else { panic!("off") };
        let mut names: Vec<_> = filters.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["disk", "main", "vcpu"]);
    }

    #[test]
    fn a_confined_thread_cannot_open_a_file() {
        let status = confined("seccomp::tests::a_confined_thread_cannot_open_a_file", || {
            let _ = std::fs::File::open("/etc/passwd");
        });
        assert_eq!(status.signal(), Some(libc::SIGSYS));
    }
}
