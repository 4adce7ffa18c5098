//! The zones of a VM. [`Blocks`] tell which of them a guest page lies in.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

mod blocks;

pub use blocks::{Blocks, Extent, ExtentError, SECTION_BYTES};
