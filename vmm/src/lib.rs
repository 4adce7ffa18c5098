//! Ballast's microVM: the machine, its virtio devices, container images and the command line.

pub mod config;
pub mod virtio;
