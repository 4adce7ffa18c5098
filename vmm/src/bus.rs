//! Routes a vCPU's accesses to I/O ports and device registers to their handlers.
//!
//! Built once before the vCPUs start and never changed, so looking up takes no lock; a handler locks itself.
//! "Nobody's" is a value: unclaimed reads are all ones and unclaimed writes vanish, as on a real bus.

use std::sync::Arc;

/// Something that answers accesses within its range.
pub trait BusDevice: Send + Sync {
    /// Fills `data` from `offset` within the range.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes `data` at `offset` within the range.
    fn write(&self, offset: u64, data: &[u8]);
}

/// One address space: I/O ports or memory-mapped registers.
#[derive(Default)]
pub struct Bus {
    ranges: Vec<Range>,
}

struct Range {
    start: u64,
    end: u64,
    device: Arc<dyn BusDevice>,
}

/// Two devices claim the same addresses.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range {start:#x}..{end:#x} is empty or overlaps another device's")]
pub struct Overlap {
    start: u64,
    end: u64,
}

impl Bus {
    /// Gives `length` addresses from `start` on to `device`.
    ///
    /// # Errors
    /// The range is empty or overlaps one given before.
    pub fn insert(&mut self, start: u64, length: u64, device: Arc<dyn BusDevice>) -> Result<(), Overlap> {
        let end = start.saturating_add(length);
        if start >= end || self.ranges.iter().any(|r| start < r.end && r.start < end) {
            return Err(Overlap { start, end });
        }
        let at = self.ranges.partition_point(|r| r.start < start);
        self.ranges.insert(at, Range { start, end, device });
        Ok(())
    }

    /// Reads at `address`.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Writes at `address`.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.find(address) {
            device.write(offset, data);
        }
    }

    fn find(&self, address: u64) -> Option<(&dyn BusDevice, u64)> {
        let before = self.ranges.partition_point(|r| r.start <= address);
        let range = self.ranges.get(before.checked_sub(1)?)?;
        (address < range.end).then(|| (&*range.device, address.saturating_sub(range.start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    struct Recorder(u8, Mutex<Vec<(u64, Vec<u8>)>>);

    impl BusDevice for Recorder {
        fn read(&self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + offset as u8);
        }
        fn write(&self, offset: u64, data: &[u8]) {
            self.1.lock().unwrap().push((offset, data.to_vec()));
        }
    }

    fn recorder(id: u8) -> Arc<Recorder> {
        Arc::new(Recorder(id, Mutex::default()))
    }

    #[test]
    fn accesses_reach_their_device_and_no_other() {
        let (a, b) = (recorder(0x10), recorder(0x80));
        let mut bus = Bus::default();
        bus.insert(0x200, 0x10, b.clone()).unwrap();
        bus.insert(0x100, 0x10, a.clone()).unwrap();
        let mut data = [0];
        for (address, value) in
            [(0x100, 0x10), (0x10f, 0x1f), (0x110, 0xff), (0xff, 0xff), (0x203, 0x83), (0x210, 0xff)]
        {
            bus.read(address, &mut data);
            assert_eq!(data[0], value, "{address:#x}");
        }
        bus.write(0x205, &[1, 2]);
        bus.write(0x300, &[9]);
        assert!(a.1.lock().unwrap().is_empty());
        assert_eq!(*b.1.lock().unwrap(), [(5, vec![1, 2])]);
    }

    #[test]
    fn overlapping_and_empty_ranges_are_refused() {
        let mut bus = Bus::default();
        bus.insert(0x100, 0x10, recorder(0)).unwrap();
        for (start, length) in [(0x10f, 1), (0xf1, 0x10), (0x100, 0x10), (0x80, 0x1000), (0x500, 0)] {
            assert!(bus.insert(start, length, recorder(1)).is_err(), "{start:#x}+{length:#x}");
        }
        bus.insert(0x110, 1, recorder(2)).unwrap();
    }
}
