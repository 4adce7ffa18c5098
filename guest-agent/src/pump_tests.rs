#![expect(clippy::arithmetic_side_effects)]

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

/// What a scripted stream does at one call.
#[derive(Debug, Clone, Copy)]
enum Turn {
    UpTo(usize),
    Blocks,
    Interrupted,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        4 => (1usize..70_000).prop_map(Turn::UpTo),
        2 => Just(Turn::Blocks),
        1 => Just(Turn::Interrupted),
    ];
    // At least one turn must move something, or nothing ever would.
    prop::collection::vec(turn, 1..12).prop_map(|mut turns| {
        turns.push(Turn::UpTo(1000));
        turns
    })
}

struct Script {
    turns: Vec<Turn>,
    at: usize,
}

impl Script {
    fn next(&mut self) -> io::Result<usize> {
        let turn = self.turns[self.at % self.turns.len()];
        self.at += 1;
        match turn {
            Turn::UpTo(n) => Ok(n),
            Turn::Blocks => Err(ErrorKind::WouldBlock.into()),
            Turn::Interrupted => Err(ErrorKind::Interrupted.into()),
        }
    }
}

struct Source {
    script: Script,
    data: Vec<u8>,
    at: Rc<RefCell<usize>>,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut at = self.at.borrow_mut();
        let n = self.script.next()?.min(buffer.len()).min(self.data.len() - *at);
        buffer[..n].copy_from_slice(&self.data[*at..*at + n]);
        *at += n;
        Ok(n)
    }
}

struct Sink {
    script: Script,
    data: Rc<RefCell<Vec<u8>>>,
    breaks_after: usize,
}

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut data = self.data.borrow_mut();
        if data.len() >= self.breaks_after {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let n = self.script.next()?.min(buffer.len());
        data.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Bench {
    pump: Pump<Source, Sink>,
    taken: Rc<RefCell<usize>>,
    given: Rc<RefCell<Vec<u8>>>,
}

fn bench(data: &[u8], reads: Vec<Turn>, writes: Vec<Turn>, breaks_after: usize) -> Bench {
    let (taken, given) = (Rc::new(RefCell::new(0)), Rc::new(RefCell::new(Vec::new())));
    let source = Source { script: Script { turns: reads, at: 0 }, data: data.to_vec(), at: taken.clone() };
    let sink = Sink { script: Script { turns: writes, at: 0 }, data: given.clone(), breaks_after };
    Bench { pump: Pump::new(source, sink), taken, given }
}

impl Bench {
    /// Runs as the event loop would: on after each edge, until nothing moves any more.
    fn run(&mut self) {
        for _ in 0..1_000_000 {
            if !self.pump.run() {
                if self.pump.is_done() {
                    return;
                }
                // Both sides' next edge.
                self.pump.source_is_ready();
                self.pump.sink_is_ready();
            }
            let ahead = self.taken.borrow().saturating_sub(self.given.borrow().len());
            assert!(ahead <= BUFFER_BYTES || !self.pump.has_sink(), "{ahead} bytes held");
        }
        panic!("the pump never came to an end");
    }
}

proptest! {
    #[test]
    fn everything_arrives_in_order(
        data in prop::collection::vec(any::<u8>(), 0..150_000),
        reads in turns(),
        writes in turns(),
    ) {
        let mut bench = bench(&data, reads, writes, usize::MAX);
        bench.run();
        prop_assert_eq!(&*bench.given.borrow(), &data);
        prop_assert_eq!(bench.pump.given(), data.len() as u64);
        prop_assert_eq!(bench.pump.last_byte(), data.last().copied());
    }

    #[test]
    fn a_limit_is_kept_to_the_byte(
        data in prop::collection::vec(any::<u8>(), 0..100_000),
        limit in 0usize..120_000,
        reads in turns(),
        writes in turns(),
    ) {
        let mut bench = bench(&data, reads, writes, usize::MAX);
        bench.pump.end_after(limit as u64);
        bench.run();
        let expected = limit.min(data.len());
        prop_assert_eq!(*bench.taken.borrow(), expected);
        prop_assert_eq!(&*bench.given.borrow(), &data[..expected]);
    }

    #[test]
    fn a_broken_sink_lets_the_source_run_dry(
        data in prop::collection::vec(any::<u8>(), 1..100_000),
        breaks_after in 0usize..50_000,
        reads in turns(),
        writes in turns(),
    ) {
        let mut bench = bench(&data, reads, writes, breaks_after);
        bench.run();
        prop_assert_eq!(*bench.taken.borrow(), data.len());
        prop_assert_eq!(&*bench.given.borrow(), &data[..bench.given.borrow().len()]);
        prop_assert_eq!(bench.pump.has_sink(), bench.given.borrow().len() == data.len());
    }
}

#[test]
fn a_blocked_side_is_not_tried_before_its_edge() {
    let mut bench = bench(b"abc", vec![Turn::Blocks, Turn::UpTo(3)], vec![Turn::UpTo(3)], usize::MAX);
    assert!(!bench.pump.run());
    bench.pump.sink_is_ready();
    assert!(!bench.pump.run());
    assert_eq!(*bench.taken.borrow(), 0);
    bench.pump.source_is_ready();
    bench.pump.run();
    assert_eq!(*bench.given.borrow(), b"abc");
}

#[test]
fn an_appendix_follows_everything_else() {
    let mut bench = bench(b"abc", vec![Turn::UpTo(2)], vec![Turn::Blocks, Turn::UpTo(1)], usize::MAX);
    bench.run();
    bench.pump.append(b"\x04\x04");
    assert!(!bench.pump.is_done());
    bench.run();
    assert_eq!(*bench.given.borrow(), b"abc\x04\x04");
}

#[test]
fn an_endless_stream_gives_way() {
    let mut pump = Pump::new(io::repeat(1), io::sink());
    assert!(pump.run());
    assert!(pump.given() <= u64::from(BUDGET) * BUFFER_BYTES as u64);
}
