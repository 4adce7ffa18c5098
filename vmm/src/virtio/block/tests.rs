//! The block device against a driver in memory and a disk in memory that can fail.

mod model;

use super::backend::Backend;
use super::bounce::Cursor;
use super::limits::QUEUE_SIZE;
use super::lookup::Slice;
use super::{Block, SERIAL_BYTES};
use crate::virtio::device::{Device, Effects, Memory};
use crate::virtio::driver::{Driver, memory, readable, writable};
use std::cell::RefCell;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use virtio_queue::Queue;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MEMORY: usize = 4 << 20;
const SECTORS: usize = 64;
const DISK: usize = SECTORS * 512;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const FLUSH_FEATURE: u64 = 1 << 9;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// A disk in memory. Its `fail_at`th operation from now on fails with `errno`.
#[derive(Debug)]
struct Contents {
    bytes: Vec<u8>,
    flushes: usize,
    discards: Vec<(u64, u64)>,
    fail_at: Option<usize>,
    errno: i32,
}

#[derive(Clone, Debug)]
struct MemoryDisk(Arc<Mutex<Contents>>);

impl MemoryDisk {
    fn new(bytes: Vec<u8>) -> Self {
        let (flushes, discards, fail_at, errno) = (0, Vec::new(), None, libc::EIO);
        Self(Arc::new(Mutex::new(Contents { bytes, flushes, discards, fail_at, errno })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Contents) -> T) -> io::Result<T> {
        let mut contents = self.0.lock().unwrap();
        match contents.fail_at {
            Some(0) => {
                contents.fail_at = None;
                return Err(io::Error::from_raw_os_error(contents.errno));
            }
            Some(n) => contents.fail_at = Some(n - 1),
            None => {}
        }
        Ok(act(&mut contents))
    }

    fn look<T>(&self, look: impl FnOnce(&mut Contents) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }
}

impl Backend for MemoryDisk {
    fn len_bytes(&self) -> u64 {
        self.look(|contents| contents.bytes.len() as u64)
    }

    fn can_discard(&self) -> bool {
        true
    }

