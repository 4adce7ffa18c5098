//! On this very host: what is released reads zero, what is beside it stays.

use super::simulated::{Answer, Simulated};
use super::{Backing, Host, Kernel};
use crate::frames::{Books, Layout, Run};
use crate::numa::Nodes;
use crate::scratch::Scratch;

const BLOCK: u64 = crate::BLOCK_BYTES;
const PAGES: usize = (BLOCK / crate::PAGE_BYTES) as usize;

/// An anonymous region and a memfd one, full of ones.
fn memory() -> (Layout, [Scratch; 2]) {
    let layout = Layout::new(&[(0, BLOCK), (2 * BLOCK, BLOCK)]).unwrap();
    let scratch = [Scratch::anonymous(BLOCK), Scratch::memfd(BLOCK)];
    scratch.iter().for_each(|scratch| scratch.fill(0, PAGES, 1));
    (layout, scratch)
}

fn backing<K: Kernel>(kernel: K, layout: &Layout, scratch: &[Scratch; 2]) -> Backing<K> {
    Backing::new(kernel, layout, scratch.iter().map(Scratch::mapping).collect()).unwrap()
}

#[test]
fn released_pages_read_zero_and_their_neighbours_stay() {
    for host in [Host::probe, Host::without_vectors] {
        let (layout, scratch) = memory();
        let mut backing = backing(host(), &layout, &scratch);
        let mut books = Books::new(layout.clone());
        // The edges of both regions, single pages, and a whole huge page.
        let pieces = [(0, 1), (2, 1), (5, 3), (100, 1), (512, 512 - 1), (1023, 1)];
        let runs: Vec<Run> = [0, 1]
            .into_iter()
            .flat_map(|region| pieces.map(|(first, count)| layout.run(region, first, count).unwrap()))
            .collect();
        let receipt = backing.release(&runs);
        assert_eq!(receipt.runs(), runs);
        assert_eq!(books.balloon(&receipt).changed, 2 * 518);
        for scratch in &scratch {
            for page in 0..PAGES {
                let released =
                    pieces.iter().any(|&(first, count)| (first..first + count).contains(&(page as u64)));
                assert_eq!(scratch.byte(page), u8::from(!released), "page {page}");
            }
            assert!(scratch.canaries_live());
        }
        let vectored = backing.vectored();
        assert_eq!(backing.work().calls, if vectored { 1 } else { 6 } + 6);
        assert_eq!(backing.failures().calls, 0);
    }
}

#[test]
fn whole_regions_release_and_fill_again() {
    let (layout, scratch) = memory();
    let mut backing = backing(Host::probe(), &layout, &scratch);
    let runs = [0, 1].map(|region| layout.run(region, 0, PAGES as u64).unwrap());
    for round in 1..4 {
        assert_eq!(backing.release(&runs).pages(), 2 * PAGES as u64);
        for scratch in &scratch {
            assert!((0..PAGES).all(|page| scratch.byte(page) == 0));
            assert!(scratch.canaries_live());
            scratch.fill(0, PAGES, round);
        }
    }
}

#[test]
fn a_refusing_host_is_counted_and_nothing_is_lost() {
    // A file that cannot be written has no holes punched into it.
    let (layout, scratch) = memory();
    let read_only = std::fs::File::open("/dev/null").unwrap();
    let kind = super::Kind::Shared { file: read_only.into(), offset: 0 };
    let mappings = vec![scratch[0].mapping(), scratch[1].mapping_as(kind)];
    let mut backing = Backing::new(Host::probe(), &layout, mappings).unwrap();
    let runs = [0, 1].map(|region| layout.run(region, 9, 2).unwrap());
    assert_eq!(backing.release(&runs).runs(), &runs[..1]);
    assert_eq!((backing.failures().pages, backing.failures().last_errno), (2, Some(libc::EBADF)));
    assert_eq!((scratch[0].byte(9), scratch[1].byte(9)), (0, 1));
}

