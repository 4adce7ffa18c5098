//! A guest whose workload takes and gives back memory as the test says, and what its microVM tells of it.

use crate::ballast::Ballast;
use crate::control::{ask, socket};
use crate::process;
use crate::run::{Ended, Run, Running, until};
use balloon::resident::Mapping;
use rustix::process::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

/// A MiB in bytes.
pub const MIB: u64 = 1 << 20;

/// Does what each line of standard input says and answers `did NUMBER`. Memory is taken by files of a tmpfs, which
/// never leaves the guest's memory: of zeroes, of a pattern that is compressed to next to nothing, or of what cannot be.
/// `/sys` is the guest's whole.
const SCRIPT: &str = r#"
mkdir /tmp/taken && mount -t tmpfs -o size=100% taken /tmp/taken || exit 1
[ -e /sys/kernel ] || mount -t sysfs sysfs /sys
echo ready
number=0
while read -r what name mib; do
    case $what in
        zero) dd if=/dev/zero of=/tmp/taken/$name bs=1M count=$mib 2> /dev/null ;;
        pattern | random) if [ $what = random ]; then cat /dev/urandom; else yes BALLAST-PATTERN; fi | head -c 1048576 > /tmp/mib
            while [ $((mib -= 1)) -ge 0 ]; do cat /tmp/mib; done > /tmp/taken/$name ;;
        free) rm /tmp/taken/$name ;;
        insert) head -c $name /dev/vda > /tmp/module.ko && insmod /tmp/module.ko ;;
        *) $what $name $mib ;;
    esac || echo "failed: $what $name $mib"
    number=$((number + 1))
    echo "did $number."
done
"#;

/// A guest under a test's command.
pub struct Guest {
    running: Running,
    socket: PathBuf,
    ordered: usize,
    /// Addresses of guest memory in the VMM.
    ram: Vec<Range<u64>>,
}

impl Guest {
    /// Starts one with `options` and waits until it takes orders.
    #[must_use]
    pub fn start(ballast: &Ballast, options: &[&str]) -> Self {
        Self::start_with(ballast, |run| run.options(options))
    }

    /// As [`Self::start`], with whatever `describe` adds to the run.
    #[must_use]
    pub fn start_with(ballast: &Ballast, describe: impl FnOnce(Run) -> Run) -> Self {
        Self::start_as("guest", ballast, describe)
    }

    /// As [`Self::start_with`], with a name of its own, for who needs several.
    #[must_use]
    pub fn start_as(name: &str, ballast: &Ballast, describe: impl FnOnce(Run) -> Run) -> Self {
        let run = ballast.run("busybox", &["sh", "-c", SCRIPT]).options(["-i", "--name", name]);
        let running = describe(run).start();
        running.wait_for("ready\n");
        let ram = guest_ram(&process::mappings(running.vmm()));
        Self { running, socket: socket(ballast, name), ordered: 0, ram }
    }

    /// Has the guest do `order` and waits until it has.
    pub fn does(&mut self, order: &str) {
        self.is_told(order);
        self.running.wait_for(&format!("did {}.", self.ordered));
        let output = self.running.output();
        assert!(!output.contains("failed"), "'{order}' failed:\n{output}");
    }

    /// Has the guest do `order` and does not wait.
    pub fn is_told(&mut self, order: &str) {
        writeln!(self.running.stdin.as_mut().unwrap(), "{order}").unwrap();
        self.ordered += 1;
    }