    fn read_at(&mut self, offset: u64, into: &[Slice<'_>]) -> io::Result<()> {
        let len: usize = into.iter().map(|slice| slice.len()).sum();
        self.with(|contents| Cursor::new(into).write(&contents.bytes[offset as usize..][..len]))
    }

    fn write_at(&mut self, offset: u64, from: &[Slice<'_>]) -> io::Result<()> {
        let len: usize = from.iter().map(|slice| slice.len()).sum();
        self.with(|contents| Cursor::new(from).read(&mut contents.bytes[offset as usize..][..len]))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(|contents| contents.flushes += 1)
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.with(|contents| {
            contents.discards.push((offset, len));
            contents.bytes[offset as usize..][..len as usize].fill(0);
        })
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        self.with(|contents| contents.bytes[offset as usize..][..len as usize].fill(0))
    }
}

/// Contents that tell every sector from every other.
fn pattern() -> Vec<u8> {
    (0..DISK).map(|i| (i / 512 * 3 + i % 251) as u8).collect()
}

struct Machine {
    driver: Driver,
    queues: [Queue; 1],
    disk: MemoryDisk,
    block: Block<MemoryDisk>,
}

impl Machine {
    fn new(read_only: bool, layers: Memory) -> Self {
        let driver = Driver::new(&memory(MEMORY), 0x1000, QUEUE_SIZE);
        let queues = [driver.queue(true)];
        let disk = MemoryDisk::new(pattern());
        let mut block = Block::new(disk.clone(), "volume 'v'", "vol0", read_only, layers);
        block.activate(FLUSH_FEATURE);
        Self { driver, queues, disk, block }
    }

    fn serve(&mut self) -> Effects {
        self.block.serve(0, &mut self.queues, self.driver.memory()).unwrap()
    }

    /// Sends one well-laid-out request: header, `out` and room for `room` bytes and the status. Returns the
    /// status, the used length and the data.
    fn ask(&mut self, kind: u32, sector: u64, out: &[u8], room: u32) -> (u8, u32, Vec<u8>) {
        self.driver.write(0x10_0000, &header(kind, sector));
        self.driver.write(0x11_0000, out);
        self.driver.write(0x12_0000, &vec![0xcc; room as usize + 1]);
        let mut chain = vec![readable(0x10_0000, 16)];
        if !out.is_empty() {
            chain.push(readable(0x11_0000, out.len() as u32));
        }
        chain.push(writable(0x12_0000, room + 1));
        self.driver.offer(0, &chain);
        assert!(!self.serve().again);
        let used = self.driver.take_used();
        assert_eq!((used.len(), used[0].0), (1, 0));
        let mut data = self.driver.read(0x12_0000, room as usize + 1);
        (data.pop().unwrap(), used[0].1, data)
    }
}

fn none() -> Memory {
    Arc::new(GuestMemoryMmap::new())
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0x77; 4], &sector.to_le_bytes()].concat()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn reads_and_writes() {
    let mut machine = Machine::new(false, none());
    let (status, used, data) = machine.ask(READ, 3, &[], 1024);
    assert_eq!((status, used), (OK, 1025));
    assert_eq!(data, pattern()[1536..2560]);
    assert_eq!(machine.ask(WRITE, 63, &[9; 512], 0), (OK, 1, vec![]));
    machine.disk.look(|disk| assert_eq!(disk.bytes[63 * 512..], [9; 512]));
    let counters = machine.block.counters();
    assert_eq!(counters.read_bytes.load(Ordering::Relaxed), 1024);
    assert_eq!(counters.written_bytes.load(Ordering::Relaxed), 512);
    assert_eq!(counters.requests.load(Ordering::Relaxed), 2);
}

#[test]
fn identifies_itself() {
    let mut machine = Machine::new(false, none());
    let (status, used, data) = machine.ask(GET_ID, 0, &[], SERIAL_BYTES as u32);
    assert_eq!((status, used), (OK, 21));
    assert_eq!(data, *b"vol0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let (status, used, data) = machine.ask(GET_ID, 0, &[], 30);
    assert_eq!((status, used), (OK, 20), "the status is not contiguous with what was written");
    assert_eq!(data[20..], [0xcc; 10]);
    assert_eq!(machine.ask(GET_ID, 0, &[], 2), (OK, 3, b"vo".to_vec()));
    let long = Block::new(machine.disk.clone(), "disk", "a serial number that is too long", false, none());
    let mut machine = Machine { block: long, ..Machine::new(false, none()) };
    assert_eq!(machine.ask(GET_ID, 0, &[], 20).2, *b"a serial number that");
}

#[test]
fn discards_and_zeroes() {
    let mut machine = Machine::new(false, none());
    let two = [range(1, 2, 0), range(8, 8, 0)].concat();
    assert_eq!(machine.ask(DISCARD, 0, &two, 0).0, OK);
    machine.disk.look(|disk| assert_eq!(disk.discards, [(512, 1024), (4096, 4096)]));
    let second_is_wrong = [range(1, 2, 0), range(SECTORS as u64, 1, 0)].concat();
    assert_eq!(machine.ask(DISCARD, 0, &second_is_wrong, 0).0, IOERR);
    assert_eq!(machine.ask(DISCARD, 0, &range(1, 2, 1), 0).0, UNSUPP);
    machine.disk.look(|disk| assert_eq!(disk.discards.len(), 2, "nothing of a wrong request is done"));
    assert_eq!(machine.ask(WRITE_ZEROES, 0, &range(20, 1, 1), 0).0, OK);
    machine.disk.look(|disk| assert_eq!(disk.bytes[20 * 512..21 * 512], [0; 512]));
    assert_eq!(machine.ask(WRITE_ZEROES, 0, &range(20, 1, 4), 0).0, UNSUPP);
}

#[test]
fn a_driver_that_does_not_flush_is_written_through() {
    let changes = [(WRITE, vec![1; 512]), (DISCARD, range(0, 1, 0)), (WRITE_ZEROES, range(0, 1, 0))];
    let mut machine = Machine::new(false, none());
    for (kind, data) in &changes {
        machine.ask(*kind, 0, data, 0);
    }
    assert_eq!(machine.disk.look(|disk| disk.flushes), 0);
    assert_eq!(machine.ask(FLUSH, 0, &[], 0), (OK, 1, vec![]));
    assert_eq!(machine.disk.look(|disk| disk.flushes), 1);
    machine.block.reset();
    machine.block.activate(0);
    for (done, (kind, data)) in changes.iter().enumerate() {
        machine.ask(*kind, 0, data, 0);
        assert_eq!(machine.disk.look(|disk| disk.flushes), 2 + done);
    }
    machine.ask(READ, 0, &[], 512);
    assert_eq!(machine.disk.look(|disk| disk.flushes), 4);
}

#[test]
fn a_read_only_disk_never_changes() {
    let mut machine = Machine::new(true, none());
    for (kind, data) in [(WRITE, vec![1; 512]), (DISCARD, range(0, 1, 0)), (WRITE_ZEROES, range(0, 1, 0))] {
        assert_eq!(machine.ask(kind, 0, &data, 0).0, IOERR);
    }
    assert_eq!(machine.ask(FLUSH, 0, &[], 0).0, OK);
    assert_eq!(machine.ask(READ, 0, &[], 512).0, OK);
    machine.disk.look(|disk| assert_eq!((disk.flushes, &disk.bytes), (0, &pattern())));
    assert_eq!(machine.block.counters().read_only.load(Ordering::Relaxed), 3);
}

#[test]
fn failures_of_the_host_are_told_and_counted() {
    for (errno, status) in [(libc::EIO, IOERR), (libc::ENOSPC, IOERR), (libc::EOPNOTSUPP, UNSUPP)] {
        for (kind, out, room) in [
            (READ, vec![], 512),
            (WRITE, vec![1; 512], 0),
            (FLUSH, vec![], 0),
            (DISCARD, range(0, 1, 0), 0),
            (WRITE_ZEROES, range(0, 1, 0), 0),
        ] {
            let mut machine = Machine::new(false, none());
            machine.disk.look(|disk| {
                disk.fail_at = Some(0);
                disk.errno = errno;
            });
            let (told, used, data) = machine.ask(kind, 0, &out, room);
            assert_eq!(told, status, "type {kind}, errno {errno}");
            assert_eq!(used, u32::from(room == 0), "nothing was written before the status");
            assert!(data.iter().all(|&byte| byte == 0xcc));
            let counters = machine.block.counters();
            let full = u64::from(errno == libc::ENOSPC);
            assert_eq!(counters.host_full.load(Ordering::Relaxed), full);
            assert_eq!(counters.host_failed.load(Ordering::Relaxed), 1 - full);
            assert_eq!(machine.ask(kind, 0, &out, room).0, OK, "the next request is unharmed");
        }
    }
}

thread_local! {
    static LOGGED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what each thread logs.
struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOGGED.with_borrow_mut(|logged| logged.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

#[test]
fn each_failure_of_the_host_is_told_with_what_it_befell() {
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let mut machine = Machine::new(false, none());
    for errno in [libc::EIO, libc::ENOSPC, libc::EIO] {
        machine.disk.look(|disk| (disk.fail_at, disk.errno) = (Some(0), errno));
        machine.ask(WRITE, 0, &[1; 512], 0);
    }
    machine.ask(WRITE, SECTORS as u64, &[1; 512], 0);
    let logged = LOGGED.take();
    let told = |message: &String| message.starts_with("volume 'v': the guest meets an I/O error");
    assert!(logged.len() == 3 && logged.iter().all(told), "{logged:?}");
}

#[test]
fn a_failure_halfway_is_a_failure() {
    let mut machine = Machine::new(false, none());
    machine.disk.look(|disk| disk.fail_at = Some(1));
    let two = [range(1, 2, 0), range(8, 8, 0)].concat();
    assert_eq!(machine.ask(DISCARD, 0, &two, 0).0, IOERR);
    machine.disk.look(|disk| assert_eq!(disk.discards, [(512, 1024)]));
    machine.block.activate(0);
    machine.disk.look(|disk| disk.fail_at = Some(1));
    assert_eq!(machine.ask(WRITE, 0, &[1; 512], 0).0, IOERR, "written, but not durable");
}

#[test]
fn data_in_an_image_layer_may_be_written_but_not_read_into() {
    const LAYER: u64 = 1 << 32;
    let layer: Memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(LAYER), 4096)]).unwrap());
    layer.write_slice(&[0x42; 4096], GuestAddress(LAYER)).unwrap();
    let mut machine = Machine::new(false, layer.clone());
    machine.driver.write(0x10_0000, &header(WRITE, 0));
    machine.driver.write(0x10_0010, &header(READ, 8));
    let chains = [
        vec![readable(0x10_0000, 16), readable(LAYER, 1024), writable(0x12_0000, 1)],
        vec![readable(0x10_0010, 16), writable(LAYER, 512), writable(0x12_0001, 1)],
        // Half in the layer, half beyond.
        vec![readable(0x10_0000, 16), readable(LAYER + 4096 - 512, 1024), writable(0x12_0002, 1)],
        // A header is the driver's own memory.
        vec![readable(LAYER, 16), writable(0x12_0003, 1)],
        // The status cannot be told.
        vec![readable(0x10_0010, 16), writable(0x13_0000, 512), writable(LAYER, 1)],
    ];
    for (i, chain) in chains.iter().enumerate() {
        machine.driver.offer(8 * i as u16, chain);
    }
    while machine.serve().again {}
    assert_eq!(machine.driver.take_used(), [(0, 1), (8, 0), (16, 1), (24, 1), (32, 512)]);
    assert_eq!(machine.driver.read(0x12_0000, 4), [OK, IOERR, IOERR, IOERR]);
    machine.disk.look(|disk| assert_eq!(disk.bytes[..1024], [0x42; 1024]));
    let mut unchanged = [0; 4096];
    layer.read_slice(&mut unchanged, GuestAddress(LAYER)).unwrap();
    assert_eq!(unchanged, [0x42; 4096]);
    assert_eq!(machine.block.counters().outside_memory.load(Ordering::Relaxed), 3);
}

#[test]
fn chains_without_a_status_come_back_empty() {
    let mut machine = Machine::new(false, none());
    machine.driver.write(0x10_0000, &header(WRITE, 0));
    machine.driver.offer(0, &[readable(0x10_0000, 16)]);
    machine.driver.offer(2, &[readable(0x10_0000, 15), writable(0x12_0000, 1)]);
    machine.driver.offer(4, &[writable(0x12_0001, 1)]);
    while machine.serve().again {}
    assert_eq!(machine.driver.take_used(), [(0, 0), (2, 1), (4, 1)]);
    assert_eq!(machine.driver.read(0x12_0000, 2), [IOERR, IOERR], "a header cut short is an error");
    assert_eq!(machine.block.counters().malformed.load(Ordering::Relaxed), 3);
}

#[test]
fn a_pass_is_bounded_in_requests_and_bytes() {
    let mut machine = Machine::new(false, none());
    machine.driver.write(0x10_0000, &header(FLUSH, 0));
    for head in 0..10 {
        machine.driver.offer(head * 2, &[readable(0x10_0000, 16), writable(0x12_0000, 1)]);
    }
    let passes = std::iter::from_fn(|| {
        let again = machine.serve().again;
        Some((machine.driver.take_used().len(), again))
    });
    assert_eq!(passes.take(4).collect::<Vec<_>>(), [(4, true), (4, true), (2, false), (0, false)]);

    let disk = MemoryDisk::new(vec![1; 8 << 20]);
    let mut machine =
        Machine { block: Block::new(disk, "disk", "", false, none()), ..Machine::new(false, none()) };
    machine.driver.write(0x10_0000, &header(READ, 0));
    for head in 0..3 {
        let data = writable(0x20_0000, 1 << 20);
        machine.driver.offer(head * 3, &[readable(0x10_0000, 16), data, writable(0x12_0000, 1)]);
    }
    let passes = std::iter::from_fn(|| {
        let again = machine.serve().again;
        Some((machine.driver.take_used().len(), again))
    });
    assert_eq!(passes.take(3).collect::<Vec<_>>(), [(1, true), (1, true), (1, false)]);
}
