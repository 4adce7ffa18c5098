//! What it costs to give memory back: nanoseconds a page and system calls a GiB, for streams of page numbers as
//! drivers send them, beside what the kernel can do at best and what a page a call costs.
//!
//! ```text
//! cargo bench -p balloon [-- --mib 512] [-- --rounds 5]
//! ```
//!
//! Each figure is the least processor time of several rounds; before each, all memory is touched anew. All ways
//! get the stream in the same kicks:
//!
//! - *ballast*: the device itself: numbers read, sorted and joined, released, entered into the books;
//! - *a call a page*: `madvise` or `fallocate` for each number as it comes;
//! - *a call a run*: the kick's longest runs, known beforehand, a call each;
//! - *vectored*: these runs in as few `process_madvise` as there can be;
//! - *whole*: one call for all of the memory, whatever the stream: the kernel's limit.

#![expect(clippy::unwrap_used, clippy::expect_used)]

mod memory;
mod streams;

use balloon::backing::{Host, HostRange, Kernel, MAX_RANGES};
use balloon::device::{Balloon, OFFERED, PFNS_PER_DESCRIPTOR, Queue};
use memory::{Memory, PAGE, Subject};
use std::os::fd::BorrowedFd;
use std::time::Duration;
use streams::{STREAMS, runs, stream};

/// Pages of one kick: what Linux sends, and what one pass of the device takes from a driver with many buffers.
const KICKS: [usize; 2] = [256, 2048];

/// A host that does nothing, at once: what remains is the device's own work.
struct Nothing;

impl Kernel for Nothing {
    fn discard(&mut self, _range: HostRange) -> std::io::Result<()> {
        Ok(())
    }

    fn replace(&mut self, _range: HostRange) -> std::io::Result<()> {
        Ok(())
    }

    fn discard_all(&mut self, ranges: &[HostRange]) -> std::io::Result<usize> {
        Ok(ranges.iter().map(|range| range.bytes()).sum())
    }

    fn split_huge_pages(&mut self, _range: HostRange) -> std::io::Result<()> {
        Ok(())
    }

    fn allow_huge_pages(&mut self, _: HostRange, _: bool) -> std::io::Result<()> {
        Ok(())
    }

    fn page_bytes(&self) -> u64 {
        balloon::PAGE_BYTES
    }

    fn takes_vectors(&mut self) -> bool {
        true
    }

    fn punch_hole(&mut self, _file: BorrowedFd<'_>, _offset: u64, _range: HostRange) -> std::io::Result<()> {
        Ok(())
    }
}

/// The processor time of this thread: other work of the host shows in it little.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// One way to release a stream: returns how many system calls it took.
type Way<'a> = Box<dyn FnMut() -> u64 + 'a>;

