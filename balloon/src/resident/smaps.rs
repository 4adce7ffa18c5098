//! What a process holds of the host's memory, mapping by mapping, as the host's kernel counts it.
//!
//! Reads the text of `/proc/PID/smaps` (`fs/proc/task_mmu.c`); pure, the caller reads the file. Walking it
//! costs the kernel a page-table walk of the whole process: a slow-cadence reading, not a hot path.

/// A file, as mappings name it: on overlayfs and btrfs its device is not the one that stat(2) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId {
    /// Major number of its device.
    pub major: u32,
    /// Minor number of its device.
    pub minor: u32,
    /// Its number there.
    pub inode: u64,
}

/// One mapping of `/proc/PID/smaps`. Sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// The process may read it.
    pub readable: bool,
    /// Of a file, what tells it from others: major and minor number of its device, and its inode. Zero of others.
    pub file: FileId,
    /// File, `[heap]`, `[anon:NAME]` or nothing.
    pub name: String,
    /// Resident, shared pages counted whole.
    pub rss: u64,
    /// Resident, each page divided by the number of its users.
    pub pss: u64,
    /// Of `rss`: pages that belong to no file.
    pub anonymous: u64,
    /// Of `anonymous`: mapped as huge pages.
    pub huge: u64,
}

impl Mapping {
    /// Address space covered.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Parses the text of a `smaps` file, or of the `maps` file, which has no numbers. Lines of unknown kind are skipped, as newer kernels add some.
#[must_use]
pub fn parse_smaps(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = parse_header(line) {
            mappings.push(mapping);
        } else if let (Some(mapping), Some((key, bytes))) = (mappings.last_mut(), parse_field(line)) {
            match key {
                "Rss" => mapping.rss = bytes,
                "Pss" => mapping.pss = bytes,
                "Anonymous" => mapping.anonymous = bytes,
                "AnonHugePages" => mapping.huge = bytes,
                _ => {}
            }
        }
    }
    mappings
}

/// `7f..-7f.. rw-p 00000000 00:00 0    [anon:name]`
fn parse_header(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let readable = words.next()?.starts_with('r');
    let (major, minor) = words.nth(1)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let file = FileId { major: number(major)?, minor: number(minor)?, inode: words.next()?.parse().ok()? };
    let name = words.collect::<Vec<_>>().join(" ");
    Some(Mapping { start, end, readable, file, name, ..Mapping::default() })
}

/// `Pss:                 396 kB`
fn parse_field(line: &str) -> Option<(&str, u64)> {
    let (key, value) = line.split_once(':')?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((key, kib.saturating_mul(1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
55a0c0000000-55a0c0100000 r-xp 00001000 fe:00 1234                       /usr/bin/a program
Size:               1024 kB
Rss:                 512 kB
Pss:                 256 kB
Pss_Dirty:             0 kB
Anonymous:             0 kB
AnonHugePages:         0 kB
THPeligible:           0
VmFlags: rd ex mr mw me
7f0000000000-7f0010000000 rw-p 00000000 00:00 0                          [anon:guest memory]
Rss:              262144 kB
Pss:              262144 kB
Anonymous:        262144 kB
AnonHugePages:    131072 kB
";

    #[test]
    fn reads_every_mapping() {
        let mappings = parse_smaps(TEXT);
        assert_eq!(mappings.len(), 2);
        assert_eq!(mappings[0].name, "/usr/bin/a program");
        assert_eq!(mappings[0].file, FileId { major: 0xfe, minor: 0, inode: 1234 });
        assert_eq!((mappings[0].bytes(), mappings[0].rss, mappings[0].pss), (1 << 20, 512 << 10, 256 << 10));
        assert_eq!(mappings[1].name, "[anon:guest memory]");
        assert!(mappings.iter().all(|mapping| mapping.readable));
        let guard = parse_smaps("7f0000000000-7f0000001000 ---p 00000000 00:00 0\n");
        assert_eq!((guard.len(), guard[0].readable), (1, false));
        assert_eq!((mappings[1].anonymous, mappings[1].huge), (256 << 20, 128 << 20));
    }

    #[test]
    fn reads_this_very_process() {
        let mappings = parse_smaps(&std::fs::read_to_string("/proc/self/smaps").unwrap());
        assert!(mappings.iter().map(|m| m.pss).sum::<u64>() > 0);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse_smaps(&text);
        }
    }
}
