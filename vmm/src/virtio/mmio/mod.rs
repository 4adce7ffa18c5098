//! The MMIO transport: registers (pure), the device behind them, its interrupt.

pub mod interrupt;
pub mod registers;
pub mod transport;

pub use transport::Transport;