/// Flags of the mapping that holds `address` (`VmFlags` of proc_pid_smaps(5)).
fn flags_at(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap();
        if let Some((start, end)) = first.split_once('-') {
            let bounds = [start, end].map(|bound| usize::from_str_radix(bound, 16).unwrap());
            inside = (bounds[0]..bounds[1]).contains(&address);
        } else if inside && first == "VmFlags:" {
            return line.split(' ').skip(1).map(Into::into).collect();
        }
    }
    panic!("nothing is mapped at {address:#x}");
}

#[test]
fn this_host_is_told_where_not_to_use_huge_pages() {
    let (layout, scratch) = memory();
    let mut backing = backing(Host::probe(), &layout, &scratch);
    let first = backing.mappings()[0].whole().unwrap().address();
    let mut told = |runs: &[Run], ballooned: u64| {
        backing.adapt_huge_pages(&layout, runs, |_| ballooned);
        [first, first + (2 << 20)].map(|address| flags_at(address).iter().any(|flag| flag == "nh"))
    };
    let run = layout.run(0, 3, 2).unwrap();
    assert_eq!(told(&[run], 2), [true, false]);
    assert_eq!(told(&[layout.run(0, 600, 2).unwrap()], 2), [true, true]);
    assert_eq!(told(&[run], 0), [false, true]);
    backing.adapt_huge_pages(&layout, &layout.between((0, 0), (2, 0)).collect::<Vec<_>>(), |_| 0);
    assert!(!flags_at(first + (2 << 20)).iter().any(|flag| flag == "nh"));
    assert_eq!(scratch[0].byte(3), 1, "nothing was released");
}

#[test]
fn what_was_mapped_from_a_file_reads_zero_once_it_is_released() {
    const FROM: usize = 300;
    const TO: usize = 700;
    for host in [Host::probe, Host::without_vectors] {
        let (layout, scratch) = memory();
        scratch[0].map_over(FROM, TO - FROM, 7);
        let image = scratch[0].mapping().with_image(FROM as u64 * 4096, (TO - FROM) as u64 * 4096);
        let mut backing = Backing::new(host(), &layout, vec![image, scratch[1].mapping()]).unwrap();
        // The guest changes a page, and nobody else sees that.
        scratch[0].fill(310, 1, 9);
        // Across its begin, in it, the changed page, across its end, and none of it; twice.
        let pieces = [(290, 11), (305, 2), (310, 1), (512, 100), (699, 2), (900, 5)];
        let runs = pieces.map(|(first, count)| layout.run(0, first, count).unwrap());
        for _ in 0..2 {
            assert_eq!(backing.release(&runs).runs(), runs);
            for page in 0..PAGES {
                let released =
                    pieces.iter().any(|&(first, count)| (first..first + count).contains(&(page as u64)));
                let kept = if (FROM..TO).contains(&page) { 7 } else { 1 };
                assert_eq!(scratch[0].byte(page), if released { 0 } else { kept }, "page {page}");
            }
            // It is memory as any other.
            scratch[0].fill(512, 100, 3);
            assert_eq!(scratch[0].byte(600), 3);
        }
        assert!(scratch[0].canaries_live());
        assert_eq!(backing.failures().calls, 0);
    }
}

#[test]
fn a_part_is_replaced_once() {
    let layout = Layout::new(&[(0, BLOCK)]).unwrap();
    let mapping = Simulated::mapping(1 << 30, BLOCK).with_image(10 * 4096, 20 * 4096);
    let mut backing = Backing::new(Simulated::default(), &layout, vec![mapping]).unwrap();
    let mut release = |runs: &[(u64, u64)]| {
        let runs: Vec<_> = runs.iter().map(|&(first, count)| layout.run(0, first, count).unwrap()).collect();
        backing.kernel_mut().replaced.clear();
        let before = backing.work();
        assert_eq!(backing.release(&runs).runs(), runs);
        let replaced = backing.kernel_mut().replaced.iter();
        let replaced: Vec<_> = replaced.map(|address| (address - (1 << 30)) / 4096).collect();
        (replaced, backing.work().calls - before.calls)
    };
    // Of each replacement four calls and advice, and the discarding.
    assert_eq!(release(&[(12, 2), (20, 1)]), (vec![12, 13, 20], 2 * 6));
    assert_eq!(release(&[(12, 2), (20, 1)]), (vec![], 1), "memory as any other, by a vector");
    assert_eq!(release(&[(11, 6)]), ((11..17).collect(), 6), "what lies amid goes, too");
    assert_eq!(release(&[(0, 1024)]), ((10..30).collect(), 6));
    assert_eq!(release(&[(0, 1024)]), (vec![], 1));
}

