//! A guest of the simulation: what it uses ([`pages`], [`workload`]), how its kernel evicts ([`evict`]), what becomes of
//! free memory ([`free`]), all of it a tick at a time ([`machine`]), and what is heard of it ([`agent`]).

pub mod agent;
pub mod evict;
pub mod free;
pub mod machine;
pub mod pages;
mod slots;
mod waits;
pub mod workload;
