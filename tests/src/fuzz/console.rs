//! The console under a hostile driver: what it holds stays within its bounds.

use super::bytes::Bytes;
use super::driver::{drive, memory};
use vmm::virtio::console::Console;
use vmm::virtio::console::device::BUFFER_BYTES;
use vmm::virtio::console::ports::KINDS;

pub fn run(input: &[u8]) {
    drive(Console::default(), memory(), &mut Bytes(input), |console, input| {
        let port = usize::from(input.u8());
        let length = usize::from(input.u8());
        if input.u8() % 2 == 0 {
            console.send(port, input.take(length));
        } else {
            console.consume(port, length);
        }
        for port in 0..KINDS.len() {
            let (front, back) = console.output(port);
            assert!(front.len() + back.len() <= BUFFER_BYTES);
        }
    });
}
