//! On this very host: what is released reads zero, what is beside it stays.

use super::{Backing, Host, Kernel};
use crate::frames::{Books, Layout, Run};
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
        assert_eq!(backing.calls(), if vectored { 1 } else { 6 } + 6);
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
    backing.allow_huge_pages();
    assert!(!flags_at(first + (2 << 20)).iter().any(|flag| flag == "nh"));
    assert_eq!(scratch[0].byte(3), 1, "nothing was released");
}
