//! `ballast-vmm`: one microVM.
fn main() {}
