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
    // At boot a worker looks up each of the kernel's 40,000 traceable functions, to mark those few whose weak
    // definition was overridden. On one CPU everything waits for it: a seventh of the boot. Without the marks
    // `available_filter_functions` shows some names that cannot be traced; tracing itself works as ever. Newer
    // kernels sort this out when they are built and have no such function: an unknown name is passed over.
    "initcall_blacklist=ftrace_check_for_weak_functions",
    // Messages up to warnings only: each line is an exit, and a user of a container asked for none of them.
    "quiet",
];

/// Parameters of a guest whose whole boot is to be seen.
const BOOT_LOG: &[&str] = &["earlyprintk=serial,ttyS0,115200", "console=ttyS0", "ignore_loglevel"];

/// Parameters of a guest with several zones, each of which is a node.
const NODES: &[&str] = &[
    // The guest would move pages to the node of the CPU that uses them, and all CPUs are on the first.
    "numa_balancing=disable",
];

/// The command line of a guest with one zone of memory or more; with `boot_log` everything that the kernel has to say also goes to the first serial port,
/// from the first line on.
#[must_use]
pub fn command_line(boot_log: bool, zones: usize) -> String {
    let log = if boot_log { BOOT_LOG } else { &[] };
    let nodes = if zones > 1 { NODES } else { &[] };
    let parameters = ALWAYS.iter().chain(nodes).filter(|parameter| !boot_log || **parameter != "quiet");
    log.iter().chain(parameters).copied().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_comes_before_the_console_that_the_agent_gets() {
        let line = command_line(true, 1);
        let serial = line.find("console=ttyS0").unwrap();
        assert!(serial < line.find("console=hvc0").unwrap());
        assert!(!line.split(' ').any(|parameter| parameter == "quiet"));
    }

    #[test]
    fn nothing_is_said_twice_and_nothing_is_long() {
        for line in [command_line(false, 1), command_line(true, 2)] {
            let mut parameters: Vec<_> = line.split(' ').collect();
            assert!(parameters.iter().all(|parameter| !parameter.is_empty()));
            parameters.sort_unstable();
            parameters.dedup();
            assert_eq!(parameters.len(), line.split(' ').count());
            // COMMAND_LINE_SIZE of arch/x86/include/asm/setup.h.
            assert!(line.len() < 2048);
        }
    }
}