    /// What the microVM says of its memory.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.answer("GET", "/v1/memory", "")
    }

    /// As [`Self::memory`], with a reading of residency that began after now.
    #[must_use]
    pub fn fresh_memory(&self) -> Memory {
        // The first reading to end may have begun before.
        let _ = self.next_reading();
        self.next_reading()
    }

    /// Waits for a reading of residency that ends after now.
    fn next_reading(&self) -> Memory {
        let start = Instant::now();
        self.wait_until(|memory| {
            memory.0["resident_age_ms"]
                .as_u64()
                .is_some_and(|age| u128::from(age) < start.elapsed().as_millis())
        })
    }

    /// Sets the ceiling and returns what the microVM says at once.
    pub fn set_ceiling(&self, bytes: u64) -> Memory {
        self.answer("PUT", "/v1/memory/ceiling", &format!("{{\"bytes\":{bytes}}}"))
    }

    /// Waits until the microVM says of its memory what `is_so` wants.
    #[track_caller]
    pub fn wait_until(&self, is_so: impl Fn(&Memory) -> bool) -> Memory {
        let last = std::cell::RefCell::new(None);
        until(
            || {
                let memory = self.memory();
                let done = is_so(&memory);
                *last.borrow_mut() = Some(memory);
                done
            },
            || format!("it stays at {:?}", last.borrow()),
        );
        last.into_inner().unwrap()
    }

    /// The answer to a request that must succeed.
    #[must_use]
    pub fn answer(&self, method: &str, path: &str, content: &str) -> Memory {
        let (head, content) = ask(&self.socket, method, path, content).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{method} {path}: {head}\n{content}");
        Memory(serde_json::from_str(&content).unwrap())
    }

    /// The status line and content of the answer to a request.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, content: &str) -> (String, String) {
        ask(&self.socket, method, path, content).unwrap()
    }

    /// Bytes of guest memory that the host holds by `/proc/PID/smaps`.
    #[must_use]
    pub fn smaps_rss(&self) -> u64 {
        self.smaps(|mapping| mapping.rss)
    }

    /// Of [`Self::smaps_rss`], what belongs to no file: the kernel's constants are mapped from its image.
    #[must_use]
    pub fn smaps_anonymous(&self) -> u64 {
        self.smaps(|mapping| mapping.anonymous)
    }

    /// Of [`Self::smaps_rss`], what is a file's.
    #[must_use]
    pub fn smaps_of_files(&self) -> u64 {
        self.smaps(|mapping| mapping.rss - mapping.anonymous)
    }

    fn smaps(&self, bytes: impl Fn(&Mapping) -> u64) -> u64 {
        // The balloon's advice to the host cuts the mappings.
        let is_inside = |mapping: &&Mapping| {
            self.ram.iter().any(|ram| ram.start <= mapping.start && mapping.end <= ram.end)
        };
        process::mappings(self.running.vmm()).iter().filter(is_inside).map(bytes).sum()
    }

    /// Bytes of guest memory in pages that are not all zero, as the VMM sees them.
    #[must_use]
    pub fn nonzero_bytes(&self) -> u64 {
        const PAGE: usize = balloon::PAGE_BYTES as usize;
        let memory = File::open(format!("/proc/{}/mem", self.running.vmm())).unwrap();
        let mut chunk = vec![0; MIB as usize];
        let mut pages = 0;
        for ram in &self.ram {
            for start in ram.clone().step_by(MIB as usize) {
                memory.read_exact_at(&mut chunk, start).unwrap();
                pages += chunk.chunks(PAGE).filter(|page| page.iter().any(|byte| *byte != 0)).count();
            }
        }
        (pages * PAGE) as u64
    }

    /// The most free pages that a CPU of the guest's holds back in a list of its own, by the guest's `/proc/zoneinfo`.
    #[must_use]
    pub fn pages_per_cpu_list(&mut self) -> u64 {
        self.does("cat /proc/zoneinfo");
        let output = self.output();
        // The zones' watermarks are called so too, without a colon.
        let lists = output.lines().filter_map(|line| line.trim().strip_prefix("high:"));
        lists.map(|pages| pages.trim().parse().unwrap()).max().unwrap()
    }

    /// Bytes of guest memory on each of the host's first `nodes` NUMA nodes, by `/proc/PID/numa_maps`.
    #[must_use]
    pub fn bytes_on_nodes(&self, nodes: usize) -> Vec<u64> {
        let maps = fs::read_to_string(format!("/proc/{}/numa_maps", self.running.vmm())).unwrap();
        let mut bytes = vec![0; nodes];
        for line in maps.lines() {
            let mut words = line.split(' ');
            let start = words.next().and_then(|start| u64::from_str_radix(start, 16).ok());
            if !start.is_some_and(|start| self.ram.iter().any(|ram| ram.contains(&start))) {
                continue;
            }
            for (node, pages) in words.filter_map(|word| word.strip_prefix('N')?.split_once('=')) {
                bytes[node.parse::<usize>().unwrap()] += pages.parse::<u64>().unwrap() * balloon::PAGE_BYTES;
            }
        }
        bytes
    }

    /// Host addresses of resident pages of guest memory that hold nothing but repetitions of `pattern`.
    #[must_use]
    pub fn resident_pages_of(&self, pattern: &[u8]) -> BTreeSet<u64> {
        const PAGE: usize = balloon::PAGE_BYTES as usize;
        const PRESENT: u64 = 1 << 63;
        let open = |name| File::open(format!("/proc/{}/{name}", self.running.vmm())).unwrap();
        let (pagemap, memory) = (open("pagemap"), open("mem"));
        let expected: Vec<u8> = pattern.iter().copied().cycle().take(PAGE + pattern.len()).collect();
        let mut page = [0; PAGE];
        let mut found = BTreeSet::new();
        for ram in &self.ram {
            let mut entries = vec![0; (ram.end - ram.start) as usize / PAGE * 8];
            pagemap.read_exact_at(&mut entries, ram.start / PAGE as u64 * 8).unwrap();
            for (address, entry) in ram.clone().step_by(PAGE).zip(entries.chunks_exact(8)) {
                if u64::from_ne_bytes(entry.try_into().unwrap()) & PRESENT == 0 {
                    continue;
                }
                memory.read_exact_at(&mut page, address).unwrap();
                // It may begin anywhere in the pattern.
                if (0..pattern.len()).any(|skip| expected[skip..skip + PAGE] == page) {
                    found.insert(address);
                }
            }
        }
        found
    }

    /// The process of its VMM.
    #[must_use]
    pub fn vmm(&self) -> Pid {
        self.running.vmm()
    }

    /// Bytes of the image layers that it has mapped.
    #[must_use]
    pub fn layer_bytes(&self) -> u64 {
        let mappings = process::mappings(self.running.vmm());
        let layers = mappings.iter().filter(|mapping| mapping.name.contains(".erofs"));
        layers.map(|mapping| mapping.end - mapping.start).sum()
    }

    /// All that the guest has said.
    #[must_use]
    pub fn output(&self) -> String {
        self.running.output()
    }

    /// Ends the guest's input and waits for the end, whichever it is.
    #[must_use]
    pub fn ended(self) -> Ended {
        self.running.end()
    }

    /// Ends the guest's input, with which its workload ends well.
    pub fn end(self) {
        let _ = self.running.end().exits(0);
    }

    /// Ends the guest's input and expects that the guest has run out of memory.
    pub fn ran_out_of_memory(self) {
        let _ = self.running.end().says("ran out of memory");
    }

    /// As [`Self::ran_out_of_memory`], and that its user is told how much it could use.
    pub fn ran_out_of_memory_at(self, size: &str) {
        let _ = self.running.end().says("ran out of memory").says(&format!("it may use {size}"));
    }
}

