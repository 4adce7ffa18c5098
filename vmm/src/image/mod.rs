//! From an IMAGE argument to read-only EROFS layers that guests map.
//!
//! The command line opens a [`Store`](store::Store) on the data directory and calls
//! [`resolve`](store::Store::resolve) with what the user typed.
//! An IMAGE is a directory, a tar (plain, gzip, zstd, xz), a `docker save` archive, an OCI layout (directory or
//! tar), `-` for any of these on standard input, or the name or id of an imported image; [`mod@reference`] has the rule
//! of what comes first. What a file is, its contents decide.
//!
//! ```text
//! source            what is it?                        directory -> fingerprint ------------------+
//!   |                                                                                             |
//! docker_archive, oci_layout    which layers, which configuration (digests checked)               |
//!   |                                                                                             |
//! layer             bytes -> compression -> tar_reader -> entry -> unpack    (hashed on the way)  |
//!   |                        limits          pax                    tree     (openat2, inside)    |
//! merge, stack      more layers than devices: neighbours become one                               |
//!   |                                                                                             |
//! erofs             mkfs.erofs, opaque marks renamed, padded to 2 MiB, checked  <-----------------+
//!   |
//! store             published by link: layers/<key>.erofs, images/<id>.json, names/, memo/
//!   |
//! scoped            a copy of the layers for each scope that does not share them with all of the host
//! ```
//!
//! What holds:
//! - An archive writes nowhere but below its own root, and is held to [`Limits`]. Digests are checked before
//!   anything is published; what is published is complete, never changed in place, and found by its content.
//! - **Layers are keyed by diff id**, so that images share them. The key is one of the whole chain below where the
//!   file depends on it: for merged layers, and for layers whose archive uses directories that it does not
//!   describe, which get the attributes that the layers below give them.
//! - **Whiteouts** are character devices 0:0 and opaque directories carry `trusted.overlay.opaque`, whoever
//!   imports, so that the guest mounts overlayfs always in the same way.
//! - **The root** of a layer whose archive does not describe it is told by its modification time, and is as the layers
//!   below have it: for who merges, and for the guest.
//! - **Owners are never changed.** Users other than root import in a user namespace ([`user_namespace`]), or are
//!   told what they lack. The image is the same to the byte. A directory is taken with the owners that the caller
//!   sees.
//! - Device nodes are left out, with one notice. Of extended attributes `user.*` and `security.capability` stay.
//! - A file is known again by device, inode, size and times, a directory by those of everything in it, so that
//!   the second run of an image reads nothing.
//!
//! The program that uses this module must call [`helper_main`] first thing in `main`.

mod blobs;
mod catalogue;
mod compression;
pub mod config;
mod container;
mod digest;
mod directory;
mod docker_archive;
mod entry;
mod erofs;
mod erofs_image;
pub mod error;
mod id_map;
mod import;
mod import_report;
mod layer;
mod limits;
mod member;
mod member_data;
mod merge;
mod oci_layout;
mod origin;
mod pax;
pub mod progress;
pub mod progress_bars;
mod read_at;
mod records;
pub mod reference;
mod scoped;
mod source;
mod stack;
pub mod store;
mod tar_reader;
mod tree;
mod unpack;
pub mod user_namespace;
mod walk;
mod workspace;

pub use config::parse as parse_config;
pub use digest::Digest;
pub use entry::{Entry, EntryError, LayerPath, Metadata};
pub use limits::{LimitError, Limits};
pub use member::Mtime;
pub use unpack::UnpackError;
pub use user_namespace::helper_main;
pub use walk::walk;

/// How many layer files an image gets at most: each is a device of the guest, and costs it page structs.
pub const LAYERS_MAX: usize = 8;

#[cfg(test)]
mod tests;
pub use config::ImageConfig;
pub use error::Error;
pub use progress_bars::ProgressBars;
pub use reference::ImageRef;
pub use store::{Listed, Origin, Store};
