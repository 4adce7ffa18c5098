//! Programs of the interpreter, record by record.

use super::interpreter::{Operation, RECORD_BYTES, Record};

/// A program under construction.
#[derive(Clone, Debug, Default)]
pub struct Program {
    records: Vec<Record>,
    /// Texts that are printed, by the number of the record that prints them.
    texts: Vec<(usize, String)>,
}

impl Program {
    /// As it lies at `address` in guest memory: records, then texts.
    #[must_use]
    pub fn bytes(&self, address: u64) -> Vec<u8> {
        let mut records = self.records.clone();
        let mut texts = Vec::new();
        let end = address + (records.len() * RECORD_BYTES) as u64;
        for (number, text) in &self.texts {
            records[*number].address = end + texts.len() as u64;
            texts.extend_from_slice(text.as_bytes());
        }
        let mut bytes: Vec<u8> = records.iter().flat_map(Record::bytes).collect();
        bytes.append(&mut texts);
        bytes
    }

    /// The records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The record before byte `offset` of the program, which is what a failed expectation leaves.
    #[must_use]
    pub fn record_before(&self, offset: u64) -> Option<&Record> {
        self.records.get((offset as usize / RECORD_BYTES).checked_sub(1)?)
    }

    /// Adds a record.
    pub fn push(&mut self, operation: Operation, width: u8, address: u64, value: u64, mask: u64) {
        self.records.push(Record { operation, width, count: 1, address, value, mask });
    }

    /// Lets the last record do its work `count` times.
    pub fn times(&mut self, count: u32) {
        self.records.last_mut().expect("a record comes first").count = count;
    }

    /// Stores `width` bytes of `value`.
    pub fn write(&mut self, width: u8, address: u64, value: u64) {
        self.push(Operation::Write, width, address, value, 0);
    }

    /// Loads `width` bytes.
    pub fn read(&mut self, width: u8, address: u64) {
        self.push(Operation::Read, width, address, 0, 0);
    }

    /// Expects `value` under `mask`.
    pub fn expect(&mut self, width: u8, address: u64, value: u64, mask: u64) {
        self.push(Operation::Expect, width, address, value, mask);
    }

    /// Waits for `value` under `mask`.
    pub fn await_value(&mut self, width: u8, address: u64, value: u64, mask: u64) {
        self.push(Operation::Await, width, address, value, mask);
    }

    /// Stores `count` 32-bit numbers: `first`, and `step` more each time.
    pub fn fill(&mut self, address: u64, first: u32, step: u32, count: u32) {
        self.push(Operation::Fill, 4, address, first.into(), step.into());
        self.times(count);
    }

    /// Adds `value` to `width` bytes.
    pub fn add(&mut self, width: u8, address: u64, value: u64) {
        self.push(Operation::Add, width, address, value, 0);
    }

    /// What `body` writes, `count` times in all.
    pub fn repeat(&mut self, count: u32, body: impl FnOnce(&mut Self)) {
        let start = self.records.len();
        body(self);
        let back = (self.records.len() + 1 - start) * RECORD_BYTES;
        self.push(Operation::Loop, 4, 0, back as u64, 0);
        self.times(count);
    }

    /// Adds what another program does.
    pub fn append(&mut self, other: Self) {
        let first = self.records.len();
        self.texts.extend(other.texts.into_iter().map(|(number, text)| (first + number, text)));
        self.records.extend(other.records);
    }

    /// Writes a line to the serial port.
    pub fn print(&mut self, line: &str) {
        self.texts.push((self.records.len(), format!("{line}\n")));
        self.push(Operation::Print, 1, 0, 0, 0);
        self.times(line.len() as u32 + 1);
    }

    /// Stores `bytes`.
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        for (number, chunk) in (0_u64..).zip(bytes.chunks(8)) {
            let mut value = [0; 8];
            value[..chunk.len()].copy_from_slice(chunk);
            let (value, at) = (u64::from_le_bytes(value), address + 8 * number);
            if chunk.len() == 8 {
                self.write(8, at, value);
            } else {
                for (index, byte) in (0_u64..).zip(chunk) {
                    self.write(1, at + index, (*byte).into());
                }
            }
        }
    }

    /// Ends the program.
    pub fn next(&mut self) {
        self.push(Operation::Next, 1, 0, 0, 0);
    }

    /// Writes a byte to an I/O port.
    pub fn port(&mut self, port: u16, value: u8) {
        self.push(Operation::Port, 1, port.into(), value.into(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lie_behind_the_records() {
        let mut program = Program::default();
        program.print("hello");
        program.next();
        let bytes = program.bytes(0x1000);
        assert_eq!(bytes.len(), 2 * RECORD_BYTES + 6);
        assert_eq!(bytes[8..16], 0x1040_u64.to_le_bytes());
        assert_eq!(&bytes[2 * RECORD_BYTES..], b"hello\n");
    }
}
