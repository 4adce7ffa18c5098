//! The log of a microVM that runs in the background: what its workload wrote, and what Ballast has to say of it.
//!
//! ```text
//! pipe -> pump -> entries -> journal -> DIRECTORY/log.json, log.json.1        reader -> ballast logs
//! ```
//!
//! [`entry`] is the format, docker's: a JSON document a line. [`journal`] keeps it within its size, [`budget`] says when
//! the next piece may be written, so that a flood costs the host no more than it may, and [`pump`] makes the
//! workload wait until then.

pub mod budget;
pub mod entry;
pub mod journal;
pub mod pump;
pub mod reader;
