//! Reads the text of cgroup v2's memory files (the kernel's `admin-guide/cgroup-v2.rst`). Pure.

#![forbid(unsafe_code)]

/// Of `memory.events`, what concerns a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// `max`: how often something was about to exceed the limit, and was reclaimed for or refused.
    pub at_limit: u64,
    /// `oom`: how often reclaim at the limit did not help.
    pub out_of_memory: u64,
    /// `oom_kill`: processes killed for lack of memory: the cgroup's, of one above, or the host's.
    pub killed: u64,
}

impl Events {
    /// Reads `memory.events`. What an older kernel does not count is zero.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let of = |name| value(text, name).unwrap_or(0);
        Self { at_limit: of("max"), out_of_memory: of("oom"), killed: of("oom_kill") }
    }
}

/// The value of `name` in a flat-keyed file.
#[must_use]
pub fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Reads `memory.max`: `Some(None)` is no limit, `None` not understood.
#[must_use]
pub fn limit(text: &str) -> Option<Option<u64>> {
    match text.trim() {
        "max" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_words() {
        let text = "oom_kill 7\noom 2\nmax 1\nkernel_stack 5\nkernel 6\n";
        assert_eq!(Events::parse(text), Events { at_limit: 1, out_of_memory: 2, killed: 7 });
        assert_eq!(value(text, "kernel"), Some(6));
        assert_eq!(value(text, "kern"), None);
        assert_eq!(Events::parse("nonsense\n"), Events::default());
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(limit("max\n"), Some(None));
        assert_eq!(limit("4096\n"), Some(Some(4096)));
        assert_eq!(limit("a\n"), None);
    }
}
