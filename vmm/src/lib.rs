//! Ballast's microVM: the machine, its virtio devices, container images and the command line.

pub mod bus;
pub mod config;
pub mod machine;
pub mod virtio;
