//! A hostile guest: a kernel of its own that does to the balloon's registers, rings and pages whatever a table says,
//! on `/dev/kvm`, in a machine that a test is made of or in the real VMM.

pub mod abuse;
pub mod bench;
pub mod clients;
pub mod driver;
pub mod interpreter;
pub mod machine;
pub mod meter;
pub mod program;
pub mod vmm;

pub use abuse::{Abuse, Count};
pub use bench::Bench;
pub use driver::Driver;