/// Addresses of guest memory among the mappings of a VMM. It has a name where the host's kernel gives names to anonymous
/// memory, and nothing else in a VMM is so large: a thread's arena of the allocator reserves 64 MiB. A part of the
/// kernel's image is mapped into it, and what the balloon and reports have the host do cuts it further, into small pieces
/// too. Beside it may be the guard of a stack, which cannot be read, and small memory of the VMM's own.
#[must_use]
pub fn guest_ram(mappings: &[Mapping]) -> Vec<Range<u64>> {
    let is_named = |mapping: &Mapping| mapping.name.contains("guest-ram") || mapping.name.contains("/vmlinu");
    let may_be = |mapping: &&Mapping| mapping.readable && (mapping.name.is_empty() || is_named(mapping));
    let mut stretches: Vec<Vec<&Mapping>> = Vec::new();
    for mapping in mappings.iter().filter(may_be) {
        match stretches.last_mut() {
            Some(last) if last.last().is_some_and(|before| before.end == mapping.start) => last.push(mapping),
            _ => stretches.push(vec![mapping]),
        }
    }
    let is_large = |mapping: &&&Mapping| is_named(mapping) || mapping.bytes() >= MIB;
    let range = |stretch: Vec<&Mapping>| {
        Some(stretch.iter().find(is_large)?.start..stretch.iter().rev().find(is_large)?.end)
    };
    let mut ranges: Vec<Range<u64>> = stretches.into_iter().filter_map(range).collect();
    ranges.retain(|range| range.end - range.start > 64 * MIB);
    ranges
}

/// A document about memory.
#[derive(Debug)]
pub struct Memory(pub Value);

impl Memory {
    /// A member that is a number of bytes.
    #[must_use]
    #[track_caller]
    pub fn bytes(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("no number '{name}' in {self:?}"))
    }

    /// The driver's state.
    #[must_use]
    pub fn driver(&self) -> &str {
        self.0["driver"].as_str().unwrap()
    }

    /// Books and driver agree, and the driver has reached its target.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.driver() == "settled" && self.0["skew_bytes"] == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::resident::parse_smaps;

    #[test]
    fn guest_memory_is_found_in_pieces_of_any_size() {
        // Memory of the VMM's, three pieces without a name, the kernel's file, more pieces, a guard and its stack.
        let maps = "\
7f00000ff000-7f0000100000 rw-p 00000000 00:00 0
7f0000100000-7f0001000000 rw-p 00000000 00:00 0
7f0001000000-7f0001001000 rw-p 00000000 00:00 0
7f0001001000-7f0001801000 rw-p 00e00000 fe:00 77                         /var/lib/ballast/cache/vmlinux
7f0001801000-7f0001810000 rw-p 00000000 00:00 0
7f0001810000-7f0010100000 rw-p 00000000 00:00 0
7f0010100000-7f0010101000 ---p 00000000 00:00 0
7f0010101000-7f0018101000 rw-p 00000000 00:00 0                          [stack]
";
        let ram = guest_ram(&parse_smaps(maps));
        assert_eq!((ram.len(), &ram[0]), (1, &(0x7f00_0010_0000..0x7f00_1010_0000)));
    }
}
