//! From an IMAGE argument to read-only EROFS layers in the data directory.
pub mod compression;
pub mod config;
pub mod container;
pub mod digest;
pub mod directory;
pub mod docker_archive;
pub mod entry;
pub mod erofs;
pub mod erofs_image;
pub mod error;
pub mod import;
pub mod limits;
pub mod member;
pub mod merge;
pub mod oci_layout;
pub mod pax;
pub mod process;
pub mod progress;
pub mod progress_bars;
pub mod records;
pub mod reference;
pub mod source;
pub mod stack;
pub mod store;
pub mod tree;
pub mod unpack;
pub mod user_namespace;
pub mod workspace;

#[cfg(test)]
mod tests;
