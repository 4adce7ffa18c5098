//! Images.
pub mod compression;
pub mod config;
pub mod digest;
pub mod entry;
pub mod erofs;
pub mod erofs_image;
pub mod limits;
pub mod member;
pub mod merge;
pub mod pax;
pub mod progress;
pub mod progress_bars;
pub mod reference;
pub mod stack;
pub mod tree;
pub mod unpack;
