//! The machine: guest memory, the kernel in it, ACPI tables, CPUs and the KVM they run on.
//!
//! Built once by [`crate::run`], in the order of its modules below; nothing here changes while the guest runs.

pub mod acpi;
pub mod boot;
pub mod cpuid;
pub mod layout;
pub mod memory;
mod numa;
pub mod registers;
pub mod serial;
pub mod sparse_file;
pub mod stop;
pub mod vcpu;
pub mod vm;
