//! Ballast's microVM: the machine, its virtio devices, container images and the command line.

pub mod bus;
pub mod config;
pub mod ending;
pub mod link;
pub mod logging;
pub mod machine;
pub mod report;
pub mod run;
pub mod streams;
pub mod virtio;
