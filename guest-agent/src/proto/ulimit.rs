//! Resource limits of the workload: the names of docker's `--ulimit` and the kernel's numbers for them.

use crate::wire::{Fault, FieldError, Reader, Writer, bad};

/// A resource of setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource(u8);

/// Names at the place of their number in the kernel's include/uapi/asm-generic/resource.h.
const NAMES: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

impl Resource {
    /// Finds a resource by its name in lower case without `RLIMIT_`, such as `nofile`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let number = NAMES.iter().position(|known| *known == name)?;
        u8::try_from(number).ok().map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    /// All names, in the kernel's order.
    #[must_use]
    pub const fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// The kernel's `RLIMIT_` number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// One limit of the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// What is limited.
    pub resource: Resource,
    /// What applies, in the resource's own unit; `u64::MAX` is no limit.
    pub soft: u64,
    /// How far the workload may raise it; at least `soft`.
    pub hard: u64,
}

impl Ulimit {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        let number = reader.u8("ulimits")?;
        let limit =
            Self { resource: Resource(number), soft: reader.u64("ulimits")?, hard: reader.u64("ulimits")? };
        limit.check()?;
        Ok(limit)
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) -> Result<(), FieldError> {
        self.check()?;
        writer.u8(self.resource.0);
        writer.u64(self.soft);
        writer.u64(self.hard);
        Ok(())
    }

    fn check(self) -> Result<(), FieldError> {
        if usize::from(self.resource.0) < NAMES.len() && self.soft <= self.hard {
            Ok(())
        } else {
            Err(bad("ulimits", Fault::Invalid))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        let numbers = [
            ("cpu", libc::RLIMIT_CPU),
            ("stack", libc::RLIMIT_STACK),
            ("nproc", libc::RLIMIT_NPROC),
            ("nofile", libc::RLIMIT_NOFILE),
            ("memlock", libc::RLIMIT_MEMLOCK),
            ("rttime", libc::RLIMIT_RTTIME),
        ];
        for (name, number) in numbers {
            let resource = Resource::from_name(name).unwrap();
            assert_eq!(u32::from(resource.number()), number);
            assert_eq!(resource.name(), name);
        }
        assert_eq!(Resource::from_name("NOFILE"), None);
    }
}
