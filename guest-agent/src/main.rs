//! PID 1 of every microVM.
fn main() {}
