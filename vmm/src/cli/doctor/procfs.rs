//! Readers of the kernel's text files, `proc(5)`. Pure.

use super::facts::{Memory, Swap};
use crate::cli::mounts::unescape;

/// Reads `/proc/meminfo`.
pub(super) fn memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
}

/// Reads `/proc/swaps`.
pub(super) fn swaps(text: &str) -> Vec<Swap> {
    let swap = |line: &str| {
        let mut words = line.split_whitespace();
        let name = unescape(words.next()?);
        let mut bytes = words.skip(1).map(|word| word.parse::<u64>().ok()?.checked_mul(1024));
        Some(Swap { name, size_bytes: bytes.next()??, used_bytes: bytes.next()?? })
    };
    text.lines().skip(1).filter_map(swap).collect()
}

/// The ids that `/etc/subuid` or `/etc/subgid` gives a user, by name or number.
pub(super) fn subordinate_ids(text: &str, name: &str, uid: u32) -> u64 {
    let count = |line: &str| {
        let mut parts = line.split(':');
        let owner = parts.next()?;
        let count = parts.nth(1)?.trim().parse::<u64>().ok()?;
        (owner == name || owner.parse() == Ok(uid)).then_some(count)
    };
    text.lines().filter_map(count).fold(0, u64::saturating_add)
}

/// The first CPU's flags, of `/proc/cpuinfo`.
pub(super) fn cpu_flags(text: &str) -> Vec<&str> {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    flags.map(|(_, flags)| flags.split_whitespace().collect()).unwrap_or_default()
}

/// Which of the kernel's modules (the names in `/sys/module`, where built-in ones are too) does KVM's work on a
/// CPU with these flags: the vendor's own where the CPU can virtualize, else whatever else there is.
pub(super) fn kvm_backend(modules: &[String], flags: Vec<&str>) -> Option<String> {
    let vendors = [("kvm_intel", "vmx"), ("kvm_amd", "svm")];
    let has = |name: &str| modules.iter().any(|module| module == name);
    let hardware =
        vendors.iter().find(|(name, flag)| has(name) && flags.contains(flag)).map(|(name, _)| *name);
    let mut others: Vec<_> =
        modules.iter().map(String::as_str).filter(|name| name.starts_with("kvm_")).collect();
    others.retain(|name| vendors.iter().all(|(vendor, _)| vendor != name));
    others.sort_unstable();
    hardware.or(others.first().copied()).map(str::to_owned)
}

/// The version in what a program says of itself: its first word that begins with a digit and has a dot.
pub(super) fn version(text: &str) -> Option<&str> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()))
        .map(|word| word.strip_prefix('v').unwrap_or(word))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_in_bytes() {
        let memory = memory("MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n").unwrap();
        assert_eq!(memory, Memory { total_bytes: 2 << 20, available_bytes: 1 << 20 });
        let swaps = swaps(
            "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
             /dev/zram0                              partition\t4096\t\t1024\t\t100\n/bad\n",
        );
        let zram = Swap { name: "/dev/zram0".into(), size_bytes: 4 << 20, used_bytes: 1 << 20 };
        assert_eq!(swaps, [zram]);
    }

    #[test]
    fn the_backend_is_the_one_that_the_cpu_can_use() {
        let backend = |names: &[&str], flags: &str| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            kvm_backend(&names, cpu_flags(&format!("processor : 0\nflags\t\t: {flags}\nflags : vmx\n")))
        };
        assert_eq!(backend(&["kvm", "kvm_amd", "kvm_intel"], "fpu svm").as_deref(), Some("kvm_amd"));
        assert_eq!(backend(&["kvm_pvm", "kvm", "kvm_intel"], "fpu vmx").as_deref(), Some("kvm_intel"));
        assert_eq!(backend(&["kvm_pvm", "kvm", "kvm_intel"], "fpu hypervisor").as_deref(), Some("kvm_pvm"));
        assert_eq!(backend(&["kvm"], "fpu vmx"), None);
    }

    #[test]
    fn subordinate_ids_are_summed_by_name_and_number() {
        let text = "ann:100000:65536\nbob:200000:1000\n1000:300000:5\nann:x:y\n";
        assert_eq!(subordinate_ids(text, "ann", 1000), 65541);
        assert_eq!(subordinate_ids(text, "bob", 1), 1000);
        assert_eq!(subordinate_ids(text, "eve", 2), 0);
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(version("mkfs.erofs 1.5\nusage"), Some("1.5"));
        assert_eq!(version("mkfs.erofs (erofs-utils) 1.8.6-g1234"), Some("1.8.6-g1234"));
        assert_eq!(version("mkfs.erofs v1.2.1, built 2021"), Some("1.2.1"));
        assert_eq!(version("no idea"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[a-z0-9:/ \\n\\t\\\\.-]{0,200}") {
            let _ = (memory(&text), swaps(&text), version(&text));
            let _ = subordinate_ids(&text, "a", 1);
        }
    }
}
