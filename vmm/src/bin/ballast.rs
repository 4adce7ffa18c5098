//! `ballast`: runs containers as microVMs.
fn main() {}
