//! Page numbers as drivers send them, always the same.

pub const STREAMS: [&str; 3] = ["contiguous", "mixed", "scattered"];

/// A small generator of numbers, always the same.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Page numbers in the order of the driver.
pub fn stream(name: &str, pages: usize) -> Vec<u32> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    match name {
        "contiguous" => (0..pages as u32).collect(),
        "scattered" => {
            // No two are neighbours, so every run is one page.
            let mut numbers: Vec<_> = (0..pages as u32).step_by(2).collect();
            random.shuffle(&mut numbers);
            numbers
        }
        _ => {
            // Half of the pages in runs of 1 MiB, a quarter in runs of 64 KiB, a quarter alone, in any order.
            let mut pieces = Vec::new();
            for mib in (0..pages).step_by(256) {
                match random.below(4) {
                    0 | 1 => pieces.push((mib, 256)),
                    2 => pieces.extend((0..8).map(|i| (mib + 32 * i, 16))),
                    _ => pieces.extend((0..128).map(|i| (mib + 2 * i, 1))),
                }
            }
            random.shuffle(&mut pieces);
            pieces.iter().flat_map(|&(first, count)| first as u32..(first + count) as u32).collect()
        }
    }
}

/// The longest runs of a kick.
pub fn runs(kick: &[u32]) -> Vec<(usize, usize)> {
    let mut numbers: Vec<_> = kick.iter().map(|&number| number as usize).collect();
    numbers.sort_unstable();
    let joined = numbers.chunk_by(|one, two| one + 1 == *two);
    joined.map(|run| (run[0], run.len())).collect()
}
