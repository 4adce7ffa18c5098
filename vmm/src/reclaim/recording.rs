//! Writes down what the law is told and what it decides, as `ballast replay` reads it, and waits for nobody.

use balloon::policy::trace::{self, Did, Header, Saw};
use balloon::policy::{Observation, Orders};
use std::io::{ErrorKind, Write};

/// What may be unwritten: half a minute of the busiest guest. A recording with a gap would not replay, so one whose reader
/// is slower ends.
const UNWRITTEN_BYTES: usize = 256 << 10;

/// A recording under way.
pub struct Recording {
    /// None once it has ended.
    output: Option<Box<dyn Write>>,
    unwritten: Vec<u8>,
}

impl Recording {
    /// One that goes to `output`, whose writes do not block, and begins with `header`.
    #[must_use]
    pub fn new(output: Box<dyn Write>, header: &Header) -> Self {
        let mut recording = Self { output: Some(output), unwritten: Vec::new() };
        trace::write(header, &mut recording.unwritten);
        recording.flush();
        recording
    }

    /// Notes an observation and what it brought about.
    pub fn note(&mut self, now_ms: u64, saw: &Observation, orders: &Orders) {
        if self.output.is_none() {
            return;
        }
        trace::write(&Saw { now_ms, saw: *saw }, &mut self.unwritten);
        for did in orders.iter() {
            trace::write(&Did { did: *did }, &mut self.unwritten);
        }
        self.flush();
    }

    fn flush(&mut self) {
        let Some(output) = &mut self.output else { return };
        let why = loop {
            if self.unwritten.is_empty() {
                return;
            }
            match output.write(&self.unwritten) {
                Ok(0) => break "nobody takes it".into(),
                Ok(bytes) => drop(self.unwritten.drain(..bytes.min(self.unwritten.len()))),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.unwritten.len() <= UNWRITTEN_BYTES {
                        return;
                    }
                    break "its reader is too slow".into();
                }
                Err(error) => break error.to_string(),
            }
        };
        log::warn!("the recording of the reclaim law ends here: {why}");
        (self.output, self.unwritten) = (None, Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use balloon::policy::trace::Replay;
    use balloon::policy::{Law, Settings, Tuning};
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;

    /// Takes a few bytes at a time, or none.
    #[derive(Clone, Default)]
    struct Pipe {
        written: Rc<RefCell<Vec<u8>>>,
        is_full: Rc<RefCell<bool>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if *self.is_full.borrow() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let few = bytes.get(..bytes.len().min(7)).unwrap_or_default();
            self.written.borrow_mut().extend_from_slice(few);
            Ok(few.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Ticks of a law, recorded to `pipe`, which is full in the middle third of them.
    fn record(pipe: &Pipe, ticks: u64) {
        let (settings, tuning) = (Settings::new(1 << 30), Tuning::default());
        let mut law = Law::new(0, 1 << 30, settings, tuning);
        let header = Header::new(0, 1 << 30, settings, tuning);
        let mut recording = Recording::new(Box::new(pipe.clone()), &header);
        for tick in 1..=ticks {
            *pipe.is_full.borrow_mut() = (ticks / 3..ticks * 2 / 3).contains(&tick);
            let mut orders = Orders::new();
            law.observe(tick * 1000, &Observation::Tick, &mut orders);
            recording.note(tick * 1000, &Observation::Tick, &orders);
        }
    }

    /// Lines that replay.
    fn replayed(pipe: &Pipe) -> u64 {
        let mut replay = Replay::new();
        let written = pipe.written.borrow();
        let whole =
            written.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        whole.for_each(|line| replay.line(line).unwrap());
        replay.lines()
    }

    #[test]
    fn a_reader_that_lags_gets_all_of_it() {
        let pipe = Pipe::default();
        record(&pipe, 300);
        assert!(replayed(&pipe) > 300);
    }

    #[test]
    fn a_reader_that_is_too_slow_gets_what_replays() {
        let pipe = Pipe::default();
        record(&pipe, 60_000);
        assert!((19_000..21_000).contains(&replayed(&pipe)), "{}", replayed(&pipe));
    }
}