/// The least time of each way and its calls. Ways take turns, so that a slow spell of the host meets all of them.
fn race(subject: &Subject, rounds: usize, ways: &mut [Way<'_>]) -> Vec<(Duration, u64)> {
    let mut best = vec![(Duration::MAX, 0); ways.len()];
    for _ in 0..rounds {
        for (way, best) in ways.iter_mut().zip(&mut best) {
            subject.touch();
            if subject.kind == Memory::Huge {
                let permille = subject.huge_permille();
                assert!(permille > 900, "the host gave huge pages for {permille} permille only");
            }
            let start = thread_time();
            let calls = way();
            *best = (best.0.min(thread_time() - start), calls);
        }
    }
    best
}

/// One kick through the device.
fn inflate<K: Kernel>(device: &mut Balloon<K>, kick: &[u8]) {
    assert!(device.begin_chain());
    for array in kick.chunks(4 * PFNS_PER_DESCRIPTOR) {
        device.gather_numbers(array, array.len() as u64);
    }
    while !device.settle(Queue::Inflate, 0) {}
}

fn row(subject: &Subject, name: &str, kick_pages: usize, rounds: usize) {
    let numbers = stream(name, subject.pages());
    let pages = numbers.len();
    let kicks: Vec<_> = numbers.chunks(kick_pages).collect();
    let bytes: Vec<Vec<u8>> =
        kicks.iter().map(|kick| kick.iter().flat_map(|number| number.to_le_bytes()).collect()).collect();
    let runs: Vec<_> = kicks.iter().map(|kick| runs(kick)).collect();
    let vectors = subject.kind != Memory::Memfd && subject.release_vectored(&[(0, 1)]);
    let mut device = subject.device(Host::probe());

    let mut ways: Vec<Way<'_>> = vec![
        Box::new(|| {
            // One that has said nothing of huge pages yet, as the host has been told anew.
            device = subject.device(Host::probe());
            let target = (pages * PAGE) as u64;
            device.set_ceiling(subject.pages() as u64 * PAGE as u64 - target, 0).unwrap();
            bytes.iter().for_each(|kick| inflate(&mut device, kick));
            // The driver says that it has arrived, and gets what was put off.
            device.write_config(4, &(pages as u32).to_le_bytes(), 0);
            assert_eq!(device.books().totals().ballooned, pages as u64, "the books disagree");
            device.backing().work().calls
        }),
        Box::new(|| {
            numbers.iter().for_each(|&number| subject.release(number as usize, 1));
            pages as u64
        }),
        Box::new(|| {
            runs.iter().flatten().for_each(|&(first, count)| subject.release(first, count));
            runs.iter().flatten().count() as u64
        }),
        Box::new(|| {
            subject.release(0, subject.pages());
            1
        }),
    ];
    if vectors {
        ways.push(Box::new(|| {
            let vectors = runs.iter().flat_map(|runs| runs.chunks(MAX_RANGES));
            vectors.map(|vector| assert!(subject.release_vectored(vector))).count() as u64
        }));
    }
    let results = race(subject, rounds, &mut ways);
    drop(ways);
    device.books().check().unwrap();
    let (ours, by_page, by_run, whole) = (results[0], results[1], results[2], results[3]);
    let vectored = results.get(4);

    let nanos = |time: Duration, pages: usize| time.as_nanos() as f64 / pages as f64;
    let gib = |calls: u64| calls as f64 * (1 << 30) as f64 / (pages * PAGE) as f64;
    let best =
        results.iter().enumerate().filter(|(way, _)| ![0, 3].contains(way)).map(|(_, result)| result.0);
    let best = best.min().unwrap();
    let figure = |&(time, calls): &(Duration, u64)| format!("{:7.0} {:8.0}", nanos(time, pages), gib(calls));
    println!(
        "{:17} {:10} {:4} |{} |{} |{} |{} |{:6.0} |{:5.2} {:6.2}",
        subject.kind.name(),
        name,
        kick_pages,
        figure(&ours),
        figure(&by_page),
        figure(&by_run),
        vectored.map_or_else(|| format!("{:>16}", "-"), figure),
        nanos(whole.0, subject.pages()),
        ours.0.as_secs_f64() / best.as_secs_f64(),
        by_page.0.as_secs_f64() / ours.0.as_secs_f64(),
    );
}

/// The device's own work on a stream, without any of the kernel's.
fn own_work(subject: &Subject, name: &str, rounds: usize) -> f64 {
    let numbers = stream(name, subject.pages());
    let kicks: Vec<Vec<u8>> =
        numbers.chunks(KICKS[0]).map(|kick| kick.iter().flat_map(|n| n.to_le_bytes()).collect()).collect();
    let mut device = subject.device(Nothing);
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        device.reset();
        device.activate(OFFERED, 0);
        let start = thread_time();
        kicks.iter().for_each(|kick| inflate(&mut device, kick));
        best = best.min(thread_time() - start);
    }
    best.as_nanos() as f64 / numbers.len() as f64
}

fn argument(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map_or(default, |value| value.parse().expect("a number"))
}

fn main() {
    let (mib, rounds) = (argument("--mib", 512), argument("--rounds", 5));
    println!("{mib} MiB, least of {rounds} rounds; ns a page and calls a GiB\n");
    println!(
        "{:17} {:10} {:>4} |{:^16} |{:^16} |{:^16} |{:^16} |{:>6} | ratio of ballast",
        "memory", "stream", "kick", "ballast", "a call a page", "a call a run", "vectored", "whole"
    );
    println!(
        "{:17} {:10} {:>4} |{:>7} {:>8} |{:>7} {:>8} |{:>7} {:>8} |{:>7} {:>8} |{:>6} |{:>5} {:>6}",
        "", "", "", "ns", "calls", "ns", "calls", "ns", "calls", "ns", "calls", "ns", "best", "page"
    );
    for kind in [Memory::Small, Memory::Huge, Memory::Memfd] {
        let subject = Subject::new(kind, mib << 20);
        for name in STREAMS {
            for kick in KICKS {
                row(&subject, name, kick, rounds);
            }
        }
        subject.release(0, subject.pages());
    }
    let subject = Subject::new(Memory::Small, mib << 20);
    let own = STREAMS.map(|name| format!("{name} {:.1}", own_work(&subject, name, 2 * rounds)));
    println!("\nballast's own work, ns a page in kicks of {}: {}", KICKS[0], own.join(", "));
    println!(
        "best: time of ballast over the best raw way with the same kicks. page: times faster than a call a page."
    );
}
