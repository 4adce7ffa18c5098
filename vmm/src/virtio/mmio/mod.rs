//! The MMIO transport: registers (pure), the device behind them, its interrupt.

pub mod interrupt;
pub mod registers;
#[cfg(test)]
mod tests;
pub mod transport;

pub use transport::{Held, Transport};
