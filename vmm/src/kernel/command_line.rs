//! The kernel command line that every guest boots with.
//!
//! Pure. What each parameter does is in `Documentation/admin-guide/kernel-parameters.txt` of the Linux kernel;
//! why it is here stands beside it. Nothing here trades safety of the guest for time.

/// Parameters of every guest.
const ALWAYS: &[&str] = &[
    // Kernel messages, and the standard streams of the agent, go to virtio-console's first port. It is last of
    // the consoles so that `/dev/console` is this one.
    "console=hvc0",
    // The VMM hears of a reset through the reset register of the FADT; hardware-reduced ACPI would otherwise
    // select EFI, which is not there, and hang.
    "reboot=a",
    // A panic resets at once: the VMM has the log and tells the user.
    "panic=-1",
    // Known-answer tests of every crypto algorithm at its registration take half of a stock kernel's boot. They
    // find broken accelerators, which a guest on a host that has booted with the same ones does not have.
    "cryptomgr.notests",
    // What each CPU has of its own lies in small pages, not in a huge one of which a ninth is used: the kernel makes its
    // tables of such memory for all that there could be, and of the huge page they take 4 MiB (`obj_cgroups` of
    // `pcpu_alloc_chunk`, mm/percpu.c).
    "percpu_alloc=page",
    // Three pools of memory for devices that are not coherent or encrypted, which there are none of; they grow when they
    // are used.
    "coherent_pool=16K",
    // Twice a second the kernel would compare the time stamp counter with another clock where the host does not call it
    // invariant, although it then prefers kvm-clock. Where the host does, stock kernels trust it without, on up to two nodes.
    "tsc=nowatchdog",
    // Each CPU would be woken every four seconds to see whether it is stuck. What that finds on a full host is a vCPU that
    // waits for its turn; `kernel.watchdog=1` has it back.
    "nowatchdog",
    // Messages up to warnings only: each line is an exit, and a user of a container asked for none of them.
    "quiet",
];

/// The kernel's steps at its start (`initcall_blacklist`) that guests do without.
const LEFT_OUT: &[&str] = &[
    // At boot a worker looks up each of the kernel's 40,000 traceable functions, to mark those few whose weak
    // definition was overridden. On one CPU everything waits for it: a seventh of the boot. Without the marks
    // `available_filter_functions` shows some names that cannot be traced; tracing itself works as ever. Newer
    // kernels sort this out when they are built and have no such function: an unknown name is passed over.
    "ftrace_check_for_weak_functions",
];

/// Likewise of guests in whose kernel nobody wants to look.
const TRACING: &[&str] = &[
    // The files of tracefs. For 6.1 these are 9 MiB of inodes and dentries that are never shrunk; 6.12 makes them when they
    // are looked up.
    "tracer_init_tracefs",
    // `/sys/kernel/slab`, 5,000 entries of sysfs about the kernel's own allocator, which only its developers read: 0.6 MiB.
    // `/proc/slabinfo` stays.
    "slab_sysfs_init",
];

/// Parameters of a guest whose whole boot is to be seen.
const BOOT_LOG: &[&str] = &["earlyprintk=serial,ttyS0,115200", "console=ttyS0", "ignore_loglevel"];

/// Parameters of a guest with several zones, each of which is a node.
const NODES: &[&str] = &[
    // The guest would move pages to the node of the CPU that uses them, and all CPUs are on the first.
    "numa_balancing=disable",
];

/// Longest command line, its final NUL included: `COMMAND_LINE_SIZE` of arch/x86/include/asm/setup.h.
const COMMAND_LINE_BYTES: usize = 2048;

/// Parameters that no kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// What is behind `--` goes to init, and a blank ends a parameter.
    #[error("a kernel parameter is printable ASCII without blanks, and not '--'")]
    Text,
    /// They do not fit.
    #[error("a kernel's command line has at most {COMMAND_LINE_BYTES} bytes: use fewer --kernel-arg")]
    TooLong,
}

/// A parameter that a user adds, as one word of the command line.
///
/// # Errors
/// It is none, or more than one.
pub fn parameter(text: &str) -> Result<String, ParameterError> {
    let is_word = !text.is_empty() && text != "--" && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_word { Ok(text.into()) } else { Err(ParameterError::Text) }
}

/// The command line of a guest with one zone of memory or more, and with what the user `added`: of two values of a
/// parameter the last counts. With `tracing` it has the files that tell of the kernel itself. With `boot_log` everything that the kernel has to say also goes to the first serial port,
/// from the first line on.
///
/// # Errors
/// The kernel would cut it off.
pub fn command_line(
    boot_log: bool,
    zones: usize,
    tracing: bool,
    added: &[String],
) -> Result<String, ParameterError> {
    let log = if boot_log { BOOT_LOG } else { &[] };
    let nodes = if zones > 1 { NODES } else { &[] };
    let parameters = ALWAYS.iter().chain(nodes).filter(|parameter| !boot_log || **parameter != "quiet");
    let tracing = if tracing { &[] } else { TRACING };
    let left_out = LEFT_OUT.iter().chain(tracing).copied().collect::<Vec<_>>().join(",");
    let left_out = format!("initcall_blacklist={left_out}");
    let added = std::iter::once(left_out.as_str()).chain(added.iter().map(String::as_str));
    let line = log.iter().chain(parameters).copied().chain(added).collect::<Vec<_>>().join(" ");
    if line.len() < COMMAND_LINE_BYTES { Ok(line) } else { Err(ParameterError::TooLong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_comes_before_the_console_that_the_agent_gets() {
        let line = command_line(true, 1, false, &[]).unwrap();
        let serial = line.find("console=ttyS0").unwrap();
        assert!(serial < line.find("console=hvc0").unwrap());
        assert!(!line.split(' ').any(|parameter| parameter == "quiet"));
    }

    #[test]
    fn who_wants_to_trace_has_the_files() {
        let left_out = |tracing| {
            let line = command_line(false, 1, tracing, &[]).unwrap();
            line.rsplit_once("initcall_blacklist=").unwrap().1.to_owned()
        };
        assert_eq!(left_out(true), "ftrace_check_for_weak_functions");
        assert_eq!(left_out(false), "ftrace_check_for_weak_functions,tracer_init_tracefs,slab_sysfs_init");
    }

    #[test]
    fn nothing_is_said_twice_and_nothing_is_long() {
        for line in [command_line(false, 1, false, &[]).unwrap(), command_line(true, 2, true, &[]).unwrap()] {
            let mut parameters: Vec<_> = line.split(' ').collect();
            assert!(parameters.iter().all(|parameter| !parameter.is_empty()));
            parameters.sort_unstable();
            parameters.dedup();
            assert_eq!(parameters.len(), line.split(' ').count());
        }
    }

    #[test]
    fn what_a_user_adds_comes_last_and_fits() {
        let line = command_line(false, 1, false, &["init_on_alloc=0".into(), "debug".into()]).unwrap();
        assert!(line.ends_with(" init_on_alloc=0 debug"), "{line}");
        assert_eq!(command_line(false, 1, false, &["x".repeat(2048)]), Err(ParameterError::TooLong));
    }

    #[test]
    fn an_added_parameter_is_one_word_for_the_kernel() {
        assert_eq!(parameter("dyndbg=\"file*+p\"").unwrap(), "dyndbg=\"file*+p\"");
        for text in ["", "--", "a b", "a\n", "a\0", "\u{e4}"] {
            assert_eq!(parameter(text), Err(ParameterError::Text), "{text:?}");
        }
    }
}