#[test]
fn what_takes_the_place_of_a_file_is_placed_and_advised_as_what_was_there() {
    const FROM: usize = 300;
    const TO: usize = 700;
    for small in [false, true] {
        let (layout, scratch) = memory();
        scratch[0].map_over(FROM, TO - FROM, 7);
        let whole = scratch[0].mapping().whole().unwrap();
        match crate::numa::Host::default().prefer(whole, Some(0)) {
            // A kernel without nodes has nothing to lose.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return,
            result => result.unwrap(),
        }
        let image = scratch[0].mapping().with_image(FROM as u64 * 4096, (TO - FROM) as u64 * 4096);
        let mut backing = Backing::new(Host::probe(), &layout, vec![image, scratch[1].mapping()]).unwrap();
        if small {
            backing.keep_small_pages(0);
        }
        // The balloon has a part of the second huge page, and none of the first.
        backing.adapt_huge_pages(&layout, &[layout.run(0, 1000, 1).unwrap()], |run| {
            u64::from(run.first() == 512)
        });
        let runs = [(400, 200)].map(|(first, count)| layout.run(0, first, count).unwrap());
        assert_eq!(backing.release(&runs).runs(), runs);
        let at = |page: usize| whole.address() + page * 4096;
        let mapping = &backing.mappings()[0];
        let policy = |page| crate::numa::Policy::of(mapping.range(layout.run(0, page, 1).unwrap()).unwrap());
        for page in [350, 450, 550, 650, 900] {
            assert_eq!(policy(page), policy(290), "page {page}");
        }
        assert_ne!(policy(290), crate::numa::Policy::of(scratch[1].mapping().whole().unwrap()));
        let advice = |page: usize| {
            let flags = flags_at(at(page));
            ["hg", "nh"].map(|flag| flags.iter().any(|has| has == flag))
        };
        assert_eq!(advice(450), [!small, small]);
        assert_eq!(advice(550), [false, true], "where the balloon is");
        assert_eq!(backing.failures(), super::Failures::default());
    }
}

#[test]
fn a_part_that_cannot_be_replaced_is_not_released() {
    let layout = Layout::new(&[(0, BLOCK)]).unwrap();
    let mapping = Simulated::mapping(1 << 30, BLOCK).with_image(4096, 8192);
    let refusing = Simulated::with_answers(&[Answer::Errno(libc::ENOMEM)]);
    let mut backing = Backing::new(refusing, &layout, vec![mapping]).unwrap();
    let run = layout.run(0, 2, 4).unwrap();
    assert_eq!(backing.release(&[run]).pages(), 0);
    assert_eq!((backing.failures().pages, backing.kernel_mut().released_pages()), (4, 0));
    assert_eq!(backing.release(&[run]).pages(), 4);
    let replaced: Vec<_> = backing.kernel_mut().replaced.iter().copied().collect();
    assert_eq!(
        replaced,
        [(1 << 30) + 8192],
        "the part of the run that was mapped from the file, and no more"
    );
    // A part that the mapping does not have is none.
    for (offset, bytes) in [(BLOCK - 4096, 8192), (BLOCK, 4096), (0, BLOCK + 4096)] {
        let mapping = Simulated::mapping(1 << 30, BLOCK).with_image(offset, bytes);
        assert_eq!(mapping.image_in(mapping.whole().unwrap()), None, "{offset} {bytes}");
    }
}
